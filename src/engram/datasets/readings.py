"""Detector readings: what a file of them must look like, and their TFDS form."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

LARGEST = float(np.finfo(np.float32).max)


class ReadingsError(ValueError):
    """A file of readings that cannot be read, told to the person who wrote it."""


class ReadingsBuilder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """A TFDS dataset of detectors: one example is one detector with its whole series.

    The split `detectors` has `N` examples in the order of the file:

        detector   string                its name
        readings   float32 (steps,)      at equal intervals; NaN where there is none
        weights    float32 (N,)          its row of the road graph, or empty

    `info.metadata` tells `unit`, `interval_minutes`, `first_slot` (the interval of the
    day of the first reading), `missing` (values that mean "no reading", besides NaN) and
    `layout` (`ring` or `network`).
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
                    "detector": tfds.features.Text(),
                    "readings": tfds.features.Tensor(shape=(None,), dtype=np.float32),
                    "weights": tfds.features.Tensor(shape=(None,), dtype=np.float32),
                }
            ),
            metadata=tfds.core.MetadataDict(**self.METADATA),
            disable_shuffling=True,
        )

    def _examples(
        self, names: list[str], readings: np.ndarray, weights: np.ndarray | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields one example per column of `readings` `(steps, N)`."""
        none = np.empty(0, np.float32)
        for n, name in enumerate(names):
            yield (
                n,
                {
                    "detector": name,
                    "readings": readings[:, n].astype(np.float32),
                    "weights": none if weights is None else weights[n].astype(np.float32),
                },
            )


def parse_csv(path: Path) -> tuple[list[str], np.ndarray]:
    """Returns the detectors' names and their readings `(steps, N)`, NaN where empty.

    The first line names the detectors, each further line holds one interval. An empty
    cell, and `nan` in any spelling, is no reading.

    Raises:
        ReadingsError: naming the file, line and column of the first fault.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader, table = csv.reader(lines), []
            begin = 1  # a quoted cell may go over several lines
            for row in reader:
                table.append((begin, row))
                begin = reader.line_num + 1
    except FileNotFoundError:
        raise ReadingsError(f"{path}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise ReadingsError(f"{path}: not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise ReadingsError(f"{path}: {error.strerror}") from None
    except csv.Error as error:
        raise ReadingsError(f"{path}, line {begin}: {error}") from None
    while table and not table[-1][1]:
        table.pop()  # empty lines at the end
    if not table:
        raise ReadingsError(f"{path}: the file is empty")
    names = [name.strip() for name in table[0][1]]
    _check_names(path, names)
    if len(names) == 1:  # an empty line is an empty cell
        table = [(line, row or [""]) for line, row in table]
    below = [(line, row) for line, row in table[1:] if row]
    if not below:
        raise ReadingsError(f"{path}: there are names in line 1 and no readings below")
    rows = [_numbers(path, names, line, row) for line, row in below]
    return names, np.array(rows, np.float64)


def parse_matrix(path: Path, size: int) -> np.ndarray:
    """Returns the `(size, size)` matrix in a CSV without a first line of names."""
    rows = [row for row in csv.reader(path.read_text().splitlines()) if row]
    names = [str(n) for n in range(size)]
    matrix = [_numbers(path, names, line, row) for line, row in enumerate(rows, 1)]
    if len(matrix) != size:
        raise ReadingsError(f"{path}: expected {size} rows. Received: {len(matrix)}")
    return np.array(matrix, np.float64)


def _check_names(path: Path, names: list[str]) -> None:
    if "" in names:
        column = names.index("") + 1
        raise ReadingsError(f"{path}, line 1: column {column} has no name")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ReadingsError(f"{path}, line 1: two columns are named {repeated[0]!r}")
    if len(names) == 1 and ";" in names[0]:
        raise ReadingsError(f"{path}, line 1: cells must be separated by commas, not ';'")


def _numbers(path: Path, names: list[str], line: int, row: list[str]) -> list[float]:
    if len(row) != len(names):
        raise ReadingsError(
            f"{path}, line {line}: expected {len(names)} cells. Received: {len(row)}"
        )
    return [_number(path, line, *cell) for cell in zip(names, row, strict=True)]


def _number(path: Path, line: int, name: str, cell: str) -> float:
    if not cell.strip():
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if abs(value) > LARGEST:  # NaN is not
        raise ReadingsError(
            f"{path}, line {line}, column {name!r}: expected a number or nothing."
            f" Received: {cell!r}"
        )
    return value
