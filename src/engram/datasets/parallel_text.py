"""Parallel text: sentences in two languages, line by line, and their TFDS form."""

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Alignment = list[tuple[int, int]]


class ParallelTextError(ValueError):
    """Sentences that cannot be read, or are not those that were expected."""


class ParallelTextBuilder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """A TFDS dataset of translations: one example is one sentence in both languages.

    The splits are `train`, `validation` and `test`, in the order of the source. An
    example:

        source      string           the sentence to translate
        target      string           its translation
        alignment   int32 (pairs, 2) source word and target word that mean the same,
                                     counted from 0, words split at spaces; empty where
                                     nobody says which they are

    `info.metadata` tells `source_language`, `target_language` (such as `en` and `fr`) and
    `gold_alignments`, whether the alignments are known.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    CITATION = ""
    HOMEPAGE = ""
    METADATA: dict[str, Any] = {}
    URLS: dict[str, str] = {}  # of the files it downloads

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            citation=self.CITATION,
            homepage=self.HOMEPAGE,
            features=tfds.features.FeaturesDict(
                {
                    "source": tfds.features.Text(),
                    "target": tfds.features.Text(),
                    "alignment": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
                }
            ),
            metadata=tfds.core.MetadataDict(**self.METADATA),
            disable_shuffling=True,
        )

    def _examples(
        self, rows: Iterable[tuple[str, str, Alignment]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields one example per row of source, target and aligned words."""
        for n, (source, target, aligned) in enumerate(rows):
            alignment = np.array(aligned, np.int32).reshape(-1, 2)
            yield n, {"source": source, "target": target, "alignment": alignment}


def read_pairs(source: Path, target: Path) -> list[tuple[str, str]]:
    """Returns the sentences of two files whose lines translate each other.

    Raises:
        ParallelTextError: if the files have different numbers of lines, naming both; or
            from `read_lines`.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise ParallelTextError(
            "line n of one file must translate line n of the other. Received:"
            f" {source} with {len(sources)} lines, {target} with {len(targets)}"
        )
    return list(zip(sources, targets, strict=True))


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file, which may be packed as `.gz`; see `lines`.

    Raises:
        ParallelTextError: if there is no such file or it cannot be unpacked; or from
            `lines`.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise ParallelTextError(f"{path}: there is no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ParallelTextError(f"{path}: cannot be read: {error}") from None
    return lines(content, str(path))


def lines(content: bytes, name: str) -> list[str]:
    r"""Returns the lines of a UTF-8 text, each as it is there.

    A line ends at `\n` or `\r\n` and nowhere else: other signs at which Python would
    split (a next-line sign, say) may stand within a sentence. An empty line is refused,
    not skipped: a test of fewer sentences is not the published one.

    Args:
        content: the text.
        name: of the file, for the errors.

    Raises:
        ParallelTextError: if there is no line, or naming the first one that is empty or
            not UTF-8.
    """
    rows = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if not rows[-1]:
        rows.pop()  # after the sign that ends the last line
    if not rows:
        raise ParallelTextError(f"{name}: the file is empty")
    return [_line(row, name, n) for n, row in enumerate(rows, 1)]


def _line(row: bytes, name: str, n: int) -> str:
    try:
        line = row.decode("utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ParallelTextError(
            f"{name}, line {n}: not UTF-8 text: {error.reason} at byte {error.start}"
        ) from None
    if not line.strip():
        raise ParallelTextError(f"{name}, line {n}: there is no sentence")
    return line
