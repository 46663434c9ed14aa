"""Images become rows that are their own targets, and models draw them again."""

import json
import subprocess
import sys

import numpy as np
import pytest

from engram import datasets, models
from engram.datasets import digits
from engram.tasks import reconstruction
from engram.tasks.reconstruction import DataError, batches, evaluate, figures, rows

DEEP = {"units": [30], "code": 8, "optimizer": "adam"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Digits of 8 x 8 pixels, white 16; 100 of the 1,029 training images held out."""
    folder = tmp_path_factory.mktemp("digits")
    datasets.fetch("digits", folder / "raw", file="")
    reconstruction.prepare(folder / "raw", folder / "pictures", validation=100)
    return folder / "pictures"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Returns a function that prepares images of chance; returns folder and examples."""
    import tensorflow_datasets as tfds

    def make(validation=10, shape=(5, 6, 3), **info):
        pixels = np.random.default_rng(1)
        examples = {
            split: [
                {"image": pixels.integers(0, 256, shape, np.uint8), "label": n % 3}
                for n in range(size)
            ]
            for split, size in {"train": 60, "test": 20}.items()
        }

        class Builder:
            def as_data_source(self, split):
                return examples[split]

        about = {"features": {"image": None, "label": None}, "metadata": None}
        Builder.info = type("Info", (), about | info)
        monkeypatch.setattr(tfds, "builder_from_directory", lambda raw: Builder())
        reconstruction.prepare(tmp_path, tmp_path / "out", validation)
        return tmp_path / "out", examples

    return make


def spec_of(folder):
    return json.loads((folder / "spec.json").read_text())


def gathered(data):
    """Returns rows and targets of all batches in their order."""
    found = list(data.as_numpy_iterator())
    return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]


# prepare


def test_the_last_images_of_the_training_split_are_to_choose_on(made):
    out, examples = made()
    spec = spec_of(out)
    assert spec["parts"] == {"train": [0, 50], "validation": [50, 60], "test": [60, 80]}
    assert (spec["shape"], spec["visible"], spec["white"]) == ([5, 6, 3], 90, 255)
    every = examples["train"] + examples["test"]
    labels = np.load(out / "labels.npy")
    assert labels.tolist() == [one["label"] for one in every]
    for part, (start, end) in spec["parts"].items():
        pixels = np.stack([one["image"].ravel() for one in every[start:end]])
        np.testing.assert_allclose(rows(out, part), pixels / 255, rtol=1e-6)


def test_digits_keep_their_own_white(prepared):
    spec = spec_of(prepared)
    assert (spec["white"], spec["shape"], spec["visible"]) == (16, [8, 8, 1], 64)
    assert spec["parts"]["validation"] == [929, 1029]
    pixels, _ = digits.images("train", unseen_hands=False)
    expected = pixels.reshape(len(pixels), 64) / np.float32(16)
    np.testing.assert_array_equal(rows(prepared, "train+validation"), expected)


def test_other_images_have_another_fingerprint(made):
    one, again, other = (
        spec_of(made(shape=shape)[0])["fingerprint"]
        for shape in ((5, 6, 3), (5, 6, 3), (5, 6, 1))
    )
    assert one == again != other and len(one) == 64


@pytest.mark.parametrize("validation", [0, 60, 61])
def test_a_validation_part_that_leaves_nothing_is_refused(made, validation):
    with pytest.raises(DataError, match=f"from 1 to 59, .* 60 .* Received: {validation}"):
        made(validation=validation)


def test_examples_of_another_kind_are_refused(made):
    with pytest.raises(DataError, match="'image' and 'label'. Received: values, marked"):
        made(features={"values": None, "marked": None})


# batches and rows


def test_a_row_is_its_own_target_and_no_row_is_lost(prepared):
    found = list(batches(prepared, "test", 100))
    assert [len(target) for _, target in found] == [100, 100, 100, 82]
    inputs, target = gathered(batches(prepared, "test", 100))
    assert inputs.dtype == np.float32 and inputs.shape == (382, 64)
    np.testing.assert_array_equal(inputs, target)
    np.testing.assert_array_equal(inputs, rows(prepared, "test"))
    assert (inputs.min(), inputs.max()) == (0, 1)


def test_equal_seeds_shuffle_alike_in_every_epoch_and_epochs_differ(made):
    out, _ = made()

    def epochs(seed):
        data = batches(out, "train", 7, seed=seed)
        return [gathered(data) for _ in range(2)]

    one, again, other = ([e[0][:, 0].tolist() for e in epochs(s)] for s in (1, 1, 2))
    assert one == again != other
    assert one[0] != one[1]
    plain = rows(out, "train")[:, 0].tolist()
    assert plain not in one and all(sorted(e) == sorted(plain) for e in one + other)
    for inputs, target in epochs(1):
        np.testing.assert_array_equal(inputs, target)


def test_rows_need_no_tensorflow(prepared):
    code = (
        "import pathlib, sys; from engram.tasks import reconstruction\n"
        "found = reconstruction.rows(pathlib.Path(sys.argv[1]), 'train')\n"
        "print(found.shape, {'keras', 'tensorflow'} & set(sys.modules))"
    )
    run = [sys.executable, "-c", code, str(prepared)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.stdout == "(929, 64) set()\n", done.stderr


# models, evaluate and figures


def _pca(prepared, units):
    model = models.build("pca", spec_of(prepared), 0.001, units=units)
    model.fit(batches(prepared, "train", 64, seed=1))
    return model


def test_an_autoencoder_learns_the_digits_and_reports_are_of_the_test_part(prepared):
    model = models.build("deep_autoencoder", spec_of(prepared), 0.01, **DEEP)
    model.jit_compile = False
    data = batches(prepared, "train", 32, seed=1)
    before = evaluate([model], prepared, "train")["metrics"]
    model.fit(data, epochs=15, shuffle=False, verbose=0)
    found = evaluate([model], prepared, "train", batch_size=100)
    assert found["metrics"]["squared_error"] < before["squared_error"] / 2
    assert found["metrics"]["cross_entropy"] < before["cross_entropy"]
    test = rows(prepared, "test")
    error = ((model.predict(test, verbose=0) - test) ** 2).sum(axis=1).mean()
    assert found["metrics"]["squared_error"] == pytest.approx(error, rel=1e-5)


def test_a_longer_linear_code_is_better_on_test_images_too(prepared):
    found = [evaluate([_pca(prepared, n)], prepared, "train") for n in (2, 10, 30)]
    errors = [one["metrics"]["squared_error"] for one in found]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_evaluate_reports_what_is_kept_and_draws_equal_files(prepared, tmp_path):
    spec = spec_of(prepared)
    trained = [models.build("deep_autoencoder", spec, 0.01, **DEEP) for _ in range(2)]
    found = evaluate(trained, prepared, "train")
    assert set(reconstruction.REPORTED) <= set(found)
    assert found["headline"] == [found["sort_by"]]
    assert found["fingerprint"] == spec["fingerprint"]
    assert len(found["per_seed"]) == 2 and found["squared_error"].shape == (2, 382)
    _, truth = digits.images("test", unseen_hands=False)
    np.testing.assert_array_equal(found["labels"], truth)
    first, second = (figures(found, tmp_path / name) for name in "ab")
    assert [file.name for file in first] == ["reconstructions.png", "classes.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes().startswith(b"\x89PNG")
        assert one.read_bytes() == other.read_bytes()


def test_below_each_image_of_a_class_stands_its_own_reconstruction(prepared):
    from engram.tasks import reconstruction_figures

    found = evaluate([_pca(prepared, 10)], prepared, "train")
    figure = reconstruction_figures.reconstructions(found)
    shown = [axis.images[0].get_array().data for axis in figure.axes if axis.images]
    assert len(figure.axes) == len(shown) == 2 * 3 * 10
    third = np.flatnonzero(found["labels"] == 7)[2]
    for line, key in ((4, "rows"), (5, "reconstructions")):
        expected = found[key][third].clip(0, 1).reshape(8, 8)
        np.testing.assert_array_equal(shown[10 * line + 7], expected)


@pytest.mark.parametrize("shape", [(5, 6, 3), (5, 6, 1)])
def test_a_picture_is_the_image_within_0_and_1(made, shape):
    from engram.tasks.reconstruction_figures import picture

    _, examples = made(shape=shape)
    image = examples["test"][0]["image"] / 255
    shown = picture(image.ravel() + 0.5, list(shape))
    assert shown.shape == (shape if shape[-1] == 3 else shape[:2])
    np.testing.assert_allclose(shown.ravel(), (image.ravel() + 0.5).clip(0, 1))
