"""A Gaussian mixture has its modes where the literature has them, and equal shares."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from engram import datasets
from engram.datasets.gaussian_mixture import PARTS, SIGMA, centres, points


def test_the_ring_has_eight_modes_at_distance_one_and_the_grid_25_two_apart():
    ring, grid = centres("ring"), centres("grid")
    assert ring.shape == (8, 2) and grid.shape == (25, 2)
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 1)
    gaps = np.linalg.norm(ring - np.roll(ring, 1, axis=0), axis=1)
    np.testing.assert_allclose(gaps, gaps[0])
    assert {tuple(one) for one in grid} == {
        (x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)
    }


@pytest.mark.parametrize("layout", SIGMA)
def test_points_are_normal_around_modes_that_are_equally_frequent(layout):
    some, modes = points(layout, "train", 50_000), centres(layout)
    gaps = some[:, None] - modes
    nearest = np.linalg.norm(gaps, axis=-1).argmin(1)
    shares = np.bincount(nearest) / len(some)
    np.testing.assert_allclose(shares, 1 / len(modes), rtol=0.1)
    own = gaps[np.arange(len(some)), nearest] / SIGMA[layout]
    np.testing.assert_allclose(own.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(own.T), np.eye(2), atol=0.03)


def test_parts_are_other_points_and_equal_calls_give_equal_ones():
    for part in PARTS:
        np.testing.assert_array_equal(points("grid", part, 50), points("grid", part, 50))
    train, validation, test = (points("grid", part, 50) for part in PARTS)
    assert not (train == validation).any() and not (validation == test).any()


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="'ring' or 'grid'. Received: 'cube'"):
        centres("cube")


def test_tfds_stores_the_points_in_their_order_and_the_modes(tmp_path):
    raw = tmp_path / "raw"
    datasets.fetch("gaussian_mixture", raw, file="", layout="ring", train=30, held=7)
    builder = tfds.builder_from_directory(raw)
    for part, count in {"train": 30, "validation": 7, "test": 7}.items():
        stored = [one["point"] for one in builder.as_data_source(split=part)]
        np.testing.assert_array_equal(stored, points("ring", part, count))
    np.testing.assert_allclose(builder.info.metadata["centres"], centres("ring"))
    assert builder.info.metadata["sigma"] == 0.01
