"""Sequences ask for what was shown, the same for every part, and can be learnt."""

import json

import numpy as np
import pytest

from engram import datasets, models
from engram.tasks import sequences
from engram.tasks.sequences import (
    DataError,
    batches,
    evaluate,
    figures,
    image_sequences,
    marked_sums,
    permutation,
    prepare,
    recalled_symbols,
)

WORDS = {
    "sum": ("adding", {"steps": 12, "train": 60, "test": 20}),
    "symbols": ("copy_memory", {"delay": 3, "train": 60, "test": 20}),
}


@pytest.fixture
def made(tmp_path):
    """Returns a function that fetches and prepares sequences; returns their folder."""

    def make(read, validation=10, **arguments):
        source, form = WORDS[read]
        datasets.fetch(source, tmp_path / "raw", file="", **(form | arguments))
        prepare(tmp_path / "raw", tmp_path / "out", read, validation)
        return tmp_path / "out"

    return make


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A prepared folder of permuted images `(4, 4)`, and the images, pixels 0 to 15."""
    draw = np.random.default_rng(1)
    pixels = np.stack([draw.permutation(16) for _ in range(50)]).astype(np.uint8)
    labels = np.arange(50) % 10
    splits = {"train": slice(0, 40), "test": slice(40, 50)}

    class Builder:
        class info:
            features = {"image": None, "label": None}

        def as_data_source(self, split):
            rows = range(50)[splits[split]]
            return [
                {"image": pixels[n].reshape(4, 4, 1), "label": labels[n]} for n in rows
            ]

    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder_from_directory", lambda raw: Builder())
    prepare(tmp_path, tmp_path / "out", "permuted_pixels", 8)
    return tmp_path / "out", pixels, labels


def spec_of(prepared):
    return json.loads((prepared / "spec.json").read_text())


def gathered(data):
    """Returns inputs and targets of all batches in their order."""
    rows = list(data.as_numpy_iterator())
    return [np.concatenate(arrays) for arrays in zip(*rows, strict=True)]


# from an example to a sequence


def test_the_target_is_the_sum_of_the_marked_values():
    values = np.array([[10, 20, 30, 40], [65535, 0, 0, 65535]], np.uint16)
    inputs, sums = marked_sums(values, np.array([[1, 2], [0, 3]], np.uint16))
    np.testing.assert_array_equal(inputs[..., 0], values)
    np.testing.assert_array_equal(
        inputs[..., 1], [[0, 65535, 65535, 0], [65535, 0, 0, 65535]]
    )
    np.testing.assert_allclose(sums, [[50 / 65535], [2]], rtol=1e-7)


def test_every_prepared_sum_is_that_of_one_value_in_each_half(made):
    for part in ("train", "validation", "test"):
        inputs, sums = gathered(batches(made("sum", steps=11), part, 7))
        value, marker = inputs[..., 0], inputs[..., 1]
        np.testing.assert_array_equal(marker[:, :5].sum(1), 1)
        np.testing.assert_array_equal(marker[:, 5:].sum(1), 1)
        np.testing.assert_allclose(sums[:, 0], (value * marker).sum(1), atol=1e-6)
        assert value.min() >= 0 and value.max() <= 1


def test_the_symbols_are_shown_then_asked_for_and_all_else_is_blank():
    symbols = np.array([[3, 1, 8], [2, 2, 5]], np.uint8)
    inputs, targets = recalled_symbols(symbols, delay=4)
    steps = inputs.argmax(-1)
    np.testing.assert_array_equal(inputs.sum(-1), 1)  # one-hot
    np.testing.assert_array_equal(steps[0], [3, 1, 8, 0, 0, 0, 9, 0, 0, 0])
    np.testing.assert_array_equal(targets[0], [0, 0, 0, 0, 0, 0, 0, 3, 1, 8])
    np.testing.assert_array_equal(steps[1, :3], targets[1, -3:])


def test_the_sign_to_recall_comes_delay_steps_after_the_last_symbol(made):
    inputs, targets = gathered(batches(made("symbols", delay=5), "test", 7))
    assert inputs.shape == (20, 25, 10) and targets.shape == (20, 25)
    np.testing.assert_array_equal(inputs[:, :, 9].argmax(1), 9 + 5)
    np.testing.assert_array_equal(inputs[:, :10].argmax(-1), targets[:, -10:])
    np.testing.assert_array_equal(targets[:, :-10], 0)
    assert targets[:, -10:].min() >= 1


def test_an_image_is_read_by_rows_by_pixels_or_in_one_other_order():
    images = np.arange(2 * 28 * 28).reshape(2, 28, 28, 1) % 251
    rows = image_sequences(images, "rows")
    pixels = image_sequences(images, "pixels")
    permuted = image_sequences(images, "permuted_pixels")
    assert rows.shape == (2, 28, 28)
    assert pixels.shape == permuted.shape == (2, 784, 1)
    np.testing.assert_array_equal(rows.reshape(2, 784, 1), pixels)
    np.testing.assert_array_equal(permuted, pixels[:, permutation(784)])


def test_the_permutation_is_one_and_is_that_of_every_other_machine():
    order = permutation(784)
    assert sorted(order) == list(range(784))
    assert order[:5].tolist() == FIRST
    assert np.mean(order == np.arange(784)) < 0.01


FIRST = [246, 4, 526, 57, 390]


def test_all_parts_are_permuted_alike(images):
    out, pixels, labels = images
    rows = {"train": slice(0, 32), "validation": slice(32, 40), "test": slice(40, 50)}
    for part, places in rows.items():
        inputs, targets = gathered(batches(out, part, 7))
        expected = pixels[places][:, permutation(16)] / 255
        np.testing.assert_allclose(inputs[..., 0], expected, rtol=1e-6)
        np.testing.assert_array_equal(targets[:, 0], labels[places])


# prepare and batches


def test_the_spec_tells_what_later_stages_need(made):
    spec = spec_of(made("symbols", delay=3))
    assert spec["task"] == "sequences" and spec["target"] == "class at each step"
    assert (spec["history"], spec["features"], spec["classes"]) == (23, 10, 9)
    assert spec["parts"] == {"train": [0, 50], "validation": [50, 60], "test": [60, 80]}
    assert len(spec["fingerprint"]) == 64


def test_other_sequences_have_another_fingerprint(made):
    one, again = spec_of(made("sum")), spec_of(made("sum"))
    assert one["fingerprint"] == again["fingerprint"]
    assert spec_of(made("sum", test=21))["fingerprint"] != one["fingerprint"]


@pytest.mark.parametrize("validation", [60, 61])
def test_a_validation_part_that_leaves_nothing_to_train_on_is_refused(made, validation):
    with pytest.raises(DataError, match=f"from 1 to 59, .* 60 .* Received: {validation}"):
        made("sum", validation=validation)


def test_examples_of_another_kind_are_refused(made, tmp_path):
    made("sum")
    with pytest.raises(DataError, match="'rows' needs examples with 'image'. Received: "):
        prepare(tmp_path / "raw", tmp_path / "out", "rows", 10)


def test_train_and_validation_together_are_their_sequences_in_order(made):
    out = made("sum")
    parts = [gathered(batches(out, part, 7)) for part in ("train", "validation")]
    whole = gathered(batches(out, "train+validation", 7))
    for one, other in zip(zip(*parts, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(one), other)


def test_batches_have_the_promised_shapes_and_lose_no_sequence(made):
    found = list(batches(made("sum"), "train", 20))
    assert [len(target) for _, target in found] == [20, 20, 10]
    assert found[0][0].shape == (20, 12, 2) and found[0][0].dtype == "float32"
    assert found[0][1].shape == (20, 1) and found[0][1].dtype == "float32"
    assert int(batches(made("sum"), "train", 20, seed=1).cardinality()) == 3


def test_equal_seeds_shuffle_alike_in_every_epoch_and_epochs_differ(made):
    out = made("sum")

    def epochs(seed):
        data = batches(out, "train", 7, seed=seed)
        return [gathered(data)[1][:, 0].tolist() for _ in range(2)]

    one, again, other = epochs(1), epochs(1), epochs(2)
    assert one == again != other
    assert one[0] != one[1]
    plain = gathered(batches(out, "train", 7))[1][:, 0].tolist()
    assert plain not in one and all(sorted(e) == sorted(plain) for e in one + other)


def test_a_shuffled_sequence_keeps_its_own_target(made):
    inputs, sums = gathered(batches(made("sum"), "train", 7, seed=1))
    np.testing.assert_allclose(sums[:, 0], inputs.prod(-1).sum(1), atol=1e-6)


# models, evaluate and figures


def test_a_gru_learns_to_add_over_a_few_steps(made):
    out = made("sum", steps=6, train=2200, test=200, validation=200)
    model = models.build("gru", spec_of(out), 0.02, units=16)
    model.fit(batches(out, "train", 50, seed=1), epochs=8, shuffle=False, verbose=0)
    found = evaluate([model], out, "train")
    assert found["metrics"]["mse"] < 0.02 < 1 / 6


@pytest.mark.parametrize("read", WORDS)
def test_evaluate_scores_the_test_part_and_reports_what_is_kept(made, read, tmp_path):
    out = made(read)
    trained = [models.build("gru", spec_of(out), 0.01, units=4) for _ in range(2)]
    found = evaluate(trained, out, "train")
    assert set(sequences.REPORTED) <= set(found)
    assert found["headline"] == [found["sort_by"]]
    assert found["fingerprint"] == spec_of(out)["fingerprint"]
    inputs, truth = gathered(batches(out, "test", 7))
    np.testing.assert_array_equal(found["truth"], truth)
    np.testing.assert_allclose(found["output"], trained[0](inputs), atol=1e-6)
    files = figures(found, tmp_path / "pictures")
    assert len(files) == 2
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_equal_findings_make_equal_pictures_of_the_images_that_were_read(
    images, tmp_path
):
    from engram.tasks.sequences_figures import picture

    out, pixels, _ = images
    model = models.build("gru", spec_of(out), 0.01, units=4)
    found = evaluate([model], out, "train")
    first, second = (figures(found, tmp_path / name) for name in "ab")
    assert [f.name for f in first] == ["confusion.png", "mistakes.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    for n in range(10):
        shown = picture(found["inputs"][n], "permuted_pixels")
        np.testing.assert_array_equal(shown, pixels[40 + n].reshape(4, 4))
