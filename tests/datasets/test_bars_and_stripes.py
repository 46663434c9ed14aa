"""Bars and stripes: which images there are, and how probable they can be."""

import numpy as np
import pytest

from engram import datasets
from engram.datasets.bars_and_stripes import BarsAndStripes, bound, images


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_image_is_of_whole_rows_or_whole_columns(size):
    made = images(size)
    assert made.shape == (2 ** (size + 1), size, size)
    for image in made:
        in_rows = (image == image[:, :1]).all()
        in_columns = (image == image[:1]).all()
        assert in_rows or in_columns


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_that_there_are_and_twice_the_empty_and_the_full_one(size):
    made = images(size).reshape(2 ** (size + 1), -1)
    unique, counts = np.unique(made, axis=0, return_counts=True)
    assert len(unique) == 2 ** (size + 1) - 2
    assert set(map(tuple, unique[counts == 2])) == {(0,) * size**2, (1,) * size**2}


@pytest.mark.parametrize("size, total", [(2, -13.8629), (3, -41.5888), (4, -108.1310)])
def test_the_bound_is_the_published_one_and_that_of_the_images_themselves(size, total):
    made = images(size).reshape(2 ** (size + 1), -1)
    assert bound(size) * len(made) == pytest.approx(total, abs=1e-4)
    _, which, counts = np.unique(made, axis=0, return_inverse=True, return_counts=True)
    of_images = np.log(counts[which.ravel()] / len(made)).mean()
    assert bound(size) == pytest.approx(of_images, abs=1e-12)


def test_fetched_images_come_back_with_their_bound(tmp_path):
    import tensorflow_datasets as tfds

    datasets.fetch("bars_and_stripes", tmp_path / "raw", file="", size=3)
    builder = tfds.builder_from_directory(tmp_path / "raw")
    found = np.stack([e["image"] for e in builder.as_data_source(split="images")])
    np.testing.assert_array_equal(found[..., 0], images(3))
    assert builder.info.metadata["bound"] == pytest.approx(bound(3))


@pytest.mark.parametrize("size", [1, 11])
def test_a_size_of_no_use_is_refused(size, tmp_path):
    with pytest.raises(ValueError, match=f"from 2 to 10. Received: {size}"):
        BarsAndStripes(size=size, data_dir=tmp_path)
