"""Stacked MNIST: three digits of one split of MNIST, the same on every machine."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from engram import datasets
from engram.datasets.mirror import FetchError
from engram.datasets.stacked_mnist import (
    FILES,
    FOLDER,
    PARTS,
    StackedMnist,
    draw,
    mode,
    places,
    read,
)

STAGED = Path(os.environ.get("ENGRAM_MIRROR", "no-mirror"), "mnist")
DRAWN = {  # sha256 of which of 60,000 and of 10,000 digits the first 1,000 images have
    "train": "9ac464d1282ad044ff979a9513f0ce494e8296c835f449b37a3476c45558fe35",
    "test": "cb6b82f1c6c712661fe9fbe4439b901fbc567768cabc974f2b026ad8acfdf5a7",
}


def digits(count, seed):
    dice = np.random.default_rng(seed)
    images = dice.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, dice.integers(0, 10, count, dtype=np.uint8)


DIGITS = {"train": digits(30, 1), "test": digits(20, 2)}


def packed(values):
    """Returns a gzipped IDX file of bytes."""
    header = struct.pack(f">{1 + values.ndim}I", 2048 + values.ndim, *values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A mirror with a tiny MNIST in the published form."""
    place, infos = tmp_path / "mirror/mnist", {}
    place.mkdir(parents=True)
    for part, names in FILES.items():
        for name, values in zip(names, DIGITS[part], strict=True):
            content = packed(values)
            (place / name).write_bytes(content)
            size = tfds.core.utils.Size(len(content))
            digest = hashlib.sha256(content).hexdigest()
            infos[FOLDER + name] = checksums.UrlInfo(size, digest, name)
    monkeypatch.setattr(tfds.builder_cls("mnist"), "url_infos", infos)
    monkeypatch.setenv("ENGRAM_MIRROR", str(place.parent))
    return place


def fetched(target, **sizes):
    datasets.fetch("stacked_mnist", target, file="", **{"train": 40, "test": 25} | sizes)
    builder = tfds.builder_from_directory(target)
    return {part: list(builder.as_data_source(part)) for part in PARTS}


def test_a_label_tells_the_digits_of_the_channels_and_no_split_sees_the_others(
    tmp_path, folder
):
    own = {"train": slice(28), "validation": slice(28, 30), "test": slice(20)}
    for part, examples in fetched(tmp_path / "raw").items():
        images, labels = DIGITS["test" if part == "test" else "train"]
        some = zip(images[own[part]], labels[own[part]], strict=True)
        known = {image.tobytes(): label for image, label in some}
        for example in examples:
            assert example["image"].shape == (28, 28, 3)
            assert example["image"].dtype == np.uint8
            a, b, c = (int(known[example["image"][..., n].tobytes()]) for n in range(3))
            assert example["label"] == 100 * a + 10 * b + c


def test_the_splits_are_as_large_as_asked_and_a_larger_one_begins_with_the_smaller(
    tmp_path, folder
):
    few, many = fetched(tmp_path / "few"), fetched(tmp_path / "many", train=50, test=60)
    assert [len(few[part]) for part in PARTS] == [40, 25, 25]
    assert [len(many[part]) for part in PARTS] == [50, 60, 60]
    for part in PARTS:
        for one, other in zip(few[part], many[part], strict=False):
            np.testing.assert_array_equal(one["image"], other["image"])
            assert one["label"] == other["label"]


def test_fetching_twice_writes_the_same_bytes(tmp_path, folder):
    for name in "ab":
        fetched(tmp_path / name)
    one, other = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in "ab"
    )
    assert one == other


@pytest.mark.parametrize("part, count", [("train", 60_000), ("test", 10_000)])
def test_which_digits_are_drawn_is_the_same_on_every_machine(part, count):
    drawn = draw(part, 1000, count).astype("<i8").tobytes()
    assert hashlib.sha256(drawn).hexdigest() == DRAWN[part]


def test_all_digits_and_all_modes_are_equally_frequent():
    drawn = draw("test", 26_000, 10)
    shares = np.stack([np.bincount(channel) for channel in drawn.T]) / len(drawn)
    np.testing.assert_allclose(shares, 0.1, atol=0.008)  # 4 standard deviations
    found = np.bincount([mode(three) for three in drawn], minlength=1000) / len(drawn)
    assert len(found) == 1000 and found.min() > 0
    # A sample of n among m equal modes is (m - 1) / 2n nats from uniform on average.
    assert (found * np.log(1000 * found)).sum() == pytest.approx(999 / 52_000, rel=0.2)


def test_the_files_are_those_of_the_catalogue_and_the_sizes_those_of_the_literature():
    builder = StackedMnist(data_dir="unused")
    assert builder.sizes == {"train": 128_000, "test": 26_000, "validation": 26_000}
    assert places("train", 60_000) == slice(55_000)
    assert places("validation", 60_000) == slice(55_000, 60_000)
    assert builder.info.features["label"].num_classes == 1000
    urls = {FOLDER + name for names in FILES.values() for name in names}
    assert set(builder.url_infos) == urls
    assert builder.url_infos == tfds.builder_cls("mnist").url_infos


@pytest.mark.parametrize("part", FILES)
def test_a_flipped_byte_is_refused_by_name_and_leaves_nothing(tmp_path, folder, part):
    file = folder / FILES[part][1]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(FetchError, match="not the file that stacked_mnist expects") as no:
        fetched(tmp_path / "raw/stacked")
    assert str(file) in str(no.value)
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_mirror_without_a_file_is_told_which_ones_are_wanted(
    tmp_path, folder, monkeypatch
):
    def refused(session, url, **kwargs):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests.Session, "get", refused)
    (folder / FILES["test"][0]).unlink()
    with pytest.raises(FetchError, match=f"lacks .*mnist/{FILES['test'][0]}"):
        fetched(tmp_path / "raw")


@pytest.mark.parametrize(
    "content, received",
    [
        (packed(DIGITS["test"][1]), r"2049, \["),  # labels
        (gzip.compress(gzip.decompress(packed(DIGITS["test"][0]))[:-1]), "15679 bytes"),
    ],
)
def test_images_that_are_none_are_refused_by_name(tmp_path, content, received):
    file = tmp_path / "images.gz"
    file.write_bytes(content)
    with pytest.raises(FetchError, match=f"{file}: expected .* {received}"):
        read(file, axes=3)


def test_a_label_too_few_is_refused(tmp_path):
    images, labels = (tmp_path / name for name in FILES["test"])
    images.write_bytes(packed(DIGITS["test"][0]))
    labels.write_bytes(packed(DIGITS["test"][1][1:]))
    builder = StackedMnist(data_dir=tmp_path)
    with pytest.raises(FetchError, match=f"{images}: expected 19 images of 28 x 28"):
        next(builder._generate_examples("test", images, labels))


@pytest.mark.parametrize("sizes", [{"train": 0}, {"test": 0}, {"test": -3}])
def test_a_split_without_images_is_refused(tmp_path, sizes):
    ((part, count),) = sizes.items()
    with pytest.raises(ValueError, match=f"`{part}` must be positive. Received: {count}"):
        fetched(tmp_path / "raw", **sizes)


@pytest.mark.skipif(not STAGED.is_dir(), reason="needs the real files")
def test_the_first_real_images_have_these_labels():
    for part, labels in {
        "train": [807, 421, 573, 771, 710, 942, 972, 575],
        "test": [247, 3, 971, 233, 368, 863, 835, 809],
    }.items():
        known = read(STAGED / FILES[part][1], axes=1)
        known = known[places(part, len(known))]
        drawn = known[draw(part, 8, len(known))]
        assert [mode(three) for three in drawn] == labels
