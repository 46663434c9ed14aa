"""Images keep their classes and parts, few keep their label, and models learn them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from engram import datasets, models
from engram.datasets import digits
from engram.param_forms.datasets import Images
from engram.tasks import classification, classification_metrics
from engram.tasks.classification import (
    DataError,
    batches,
    chosen,
    evaluate,
    figures,
    prepare,
    rows,
)

SHAPES = {"grey": (4, 3, 1), "colour": (5, 6, 3)}
ARGUMENTS = {"activation": "relu", "optimizer": "adam", "dropout": 0}
ARGUMENTS |= {"hidden_rate": 0.1, "logits": "zeros"}


@pytest.fixture(scope="module")
def raw_digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "raw"
    datasets.fetch("digits", folder, file="")
    return folder


@pytest.fixture(scope="module")
def prepared_digits(raw_digits):
    prepare(raw_digits, raw_digits.parent / "all", 0, None, False)
    return raw_digits.parent / "all"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Returns a function that prepares images of chance; returns their folder."""
    import tensorflow_datasets as tfds

    def make(
        kind="grey", validation=10, labelled=None, balanced=False, sizes=None, **info
    ):
        sizes = sizes or {"train": 60, "test": 20}
        draw = np.random.default_rng(1)
        examples = {
            split: [
                {"image": draw.integers(0, 256, SHAPES[kind], np.uint8), "label": n % 3}
                for n in range(size)
            ]
            for split, size in sizes.items()
        }

        class Builder:
            def as_data_source(self, split):
                return examples[split]

        label = tfds.features.ClassLabel(names=["cat", "dog", "$10"])
        features = {"image": None, "label": label}
        about = {"features": features, "splits": examples, "metadata": None}
        Builder.info = type("Info", (), about | info)
        monkeypatch.setattr(tfds, "builder_from_directory", lambda raw: Builder())
        prepare(tmp_path, tmp_path / "out", validation, labelled, balanced)
        return tmp_path / "out", examples

    return make


def spec_of(prepared):
    return json.loads((prepared / "spec.json").read_text())


def gathered(data):
    """Returns inputs and targets of all batches in their order."""
    found = list(data.as_numpy_iterator())
    return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]


# prepare


def test_digits_bring_their_own_parts(prepared_digits):
    spec = spec_of(prepared_digits)
    assert spec["parts"] == {key: list(ends) for key, ends in digits.PARTS.items()}
    assert (spec["shape"], spec["white"], spec["classes"]) == ([8, 8, 1], 16, 10)
    assert (spec["task"], spec["dataset"]) == ("classification", "all")
    for part in digits.PARTS:
        pixels, labels = digits.images(part, unseen_hands=False)
        inputs, targets = gathered(batches(prepared_digits, part, 100))
        np.testing.assert_array_equal(inputs, pixels / np.float32(16))
        np.testing.assert_array_equal(targets, labels)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_last_images_of_the_training_split_are_to_choose_on(made, kind):
    out, examples = made(kind, validation=10)
    spec = spec_of(out)
    assert spec["parts"] == {"train": [0, 50], "validation": [50, 60], "test": [60, 80]}
    assert (spec["shape"], spec["white"]) == (list(SHAPES[kind]), 255)
    assert (spec["classes"], spec["names"]) == (3, ["cat", "dog", "$10"])
    every = examples["train"] + examples["test"]
    for part, (start, end) in spec["parts"].items():
        inputs, targets = gathered(batches(out, part, 7))
        pixels = np.stack([one["image"] for one in every[start:end]])
        np.testing.assert_allclose(inputs, pixels / 255, rtol=1e-6)
        assert targets.tolist() == [one["label"] for one in every[start:end]]


def test_other_images_have_another_fingerprint(made):
    one, again, fewer = (
        spec_of(made(labelled=labelled)[0])["fingerprint"] for labelled in (None, None, 9)
    )
    assert one == again != fewer
    assert len(one) == 64


@pytest.mark.parametrize("validation", [0, 60, 61])
def test_a_validation_part_that_leaves_nothing_is_refused(made, validation):
    with pytest.raises(DataError, match=f"from 1 to 59, .* 60 .* Received: {validation}"):
        made(validation=validation)


def test_a_dataset_with_a_validation_split_gives_no_other_images(made):
    sizes = {"train": 30, "validation": 9, "test": 12}
    out, _ = made(validation=0, sizes=sizes)
    parts = {"train": [0, 30], "validation": [30, 39], "test": [39, 51]}
    assert spec_of(out)["parts"] == parts
    with pytest.raises(DataError, match="must be 0, .* Received: 5"):
        made(validation=5, sizes=sizes)


def test_examples_of_another_kind_are_refused(made):
    with pytest.raises(DataError, match="'image' and 'label'. Received: values, marked"):
        made(features={"values": None, "marked": None})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("validation", -1),
        ("validation", None),
        ("labelled", 0),
        ("labelled", "100"),
        ("balanced", 1),
    ],
)
def test_numbers_of_images_that_make_no_sense_are_refused(key, value):
    right = {"validation": 0, "labelled": None, "balanced": False}
    Images.model_validate(right)
    with pytest.raises(ValueError, match=key):
        Images.model_validate(right | {key: value})


# few labels


def test_equally_many_of_each_class_keep_their_label_in_their_order():
    labels = np.random.default_rng(1).integers(0, 4, 200)
    kept = chosen(labels, 40, 4)
    assert np.bincount(labels[kept]).tolist() == [10] * 4
    assert np.all(np.diff(kept) > 0)
    assert kept.max() > 150  # from all over the part


def test_the_choice_is_that_of_every_other_machine_and_fewer_are_some_of_more():
    labels = np.arange(60) % 3
    assert chosen(labels, 6, 3).tolist() == CHOSEN
    more = [set(chosen(labels, labelled, 3)) for labelled in (6, 12, 60)]
    assert more[0] < more[1] < more[2] == set(range(60))


CHOSEN = [6, 11, 15, 19, 52, 53]


def test_few_labels_leave_the_other_parts_as_they_are(raw_digits, prepared_digits):
    few = raw_digits.parent / "few"
    prepare(raw_digits, few, 0, 100, False)
    inputs, targets = gathered(batches(few, "train", 100))
    assert np.bincount(targets).tolist() == [10] * 10
    every, known = gathered(batches(prepared_digits, "train", 100))
    kept = chosen(known, 100, 10)
    np.testing.assert_array_equal(inputs, every[kept])
    np.testing.assert_array_equal(targets, known[kept])
    for part in ("validation", "test"):
        np.testing.assert_array_equal(rows(few, part), rows(prepared_digits, part))


def test_images_to_choose_on_are_set_aside_before_labels_are_drawn(made):
    whole, _ = made()
    known = gathered(batches(whole, "validation", 10))
    few, _ = made(labelled=9)
    assert spec_of(few)["parts"]["validation"] == [9, 19]
    for one, other in zip(known, gathered(batches(few, "validation", 10)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_class_with_too_few_images_is_named(made):
    # of 50 images of three classes, the third has 16
    with pytest.raises(ValueError, match=r"at most 48, since class 2 has 16 .*: 51"):
        made(labelled=51)
    made(labelled=48)


@pytest.mark.parametrize("labelled", [2, 10])
def test_labels_that_the_classes_cannot_share_are_refused(made, labelled):
    with pytest.raises(DataError, match=f"multiple of 3, .* Received: {labelled}"):
        made(labelled=labelled)


# classes that weigh the same


def test_balanced_classes_weigh_the_same_in_all_and_an_image_1_on_average():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = classification.class_weights(labels, 3)
    sums = [weights[one] * (labels == one).sum() for one in range(3)]
    np.testing.assert_allclose(sums, [10 / 3] * 3)
    assert weights[labels].mean() == pytest.approx(1)


def test_a_class_that_nothing_can_balance_is_named():
    with pytest.raises(DataError, match="every class. Received: none of class 1"):
        classification.class_weights(np.array([0, 2]), 3)


@pytest.mark.parametrize("part", ["train", "validation", "test", "train+validation"])
def test_a_batch_of_a_balanced_dataset_has_the_weight_of_each_image(made, part):
    assert spec_of(made()[0])["weights"] is None
    out, _ = made(balanced=True)
    known = np.bincount(gathered(batches(out, "train", 7))[1])
    weights = spec_of(out)["weights"]
    np.testing.assert_allclose(weights, 50 / (3 * known))
    _, target, weight = gathered(batches(out, part, 7))
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight, np.array(weights)[target], rtol=1e-6)


def test_weights_are_in_the_loss_that_keras_reports(made):
    out, _ = made(balanced=True)
    model = models.build("deep_net", spec_of(out), 0.01, units=[4], **ARGUMENTS)
    model.layers[-1].kernel.assign(np.random.default_rng(1).normal(size=(4, 3)))
    inputs, target, weight = gathered(batches(out, "validation", 7))
    logits = np.array(model(inputs), np.float64)
    each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(target)), target]
    loss = model.evaluate(batches(out, "validation", 10), verbose=0)
    assert loss == pytest.approx((weight * each).sum() / len(each), rel=1e-5)
    assert loss != pytest.approx(each.mean(), rel=1e-3)


# batches and rows


def test_batches_have_the_promised_shapes_and_lose_no_image(prepared_digits):
    found = list(batches(prepared_digits, "test", 100))
    assert [len(target) for _, target in found] == [100, 100, 100, 82]
    inputs, target = found[0]
    assert inputs.shape == (100, 8, 8, 1) and inputs.dtype == "float32"
    assert target.shape == (100,) and target.dtype == "int32"
    assert float(inputs.numpy().min()) == 0 and float(inputs.numpy().max()) == 1
    assert int(batches(prepared_digits, "train", 100, seed=1).cardinality()) == 11


def test_train_and_validation_together_are_their_images_in_order(made):
    out, _ = made()
    parts = [gathered(batches(out, part, 7)) for part in ("train", "validation")]
    whole = gathered(batches(out, "train+validation", 7))
    for one, other in zip(zip(*parts, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(one), other)


def test_equal_seeds_shuffle_alike_in_every_epoch_and_epochs_differ(made):
    out, _ = made()

    def epochs(seed):
        data = batches(out, "train", 7, seed=seed)
        return [gathered(data)[0][:, 0, 0, 0].tolist() for _ in range(2)]

    one, again, other = epochs(1), epochs(1), epochs(2)
    assert one == again != other
    assert one[0] != one[1]
    plain = gathered(batches(out, "train", 7))[0][:, 0, 0, 0].tolist()
    assert plain not in one and all(sorted(e) == sorted(plain) for e in one + other)


def test_a_shuffled_image_keeps_its_own_class(prepared_digits):
    inputs, targets = gathered(batches(prepared_digits, "train", 100, seed=1))
    pixels, labels = digits.images("train", unseen_hands=False)
    known = {image.tobytes(): n for image, n in zip(pixels, labels, strict=True)}
    stored = (16 * inputs).astype(np.uint8)
    assert [known[image.tobytes()] for image in stored] == targets.tolist()


@pytest.mark.parametrize("part", ["train", "validation", "test", "train+validation"])
def test_rows_are_the_images_of_batches_pixel_after_pixel(made, part):
    out, _ = made("colour")
    inputs, _ = gathered(batches(out, part, 7))
    found = rows(out, part)
    assert found.dtype == np.float32 and type(found) is np.ndarray
    np.testing.assert_allclose(found, inputs.reshape(len(inputs), 90), rtol=1e-6)


def test_rows_need_no_tensorflow(prepared_digits):
    code = (
        "import pathlib, sys; from engram.tasks import classification\n"
        "found = classification.rows(pathlib.Path(sys.argv[1]), 'train')\n"
        "print(found.shape, {'keras', 'tensorflow'} & set(sys.modules))"
    )
    run = [sys.executable, "-c", code, str(prepared_digits)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.stdout == "(1029, 64) set()\n", done.stderr


# models, evaluate and figures


def test_a_net_learns_the_digits(prepared_digits):
    spec = spec_of(prepared_digits)
    model = models.build("deep_net", spec, 0.003, units=[40], **ARGUMENTS)
    data = batches(prepared_digits, "train", 32, seed=1)
    model.fit(data, epochs=10, shuffle=False, verbose=0)
    found = evaluate([model], prepared_digits, "train")
    assert found["metrics"]["accuracy"] > 80
    assert found["metrics"]["error"] == pytest.approx(100 - found["metrics"]["accuracy"])


def test_probabilities_of_a_balanced_dataset_are_those_of_what_there_is(made):
    """Logits less the logarithm of their weight, on validation and on test."""
    out, _ = made(balanced=True)
    weights = np.log(spec_of(out)["weights"])
    assert np.abs(weights).max() > 0.01
    model = models.build("deep_net", spec_of(out), 0.01, units=[4], **ARGUMENTS)
    model.layers[-1].kernel.assign(np.random.default_rng(1).normal(size=(4, 3)))

    def scores(part):
        inputs, target, _ = gathered(batches(out, part, 7))
        return np.array(model(inputs), np.float64) - weights, target

    found = evaluate([model], out, "train")["metrics"]
    known = classification_metrics.cross_entropy(*scores("test"))
    assert found["cross_entropy"] == pytest.approx(known, rel=1e-5)
    known = classification_metrics.temperature_of(*scores("validation"))
    assert found["temperature"] == pytest.approx(known, rel=1e-3)


@pytest.mark.parametrize("kind", SHAPES)
def test_evaluate_scores_the_test_part_and_reports_what_is_kept(made, kind, tmp_path):
    out, _ = made(kind)
    spec = spec_of(out)
    trained = [
        models.build("deep_net", spec, 0.01, units=[4], **ARGUMENTS) for _ in range(2)
    ]
    found = evaluate(trained, out, "train", batch_size=7)
    assert set(classification.REPORTED) <= set(found)
    assert found["headline"] == [found["sort_by"]]
    assert found["fingerprint"] == spec["fingerprint"]
    assert len(found["per_seed"]) == 2
    inputs, truth = gathered(batches(out, "test", 7))
    np.testing.assert_array_equal(found["truth"], truth)
    np.testing.assert_allclose(found["logits"], trained[0](inputs), atol=1e-6)
    first, second = (figures(found, tmp_path / name) for name in "ab")
    assert [file.stem for file in first] == ["confusion", "mistakes", "reliability"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes().startswith(b"\x89PNG")
        assert one.read_bytes() == other.read_bytes()


def test_the_temperature_is_chosen_on_validation_unless_that_part_was_fitted(made):
    out, _ = made()
    model = models.build("deep_net", spec_of(out), 0.01, units=[4], **ARGUMENTS)
    model.layers[-1].kernel.assign(np.random.default_rng(1).normal(size=(4, 3)))
    inputs, target = gathered(batches(out, "validation", 7))
    scores = np.array(model(inputs), np.float64)
    known = classification_metrics.temperature_of(scores, target)
    assert known != pytest.approx(1, rel=1e-3)
    for fitted, temperature in {"train": known, "train+validation": 1}.items():
        found = evaluate([model], out, fitted)
        assert found["temperature"] == pytest.approx(temperature, rel=1e-3)
        assert found["metrics"]["temperature"] == found["temperature"]
