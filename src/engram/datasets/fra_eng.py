"""English and French sentences that learners translated for one another: Tatoeba."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from engram.datasets import parallel_text

FILE = "fra.txt"  # within the archive
SEED = 2017  # of the order in which sentences are dealt to parts
HELD = 2000  # English sentences of validation, and as many of test
# What Python raises at an archive that is damaged, or of another kind.
FAULTS = OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError


class FraEng(parallel_text.ParallelTextBuilder):
    """142,787 English-French pairs of Tatoeba, as of 29 September 2017, shuffled.

    An English sentence may have several French ones, which are as many examples, one
    after the other. So the parts are drawn by English sentence: 2,000 for validation,
    2,000 for test. Sentences that differ in nothing but capitals and punctuation, such
    as "Run!" and "Run.", count as one for this, so that none is in two parts.

    The site publishes a larger file under the same name now and then; this is the copy in
    a repository of GitHub. Licence: CC BY 2.0 (https://creativecommons.org/licenses/by/2.0),
    attribution: https://tatoeba.org and http://www.manythings.org/anki.
    """

    DESCRIPTION = (
        "English and French sentences of tatoeba.org, collected by manythings.org/anki."
        " CC BY 2.0."
    )
    HOMEPAGE = "http://www.manythings.org/anki"
    CITATION = (
        "Tatoeba (https://tatoeba.org), collected by C. Kelly"
        " (http://www.manythings.org/anki), 29 September 2017. CC BY 2.0."
    )
    URLS = {
        "pairs": "https://raw.githubusercontent.com/genimind/seq2seq/master/fra-eng.zip"
    }
    METADATA = {
        "source_language": "en",
        "target_language": "fr",
        "gold_alignments": False,
    }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        files = dl_manager.download(self.URLS)
        parts = split(parse_archive(Path(files["pairs"])))
        return {part: self._generate_examples(pairs) for part, pairs in parts.items()}

    def _generate_examples(
        self, pairs: list[tuple[str, str]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from self._examples((*pair, []) for pair in pairs)


def parse_archive(path: Path) -> list[tuple[str, str]]:
    """Returns the pairs in the `fra.txt` of a zip: a line of each, with a tab between.

    Raises:
        ParallelTextError: naming the file, and the line of the first fault.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(FILE)
    except FileNotFoundError:
        raise parallel_text.ParallelTextError(f"{path}: there is no such file") from None
    except (KeyError, *FAULTS) as error:
        raise parallel_text.ParallelTextError(
            f"{path}: expected a zip archive with {FILE}. Received: {error}"
        ) from None
    name = f"{path}, {FILE}"
    rows = parallel_text.lines(content, name)
    return [_pair(name, n, row) for n, row in enumerate(rows, 1)]


def _pair(name: str, n: int, row: str) -> tuple[str, str]:
    cells = row.split("\t")
    if len(cells) != 2 or not all(cell.strip() for cell in cells):
        raise parallel_text.ParallelTextError(
            f"{name}, line {n}: expected an English sentence, a tab and a French one."
            f" Received: {row!r}"
        )
    return cells[0], cells[1]


def split(pairs: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Deals the pairs to `validation`, `test` and `train` by their English sentence.

    Raises:
        ParallelTextError: if there are not more than 4,000 English sentences.
    """
    of: dict[str, list[tuple[str, str]]] = {}  # the pairs of an English sentence
    for pair in pairs:
        of.setdefault(_words(pair[0]), []).append(pair)
    if len(of) <= 2 * HELD:
        raise parallel_text.ParallelTextError(
            f"there must be more than {2 * HELD} English sentences. Received: {len(of)}"
        )
    sentences = list(of.values())
    order = np.argsort(np.random.PCG64(SEED).random_raw(len(sentences)), kind="stable")
    dealt = [sentences[n] for n in order]
    parts = {
        "train": dealt[2 * HELD :],
        "validation": dealt[:HELD],
        "test": dealt[HELD : 2 * HELD],
    }
    return {part: [pair for one in some for pair in one] for part, some in parts.items()}


def _words(sentence: str) -> str:
    """Returns a sentence without capitals and punctuation."""
    return " ".join(re.findall(r"\w+", sentence.casefold()))
