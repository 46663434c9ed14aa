"""Multi30k: the right file in the right place, for either language."""

import gzip
import hashlib

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from engram.datasets import mirror
from engram.datasets.multi30k import FILES, Multi30k
from engram.datasets.parallel_text import ParallelTextError

COUNTS = {"train": 5, "val": 3, "test_2016_flickr": 2}


def content(file, language):
    """Returns lines that tell which file they are of."""
    lines = [f"{n} {file} {language} é\n" for n in range(COUNTS[file])]
    return "".join(lines).encode()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Tiny files in a mirror, with their own checksums; returns where they are."""
    place = tmp_path / "mirror/multi30k"
    place.mkdir(parents=True)
    known = {}
    for target in ("fr", "de"):
        for name, url in Multi30k(language=target, data_dir=tmp_path).URLS.items():
            packed = gzip.compress(content(*name.split(".")))
            (place / f"{name}.gz").write_bytes(packed)
            size = tfds.core.utils.Size(len(packed))
            digest = hashlib.sha256(packed).hexdigest()
            known[url] = checksums.UrlInfo(size, digest, f"{name}.gz")
    monkeypatch.setattr(Multi30k, "url_infos", known)
    monkeypatch.setenv("ENGRAM_MIRROR", str(place.parent))
    return place


@pytest.fixture
def fetched(tmp_path, folder):
    """Returns a function that prepares the pairs with a language."""

    def fetch(target):
        made = Multi30k(
            language=target, data_dir=tmp_path / target, file_format="array_record"
        )
        mirror.download_and_prepare(made, tmp_path / "downloads")
        return tfds.builder_from_directory(made.data_dir)

    return fetch


@pytest.mark.parametrize("target", ["fr", "de"])
def test_every_caption_stands_beside_its_translation(fetched, target):
    builder = fetched(target)
    assert list(builder.info.splits) == ["train", "validation", "test"]
    for split, file in FILES.items():
        found = list(builder.as_data_source(split=split))
        sides = [
            "".join(f"{row[side].decode()}\n" for row in found).encode()
            for side in ("source", "target")
        ]
        assert sides == [content(file, "en"), content(file, target)]
        assert all(row["alignment"].shape == (0, 2) for row in found)


@pytest.mark.parametrize("target", ["fr", "de"])
def test_the_languages_travel_with_the_sentences(fetched, target):
    assert dict(fetched(target).info.metadata) == {
        "source_language": "en",
        "target_language": target,
        "gold_alignments": False,
    }


def test_files_that_do_not_match_are_refused(folder, tmp_path):
    builder = Multi30k(data_dir=tmp_path)
    files = folder / "val.en.gz", folder / "train.fr.gz"
    with pytest.raises(ParallelTextError, match="val.en.gz with 3 lines, .*fr.gz with 5"):
        list(builder._generate_examples(*files))


@pytest.mark.parametrize("target", ["en", "cs", ""])
def test_a_language_that_is_not_there_is_refused(target, tmp_path):
    with pytest.raises(ValueError, match=f"`language` .* Received: '{target}'"):
        Multi30k(language=target, data_dir=tmp_path)


@pytest.mark.parametrize("target", ["fr", "de"])
def test_every_file_has_a_checksum_and_a_place_in_a_mirror(target, tmp_path):
    builder = Multi30k(language=target, data_dir=tmp_path)
    assert len(builder.URLS) == 6
    staged = mirror._rows(mirror.OWN_TABLE)
    for name, url in builder.URLS.items():
        assert builder.url_infos[url].filename == f"{name}.gz"
        assert staged[url]["staged_path"] == f"multi30k/{name}.gz"
        assert staged[url]["prepare"] == "as is"
