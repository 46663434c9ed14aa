"""Parallel text: lines that translate each other, or a refusal that names the line."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from engram.datasets import mirror
from engram.datasets.parallel_text import (
    ParallelTextBuilder,
    ParallelTextError,
    read_lines,
    read_pairs,
)

ROWS = [
    ("the red house", "la maison rouge", [(0, 0), (1, 2), (2, 1)]),
    ("Good night.", "Schöne «Träume» …", []),
]


class Rows(ParallelTextBuilder, skip_registration=True):
    """A parallel text of two rows."""

    METADATA = {"source_language": "en", "target_language": "fr"}
    url_infos = {}

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from self._examples(ROWS)


@pytest.fixture
def file(tmp_path):
    """Returns a function that writes bytes and returns the path."""

    def write(content, name="train.en"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def refusal(path):
    with pytest.raises(ParallelTextError) as error:
        read_lines(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of those rows."""
    made = Rows(data_dir=tmp_path_factory.mktemp("rows"), file_format="array_record")
    mirror.download_and_prepare(made, tmp_path_factory.mktemp("downloads"))
    return made.data_dir


def test_sentences_and_alignments_come_back_as_they_were(folder):
    builder = tfds.builder_from_directory(folder)
    found = list(builder.as_data_source(split="train"))
    assert [
        (row["source"].decode(), row["target"].decode(), row["alignment"].tolist())
        for row in found
    ] == [(a, b, [list(pair) for pair in aligned]) for a, b, aligned in ROWS]
    for row in found:
        assert row["alignment"].dtype == np.int32
        assert row["alignment"].shape[1:] == (2,)
    assert builder.info.metadata["target_language"] == "fr"


def test_they_are_read_without_tensorflow(folder):
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        "rows = tfds.builder_from_directory(sys.argv[1]).as_data_source(split='train')\n"
        "print([len(row['alignment']) for row in rows], 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "[3, 0] False\n", done.stderr


@pytest.mark.parametrize("packed", [False, True])
def test_lines_are_what_stands_between_line_ends(file, packed):
    text = "\ufeffOne two.\r\nÀ l'école…\n next\u2028line\x85 \nlast"
    content = text.encode()
    path = file(gzip.compress(content), "a.gz") if packed else file(content, "a.en")
    assert read_lines(path) == ["One two.", "À l'école…", " next\u2028line\x85 ", "last"]


def test_a_line_end_at_the_end_begins_no_further_line(file):
    assert read_lines(file(b"one\ntwo\n")) == ["one", "two"]


def test_pairs_are_lines_of_one_number(file):
    english, french = file(b"one\ntwo\n", "a.en"), file(b"un\ndeux\n", "a.fr")
    assert read_pairs(english, french) == [("one", "un"), ("two", "deux")]


@pytest.mark.parametrize("target, count", [(b"un\n", 1), (b"un\ndeux\ntrois\n", 3)])
def test_files_of_unequal_length_are_refused_with_both_counts(file, target, count):
    english, french = file(b"one\ntwo\n", "a.en"), file(target, "a.fr")
    with pytest.raises(ParallelTextError) as error:
        read_pairs(english, french)
    assert f"{english} with 2 lines, {french} with {count}" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(file, content):
    assert "the file is empty" in refusal(file(content))


@pytest.mark.parametrize("content", [b"one\n\nthree\n", b"one\n \t\nthree", b"one\n\n"])
def test_an_empty_line_is_refused_by_its_number(file, content):
    assert ", line 2: there is no sentence" in refusal(file(content))


def test_text_that_is_not_utf_8_is_refused_by_its_line(file):
    message = refusal(file("un\ndeux\nété\n".encode("latin-1")))
    assert ", line 3: not UTF-8 text: invalid continuation byte at byte 0" in message


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip", "empty"])
def test_a_damaged_archive_is_refused(file, damage):
    content = bytearray(gzip.compress(b"one\ntwo\n" * 50))
    content[len(content) // 2] ^= 0xFF if damage == "flipped" else 0
    damaged = {"cut": content[:-9], "not gzip": b"<html>", "empty": b""}
    message = refusal(file(bytes(damaged.get(damage, content)), "train.en.gz"))
    assert "cannot be read" in message or damage == "empty"


def test_a_missing_file_is_named(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "nowhere.en")
