"""A catalogue dataset comes from the mirror, every file checked by sha256."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.image_classification import mnist as catalogue

from engram import datasets
from engram.datasets import mirror
from engram.datasets.mirror import FetchError

FOLDER = "https://storage.googleapis.com/cvdf-datasets/mnist/"


def digits(count, seed):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, draw.integers(0, 10, count, dtype=np.uint8)


TRAIN, TEST = digits(6, 1), digits(3, 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A mirror with a tiny MNIST in the published form, and no network."""
    place, infos = tmp_path / "mirror/mnist", {}
    place.mkdir(parents=True)
    for prefix, (images, labels) in (("train", TRAIN), ("t10k", TEST)):
        kinds = {
            "images-idx3": struct.pack(">4I", 2051, *images.shape) + images.tobytes(),
            "labels-idx1": struct.pack(">2I", 2049, len(labels)) + labels.tobytes(),
        }
        for kind, content in kinds.items():
            name = f"{prefix}-{kind}-ubyte.gz"
            packed = gzip.compress(content, mtime=0)
            (place / name).write_bytes(packed)
            infos[FOLDER + name] = checksums.UrlInfo(
                tfds.core.utils.Size(len(packed)),
                hashlib.sha256(packed).hexdigest(),
                name,
            )

    def refused(session, url, **kwargs):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests.Session, "get", refused)
    monkeypatch.setattr(catalogue.MNIST, "url_infos", infos)
    monkeypatch.setattr(catalogue, "_TRAIN_EXAMPLES", len(TRAIN[0]))
    monkeypatch.setattr(catalogue, "_TEST_EXAMPLES", len(TEST[0]))
    monkeypatch.setenv("ENGRAM_MIRROR", str(place.parent))
    return place


@pytest.fixture
def target(tmp_path):
    return tmp_path / "raw/mnist"


def test_our_table_names_every_file_that_the_catalogue_wants():
    rows = mirror._rows(mirror.OWN_TABLE)
    wanted = tfds.builder("mnist").url_infos
    assert len(wanted) == 4
    for url in wanted:
        assert rows[url]["staged_path"] == "mnist/" + url.rsplit("/", 1)[-1]
        assert rows[url]["prepare"] == "as is"


def test_the_mirror_stands_in_for_the_network(target, folder):
    datasets.fetch("mnist", target, file="")
    builder = tfds.builder_from_directory(target)
    for split, (images, labels) in (("train", TRAIN), ("test", TEST)):
        found = {
            example["image"].tobytes(): example["label"]
            for example in builder.as_data_source(split=split)
        }
        expected = zip(images, labels, strict=True)
        assert found == {image.tobytes(): label for image, label in expected}


@pytest.mark.parametrize("name", ["train-images-idx3", "t10k-labels-idx1"])
def test_a_flipped_byte_is_refused(target, folder, name):
    file = folder / f"{name}-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(FetchError, match="not the file that mnist expects") as refused:
        datasets.fetch("mnist", target, file="")
    assert str(file) in str(refused.value)
    assert hashlib.sha256(content).hexdigest() in str(refused.value)
    assert list(target.parent.iterdir()) == []


def test_a_mirror_without_a_file_is_told_which_ones_are_wanted(target, folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FetchError) as refused:
        datasets.fetch("mnist", target, file="")
    assert "mnist/t10k-labels-idx1-ubyte.gz" in str(refused.value)
    assert str(folder.parent) in str(refused.value)


def test_without_a_mirror_and_a_network_one_line_names_the_way_out(
    target, folder, monkeypatch
):
    monkeypatch.delenv("ENGRAM_MIRROR")
    with pytest.raises(FetchError, match="ENGRAM_MIRROR is not set"):
        datasets.fetch("mnist", target, file="")
