"""Copy memory: ten symbols of eight kinds, the same on every machine."""

import hashlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from engram import datasets
from engram.datasets.copy_memory import draw


@pytest.fixture
def builder(tmp_path):
    """Returns a function that fetches sequences and returns their builder."""

    def fetch(delay=7, train=40, test=10):
        raw = tmp_path / "raw"
        form = {"delay": delay, "train": train, "test": test}
        datasets.fetch("copy_memory", raw, file="", **form)
        return tfds.builder_from_directory(raw)

    return fetch


def symbols(builder, split):
    return np.stack([e["symbols"] for e in builder.as_data_source(split=split)])


def test_symbols_are_uniform_from_1_to_8():
    bits = np.random.PCG64(1)
    drawn = np.stack([draw(bits) for _ in range(8000)])
    assert drawn.shape == (8000, 10) and drawn.dtype == np.uint8
    shares = np.bincount(drawn.ravel(), minlength=10) / drawn.size
    np.testing.assert_array_equal(shares[[0, 9]], 0)
    np.testing.assert_allclose(shares[1:9], 1 / 8, atol=0.005)  # 4 deviations


def test_the_symbols_are_those_of_every_other_machine(builder):
    made = builder()
    drawn = np.concatenate([symbols(made, split) for split in ("train", "test")])
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == CHECKSUM


CHECKSUM = "689ed82a491117756babe35feb0f12137e30a53bb3c0de39ea662cb2b6585b00"


def test_the_splits_are_as_large_as_asked_and_share_no_sequence(builder):
    made = builder()
    train, test = symbols(made, "train"), symbols(made, "test")
    assert (len(train), len(test)) == (40, 10)
    assert len(np.unique(np.concatenate([train, test]), axis=0)) == 50


def test_the_delay_travels_with_the_symbols(builder):
    assert builder(delay=7).info.metadata["delay"] == 7


def test_a_delay_below_one_is_refused(builder):
    with pytest.raises(ValueError, match="`delay` must be at least 1. Received: 0"):
        builder(delay=0)
