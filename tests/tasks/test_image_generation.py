"""Images keep their parts, the judge is the known one, and what it sees is measured."""

import json

import numpy as np
import pytest
import toy

from engram import datasets, models
from engram.tasks import image_generation
from engram.tasks.image_generation import (
    DataError,
    batches,
    evaluate,
    figures,
    load,
    look,
    prepare,
    watch,
)

JUDGES = image_generation.JUDGES


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "raw"
    datasets.fetch("digits", folder, file="", **toy.FETCH["digits"])
    return folder


@pytest.fixture(scope="module")
def prepared(raw):
    prepare(raw, raw.parent / "some", 0, "digits")
    return raw.parent / "some"


@pytest.fixture(scope="module")
def spec(prepared):
    return json.loads((prepared / "spec.json").read_text())


@pytest.fixture(scope="module")
def judge():
    return load(JUDGES / "digits.keras", "digits")


def real(prepared, spec, part):
    return image_generation.images(prepared, spec, part) / np.float32(spec["white"])


def gathered(data):
    return [np.concatenate(a) for a in zip(*data.as_numpy_iterator(), strict=True)]


class Copies:
    """A generator that has learned images by heart."""

    def __init__(self, images):
        self.images = images

    def generate(self, count, seed):
        return np.resize(self.images, (count, *self.images.shape[1:]))


# the judges


@pytest.mark.parametrize("name", sorted(image_generation.SHA256))
def test_each_judge_is_there_and_tells_digits_apart_from_their_features(name):
    known = load(JUDGES / f"{name}.keras", name)
    side = {"digits": 8}.get(name, 28)
    images = np.random.default_rng(1).random((6, side, side, 1)).astype(np.float32)
    features, modes = look(known, images)
    assert features.shape == (6, 64) and modes.shape == (6,)
    layer = known.get_layer("logits")
    again = features @ np.array(layer.kernel) + np.array(layer.bias)
    np.testing.assert_array_equal(again.argmax(1), modes)
    twice, _ = look(known, images)  # nothing is moved by chance
    np.testing.assert_array_equal(twice, features)


def test_the_judge_of_digits_is_as_often_right_as_its_study_says(spec):
    """On the test part, on which it was not trained."""
    study = toy.ROOT / "studies/judges/results/comparison.json"
    groups = json.loads(study.read_text())["datasets"]
    (group,) = (one for one in groups if one["dataset"] == "digits")
    expected = group["rows"][0]["metrics"]["accuracy"]
    assert spec["judge"]["accuracy"] == pytest.approx(expected, abs=0.3)


def test_a_judge_of_other_bytes_is_refused(tmp_path):
    content = bytearray((JUDGES / "digits.keras").read_bytes())
    content[1000] ^= 1
    (tmp_path / "judge.keras").write_bytes(content)
    told = r"judge.keras: not the judge 'digits'.*Expected sha256 .*, received "
    with pytest.raises(DataError, match=told):
        load(tmp_path / "judge.keras", "digits")


def test_an_unknown_judge_is_refused_by_name(raw, tmp_path):
    with pytest.raises(DataError, match="`judge` must be one of .* Received: 'digit'"):
        prepare(raw, tmp_path / "out", 0, "digit")
    assert not (tmp_path / "out").exists()


def test_images_of_another_size_are_refused(raw, tmp_path):
    told = "looks at images of 28 x 28 pixels. Received: 8 x 8"
    with pytest.raises(DataError, match=told):
        prepare(raw, tmp_path / "out", 0, "mnist")


def test_a_judge_of_other_images_is_refused(raw, tmp_path, monkeypatch):
    """Its answers are no classes of these images: as if by chance."""
    right = image_generation.look

    def shifted(judge, images):
        features, modes = right(judge, images)
        return features, (modes + 1) % 10

    monkeypatch.setattr(image_generation, "look", shifted)
    with pytest.raises(DataError, match="at least 50 % .* received 0.* % by 'digits'"):
        prepare(raw, tmp_path / "out", 0, "digits")


def test_the_numbers_of_a_pixel_are_looked_at_one_by_one(judge):
    images = np.random.default_rng(1).random((5, 8, 8, 3)).astype(np.float32)
    features, modes = look(judge, images)
    apart = [look(judge, images[..., n : n + 1]) for n in range(3)]
    expected = np.concatenate([one for one, _ in apart], axis=1)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    (a, b, c) = (told for _, told in apart)
    np.testing.assert_array_equal(modes, 100 * a + 10 * b + c)


# prepare and batches


def test_images_keep_their_parts(raw, prepared, spec):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    for part in ("train", "validation", "test"):
        known = [one["image"] for one in builder.as_data_source(split=part)]
        some = image_generation.images(prepared, spec, part)
        np.testing.assert_array_equal(some, known)
    assert (spec["task"], spec["modes"]) == ("image_generation", 10)
    assert (spec["shape"], spec["white"]) == ([8, 8, 1], 16)


def test_what_the_judge_sees_of_real_images_is_kept(prepared, spec, judge):
    kept = np.load(prepared / "features.npz")
    test = real(prepared, spec, "test")
    held = real(prepared, spec, "validation")
    for name, images in {"real": test, "held": held}.items():
        features, modes = look(judge, images)
        np.testing.assert_allclose(kept[f"{name}_features"], features, atol=1e-5)
    np.testing.assert_array_equal(kept["held_modes"], look(judge, held)[1])


def test_the_last_training_images_are_held_where_there_is_no_such_split(
    raw, prepared, tmp_path, monkeypatch
):
    import tensorflow_datasets as tfds

    whole = tfds.builder_from_directory(raw)

    class TwoParts:
        info = type(
            "Info",
            (),
            {
                "features": whole.info.features,
                "metadata": whole.info.metadata,
                "splits": ["train", "test"],
            },
        )
        as_data_source = whole.as_data_source

    monkeypatch.setattr(tfds, "builder_from_directory", lambda raw: TwoParts)
    spec = prepare(raw, tmp_path / "out", 49, "digits")
    count = spec["parts"]["validation"][1]
    assert spec["parts"]["train"] == [0, count - 49]
    for validation in (0, 3, count):
        with pytest.raises(DataError, match=f"from 4 to {count - 1}.*: {validation}$"):
            prepare(raw, tmp_path / "again", validation, "digits")


def test_a_dataset_with_a_validation_split_needs_no_other(raw, tmp_path):
    with pytest.raises(DataError, match="`validation` must be 0.* Received: 5"):
        prepare(raw, tmp_path / "out", 5, "digits")


def test_examples_of_another_kind_are_refused(tmp_path):
    kind = toy.FETCH["gaussian_mixture"]
    datasets.fetch("gaussian_mixture", tmp_path / "raw", file="", **kind)
    with pytest.raises(DataError, match="need 'image' and 'label'. Received: point"):
        prepare(tmp_path / "raw", tmp_path / "out", 0, "digits")


def test_batches_are_whole_and_their_places_run(prepared, spec):
    data = batches(prepared, "validation", 50)
    assert data.element_spec[0].shape == (50, 8, 8, 1)
    found, places = gathered(data)
    known = real(prepared, spec, "validation")
    np.testing.assert_array_equal(found, known[: len(found)])
    assert len(found) == 50 * (len(known) // 50)
    assert places.tolist() == list(range(len(found)))


def test_shuffled_images_are_other_ones_in_every_epoch_and_places_are_not(prepared):
    data = batches(prepared, "train", 64, seed=1)
    (one, first), (other, second) = gathered(data), gathered(data)
    assert (one != other).any()
    assert first.tolist() == second.tolist() == list(range(len(one)))
    again, _ = gathered(batches(prepared, "train", 64, seed=1))
    np.testing.assert_array_equal(one, again)


def test_a_batch_that_no_part_fills_is_refused(prepared, spec):
    first, last = spec["parts"]["test"]
    with pytest.raises(ValueError, match=f"at most {last - first}, .* the test part"):
        batches(prepared, "test", last - first + 1)


# evaluate, watch, figures


def test_real_images_are_as_near_as_the_floor_says(prepared, spec):
    """A generator that repeats held images, beside one that knows the test part."""
    held, test = (real(prepared, spec, part) for part in ("validation", "test"))
    found = evaluate([Copies(test), Copies(held)], prepared, "train")
    itself, other = found["per_seed"]
    assert itself["frechet"] == pytest.approx(0, abs=1e-3)
    assert (itself["precision"], itself["recall"], itself["modes"]) == (100, 100, 10)
    # held images are a few more than those of the test part, or a few fewer
    for name in ("frechet", "kid", "precision", "recall", "modes"):
        assert other[name] == pytest.approx(other[f"{name}_floor"], rel=0.05, abs=0.01)
    counts = {"generated": len(test), "test": len(test), "held": len(held)}
    assert {name: itself[name] for name in counts} == counts
    assert itself["judge_accuracy"] == spec["judge"]["accuracy"]


def test_noise_and_one_image_alone_are_far_and_said_to_be(prepared, spec):
    test = real(prepared, spec, "test")
    noise = np.random.default_rng(1).random(test.shape).astype(np.float32)
    found = evaluate([Copies(noise), Copies(test[:1])], prepared, "train")
    blurred, alone = found["per_seed"]
    assert blurred["precision"] < 30
    assert blurred["frechet"] > 10 * blurred["frechet_floor"]
    assert (alone["modes"], alone["precision"]) == (1, 100)
    assert alone["recall"] < 5
    assert alone["reverse_kl"] == pytest.approx(np.log(10))


def test_between_epochs_images_are_held_against_validation(prepared, spec, judge):
    made = real(prepared, spec, "train")[: image_generation.GLANCE]
    seen, table = watch(Copies(made), prepared)
    features, _ = look(judge, Copies(made).generate(image_generation.GLANCE, 0))
    known = np.load(prepared / "features.npz")
    expected = {
        name: image_generation.kid(known[f"{name}_features"], features)
        for name in ("held", "real")
    }
    assert expected["held"] != pytest.approx(expected["real"], abs=1e-4)
    assert seen == {"kid": pytest.approx(expected["held"], abs=1e-6), "modes": 10}
    assert table == {}


def test_figures_are_drawn_of_grey_and_of_coloured_images(prepared, spec, tmp_path):
    """Files that are equal for equal results, and not blank."""
    form = toy.IMAGE_GENERATORS["dcgan"]
    model = models.build("dcgan", spec, 0.001, **form)
    found = evaluate([model], prepared, "train")
    history = {name: [1.0, 0.7] for name in ("loss", "discriminator", "real", "fake")}
    found["history"] = {"1": history}
    files = figures(found, tmp_path / "one")
    again = figures(found, tmp_path / "two")
    assert [file.stem for file in files] == ["images", "between", "modes", "game"]
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    colour = spec | {"shape": [8, 8, 3], "modes": 1000}
    found["spec"], found["model"] = colour, models.build("dcgan", colour, 0.001, **form)
    found["real"] = np.repeat(found["real"], 3, axis=-1)[:25]  # no whole rows
    assert all(file.stat().st_size > 5000 for file in figures(found, tmp_path / "rgb"))
