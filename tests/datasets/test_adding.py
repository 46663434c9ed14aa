"""The adding problem: two marked numbers, one in each half, the same on every machine."""

import hashlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from engram import datasets
from engram.datasets.adding import LARGEST, draw


@pytest.fixture
def fetched(tmp_path):
    """Returns a function that fetches sequences and returns those of a split."""

    def fetch(split, **arguments):
        form = {"steps": 20, "train": 40, "test": 10} | arguments
        datasets.fetch("adding", tmp_path / "raw", file="", **form)
        builder = tfds.builder_from_directory(tmp_path / "raw")
        return list(builder.as_data_source(split=split))

    return fetch


@pytest.mark.parametrize("steps", [2, 3, 11, 400])
def test_one_step_is_marked_in_each_half(steps):
    bits = np.random.PCG64(1)
    marked = np.stack([draw(bits, steps)["marked"] for _ in range(500)])
    first, second = marked.T
    half = steps // 2
    assert first.min() >= 0 and first.max() < half
    assert second.min() >= half and second.max() < steps
    if steps <= 11:  # every step is marked now and then
        assert set(marked.ravel()) == set(range(steps))


def test_values_are_uniform():
    bits = np.random.PCG64(1)
    values = np.stack([draw(bits, 200)["values"] for _ in range(500)]) / LARGEST
    assert values.min() < 1e-3 and 0.999 < values.max() <= 1
    tenths = np.histogram(values, 10, range=(0, 1))[0] / values.size
    np.testing.assert_allclose(tenths, 0.1, atol=0.004)  # 4 standard deviations
    assert abs(np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.15


def test_who_always_answers_one_has_an_error_of_a_sixth():
    bits = np.random.PCG64(1)
    drawn = [draw(bits, 10) for _ in range(20_000)]
    sums = np.array([one["values"][one["marked"]].sum(dtype=float) for one in drawn])
    assert np.mean((sums / LARGEST - 1) ** 2) == pytest.approx(1 / 6, rel=0.03)


def test_the_numbers_are_those_of_every_other_machine(fetched):
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for example in fetched(split):
            digest.update(example["values"].astype("<u2").tobytes())
            digest.update(example["marked"].astype("<u2").tobytes())
    assert digest.hexdigest() == CHECKSUM


CHECKSUM = "01291bd51b41f03dac3a1bee7618a46a10a48f1759e9998c30915dd9d1217061"


def test_the_splits_are_as_large_as_asked_and_share_no_sequence(fetched):
    train, test = fetched("train"), fetched("test")
    assert (len(train), len(test)) == (40, 10)
    texts = {example["values"].tobytes() for example in train + test}
    assert len(texts) == 50
    assert train[0]["values"].shape == (20,) and train[0]["values"].dtype == np.uint16


def test_a_larger_training_split_begins_with_the_smaller_one(fetched):
    few, many = fetched("train", train=5), fetched("train", train=9)
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one["values"], other["values"])
        np.testing.assert_array_equal(one["marked"], other["marked"])


@pytest.mark.parametrize("steps", [1, 0, 65_536])
def test_a_length_that_cannot_be_is_refused(fetched, steps):
    with pytest.raises(ValueError, match=f"`steps` .* Received: {steps}"):
        fetched("train", steps=steps)
