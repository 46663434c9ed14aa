"""Digits are scikit-learn's, each with its label, and no hand writes for two parts."""

from difflib import SequenceMatcher

import numpy as np
import pytest
from sklearn.datasets import load_digits

from engram import datasets
from engram.datasets import digits
from engram.datasets.digits import PARTS, RUNS, images


def test_the_digits_are_those_that_we_know():
    assert digits.checksum() == digits.CHECKSUM


def test_other_digits_stop_the_fetch(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "CHECKSUM", "0" * 64)
    with pytest.raises(ValueError, match="Expected sha256 0000"):
        datasets.fetch("digits", tmp_path / "raw", file="", unseen_hands=True)
    assert not (tmp_path / "raw").exists()


def test_the_parts_are_all_of_the_file_in_whole_runs():
    ends = [end for _, end in PARTS.values()]
    assert list(PARTS) == ["train", "validation", "test"]
    assert [start for start, _ in PARTS.values()] == [0, *ends[:-1]]
    assert RUNS[0] == 0 and RUNS[-1] == ends[-1] == len(load_digits().data)
    assert set(ends) <= set(RUNS)


def test_every_run_is_the_same_form_but_for_a_few_digits():
    labels = load_digits().target.tolist()
    form = labels[: RUNS[1]]
    assert len(form) == 130
    for start, end in zip(RUNS[:-1], RUNS[1:], strict=True):
        assert SequenceMatcher(None, form, labels[start:end]).ratio() > 0.95


def test_a_run_is_by_one_hand():
    """The nearest image of the same digit is in the same run, far more than by chance."""
    pixels, labels = load_digits(return_X_y=True)

    def share(ends):  # of images whose nearest is in the same piece of the file
        piece = np.searchsorted(ends, np.arange(len(labels)), side="right")
        return np.mean(piece[nearest] == piece)

    nearest = np.empty(len(labels), int)
    for digit in range(10):
        (where,) = np.nonzero(labels == digit)
        distance = ((pixels[where][:, None] - pixels[where]) ** 2).sum(-1)
        np.fill_diagonal(distance, np.inf)
        nearest[where] = where[distance.argmin(axis=1)]
    ends = np.array(RUNS[1:-1])
    assert share(ends) > 0.5  # by chance 1 of 14
    assert all(share(ends) > share(ends + moved) for moved in (-40, -10, 10, 40))


def test_no_image_is_in_two_parts_and_every_part_has_every_digit():
    every = np.concatenate([images(part, True)[0].reshape(-1, 64) for part in PARTS])
    assert len(np.unique(every, axis=0)) == len(every)
    for part in PARTS:
        assert np.bincount(images(part, True)[1]).min() >= 35


def test_fetched_digits_are_scikit_learns_in_three_parts(tmp_path):
    import tensorflow_datasets as tfds

    datasets.fetch("digits", tmp_path / "raw", file="", unseen_hands=True)
    builder = tfds.builder_from_directory(tmp_path / "raw")
    assert builder.info.metadata["white"] == 16 == load_digits().data.max()
    assert builder.info.features["label"].num_classes == 10
    known = load_digits()
    for part, (start, end) in PARTS.items():
        found = list(builder.as_data_source(split=part))
        pixels = np.stack([example["image"] for example in found])
        assert pixels.dtype == np.uint8 and pixels.shape == (end - start, 8, 8, 1)
        np.testing.assert_array_equal(pixels[..., 0], known.images[start:end])
        labels = [example["label"] for example in found]
        np.testing.assert_array_equal(labels, known.target[start:end])


def test_tfds_loads_it_by_name(tmp_path):
    import tensorflow_datasets as tfds

    loaded = tfds.load("digits", split="test", data_dir=tmp_path)
    first = next(iter(loaded.as_numpy_iterator()))
    np.testing.assert_array_equal(first["image"], images("test", False)[0][0])


def test_digits_dealt_at_random_are_all_of_the_file_and_mix_the_runs():
    sizes = {part: end - start for part, (start, end) in PARTS.items()}
    made = {part: images(part, unseen_hands=False) for part in PARTS}
    assert {part: len(labels) for part, (_, labels) in made.items()} == sizes
    every = np.concatenate([pixels.reshape(-1, 64) for pixels, _ in made.values()])
    known = load_digits().data
    order = [np.flatnonzero((known == row).all(axis=1))[0] for row in every]
    assert sorted(order) == list(range(len(known)))
    runs = np.searchsorted(RUNS[1:-1], order, side="right")
    for start, end in PARTS.values():
        assert len(set(runs[start:end])) == len(RUNS) - 1  # every hand is in every part
