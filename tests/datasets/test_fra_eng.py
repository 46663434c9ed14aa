"""Tatoeba's pairs: every one in one part, and no English sentence in two."""

import hashlib
import zipfile

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from engram.datasets import fra_eng, mirror
from engram.datasets.fra_eng import FraEng, parse_archive, split
from engram.datasets.parallel_text import ParallelTextError

# Every third sentence has two translations, and every seventh a twin of other signs.
PAIRS = [
    pair
    for n in range(60)
    for pair in (
        (f"Sentence {n}.", f"La phrase {n}."),
        *([(f"Sentence {n}.", f"Phrase n° {n} !")] if n % 3 == 0 else []),
        *([(f"SENTENCE, {n}!", f"PHRASE {n} !")] if n % 7 == 0 else []),
    )
]


@pytest.fixture(autouse=True)
def five(monkeypatch):
    """Holds out five English sentences and five."""
    monkeypatch.setattr(fra_eng, "HELD", 5)


@pytest.fixture
def archive(tmp_path):
    """Returns a function that packs a text as the site does and returns the path."""

    def write(text, name="fra.txt"):
        path = tmp_path / "fra-eng.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("_about.txt", "CC BY 2.0")
            packed.writestr(name, text)
        return path

    return write


@pytest.fixture
def builder(tmp_path, archive, monkeypatch):
    """What reads the pairs back, which came from a mirror."""
    place = tmp_path / "mirror/fra_eng"
    place.mkdir(parents=True)
    file = archive("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    content = file.rename(place / file.name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    info = checksums.UrlInfo(tfds.core.utils.Size(len(content)), digest, file.name)
    monkeypatch.setattr(FraEng, "url_infos", {FraEng.URLS["pairs"]: info})
    monkeypatch.setenv("ENGRAM_MIRROR", str(place.parent))
    made = FraEng(data_dir=tmp_path / "built", file_format="array_record")
    mirror.download_and_prepare(made, tmp_path / "downloads")
    return tfds.builder_from_directory(made.data_dir)


def refusal(path):
    with pytest.raises(ParallelTextError) as error:
        parse_archive(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def number(english):
    return int("".join(sign for sign in english if sign.isdigit()))


def test_fetched_pairs_are_those_of_the_split(builder):
    for part, pairs in split(PAIRS).items():
        found = list(builder.as_data_source(split=part))
        texts = [(row["source"].decode(), row["target"].decode()) for row in found]
        assert texts == pairs
    assert dict(builder.info.metadata) == {
        "source_language": "en",
        "target_language": "fr",
        "gold_alignments": False,
    }


def test_every_pair_is_in_one_part():
    parts = split(PAIRS)
    assert sorted(pair for pairs in parts.values() for pair in pairs) == sorted(PAIRS)


def test_no_english_sentence_is_in_two_parts_not_even_with_other_signs():
    parts = split(PAIRS)
    numbers = {part: {number(a) for a, _ in pairs} for part, pairs in parts.items()}
    assert {part: len(some) for part, some in numbers.items()} == {
        "train": 50,
        "validation": 5,
        "test": 5,
    }
    assert len(set.union(*numbers.values())) == 60


def test_the_translations_of_a_sentence_follow_one_another():
    for pairs in split(PAIRS).values():
        order = [number(a) for a, _ in pairs]
        assert sorted(order, key=order.index) == order


def test_the_order_is_shuffled_and_that_of_every_other_machine():
    order = [number(a) for a, _ in split(PAIRS)["train"]]
    assert order != sorted(order)
    tested = [number(a) for a, _ in split(PAIRS)["test"]]
    assert list(dict.fromkeys(tested)) == TESTED


TESTED = [23, 8, 58, 30, 44]


def test_too_few_sentences_to_hold_some_out_are_refused():
    with pytest.raises(ParallelTextError, match="more than 10 English .* Received: 10"):
        split([(f"Sentence {n}.", "Phrase.") for n in range(10)] * 2)


@pytest.mark.parametrize("line", ["Go.", "Go.\tVa !\tCC BY", "\tVa !", "Go.\t "])
def test_a_line_that_is_not_two_sentences_is_refused(archive, line):
    message = refusal(archive(f"Run!\tCours !\n{line}\n"))
    assert "fra.txt, line 2: expected an English sentence, a tab and a French" in message
    assert message.endswith(f"Received: {line!r}")


def test_text_that_is_not_utf_8_is_refused_by_its_line(archive):
    message = refusal(archive("Go.\tVa !\nSummer.\tété\n".encode("latin-1")))
    assert "fra.txt, line 2: not UTF-8 text" in message


def test_an_archive_without_the_text_is_refused(archive):
    message = refusal(archive("Go.\tVa !\n", name="deu.txt"))
    assert "expected a zip archive with fra.txt" in message


@pytest.mark.parametrize("damage", ["cut", "flipped", "not zip", "empty"])
def test_a_damaged_archive_is_refused(archive, damage):
    path = archive("".join(f"{a}\t{b}\n" for a, b in PAIRS))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF if damage == "flipped" else 0
    damaged = {"cut": content[:-9], "not zip": b"<html>", "empty": b""}
    path.write_bytes(bytes(damaged.get(damage, content)))
    assert "expected a zip archive with fra.txt" in refusal(path)


def test_a_missing_file_is_named(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "nowhere.zip")


def test_the_file_has_a_checksum_and_a_place_in_a_mirror():
    (url,) = FraEng.URLS.values()
    assert FraEng.url_infos[url].filename == "fra-eng.zip"
    row = mirror._rows(mirror.OWN_TABLE)[url]
    assert (row["staged_path"], row["prepare"]) == ("fra_eng/fra-eng.zip", "as is")
