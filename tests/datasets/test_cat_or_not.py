"""Cat or not: the pictures are those of the archive, dealt alike on every machine."""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from engram import datasets
from engram.datasets import cat_or_not
from engram.datasets.cat_or_not import CatOrNot, cifar10, subset
from engram.datasets.mirror import FetchError

STAGED = Path(os.environ.get("ENGRAM_MIRROR", "no-mirror")) / cat_or_not.STAGED


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive in a mirror of its own; returns its file."""
    draw = np.random.default_rng(1)
    file = tmp_path / "mirror" / cat_or_not.STAGED
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w") as pictures:
        for part, count in {"train": 30, "test": 10}.items():
            for thing in ("cat", "dog", "ship"):
                for n in range(count):
                    content = io.BytesIO()
                    tint = {"cat": 200, "dog": 100, "ship": 0}[thing]
                    pixels = draw.integers(tint, tint + 56, (32, 32, 3), np.uint8)
                    Image.fromarray(pixels).save(content, "JPEG", quality=95)
                    name = f"cifar10_cat_subset/{part}/{thing}/{n:04}.jpg"
                    pictures.writestr(name, content.getvalue())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(cat_or_not, "STAGED_SHA256", digest)
    monkeypatch.setenv("ENGRAM_MIRROR", str(tmp_path / "mirror"))
    return file


def fetched(folder, **kind):
    datasets.fetch("cat_or_not", folder, file="", **kind)
    builder = tfds.builder_from_directory(folder)
    return builder.info.features["label"].names, {
        part: [(one["image"], int(one["label"])) for one in builder.as_data_source(part)]
        for part in ("train", "test")
    }


def test_all_pictures_arrive_with_their_label_in_an_order_of_all_classes(
    archive, tmp_path
):
    names, found = fetched(tmp_path / "raw", images="subset")
    assert names == ["other", "cat"]
    for part, count in {"train": 30, "test": 10}.items():
        labels = np.array([label for _, label in found[part]])
        assert np.bincount(labels).tolist() == [2 * count, count]
        assert 0 < labels[: len(labels) // 3].mean() < 1
        for image, label in found[part]:
            assert image.shape == (32, 32, 3) and image.dtype == np.uint8
            assert (image.mean() > 190) == label
        pixels, known = subset(archive.read_bytes())[part]
        assert {image.tobytes() for image, _ in found[part]} == {
            image.tobytes() for image in pixels
        }
        assert known.sum() == count


def test_two_fetches_give_the_same_order(archive, tmp_path):
    (_, one), (_, other) = (fetched(tmp_path / name, images="subset") for name in "ab")
    for part in ("train", "test"):
        assert [label for _, label in one[part]] == [label for _, label in other[part]]


def test_a_changed_archive_is_refused_by_name_and_leaves_nothing(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[100] ^= 1
    archive.write_bytes(content)
    with pytest.raises(FetchError, match=f"{archive.name}: not the file .* Nothing was"):
        fetched(tmp_path / "raw", images="subset")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("mirror", [None, "elsewhere"])
def test_without_the_archive_one_line_names_both_ways_out(tmp_path, monkeypatch, mirror):
    monkeypatch.delenv("ENGRAM_MIRROR", raising=False)
    said = "ENGRAM_MIRROR is not set"
    if mirror:
        monkeypatch.setenv("ENGRAM_MIRROR", str(tmp_path))
        said = f"there is no {tmp_path}"
    with pytest.raises(FetchError, match=said) as error:
        fetched(tmp_path / "raw", images="subset")
    assert "fetch: {images: cifar10}" in str(error.value)
    assert "\n" not in str(error.value)


def test_cifar10s_own_file_is_read_colour_by_colour(tmp_path):
    """A record is a label and 1,024 numbers each of red, green and blue, row by row."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    image = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    record = np.concatenate([image[..., colour].ravel() for colour in range(3)])
    for n in range(1, 6):
        label = np.array([3 if n == 2 else n], np.uint8)
        (folder / f"data_batch_{n}.bin").write_bytes(label.tobytes() + record.tobytes())
    pixels, labels = cifar10(tmp_path, "train")
    np.testing.assert_array_equal(pixels, np.stack([image] * 5))
    # label 3 is the cat of batches.meta.txt
    assert labels.tolist() == [False, True, True, False, False]


def test_all_pictures_come_from_the_catalogues_own_address():
    builder = CatOrNot(images="cifar10", data_dir="unused")
    assert cat_or_not.CIFAR10 in builder.url_infos
    assert not CatOrNot(data_dir="unused").url_infos


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="'subset' or 'cifar10'. Received: 'all'"):
        CatOrNot(images="all", data_dir="unused")


@pytest.mark.skipif(not STAGED.is_file(), reason="needs the real archive")
def test_the_real_archive_has_ten_thousand_and_two_thousand_half_of_them_cats():
    assert hashlib.sha256(STAGED.read_bytes()).hexdigest() == cat_or_not.STAGED_SHA256
    for part, count in {"train": 10_000, "test": 2000}.items():
        pixels, labels = subset(STAGED.read_bytes())[part]
        assert pixels.shape == (count, 32, 32, 3)
        assert labels.sum() == count / 2
