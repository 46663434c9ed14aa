"""NYC taxi: trips from 30 zones to 30 zones, every hour of May and June 2018."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from engram.datasets import readings

_FOLDER = "https://raw.githubusercontent.com/xinychen/transdim/master/datasets"
ZONES = 30
# What SciPy raises at a file that is damaged, or of another kind.
FAULTS = OSError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error


class NycTaxi(readings.ReadingsBuilder):
    """NYC taxi as published with transdim: 1 May to 30 June 2018, 1,464 hours.

    A detector is a pair of zones and is named after them: `07>12` counts the trips of an
    hour from zone 7 to zone 12. The pairs stand row by row, a row for each zone where
    trips begin, so that the readings of an hour are an image of 30 x 30; the layout
    `grid 30 x 30` says so. A zero counts: nobody went. The first hour begins at midnight.
    """

    DESCRIPTION = "Taxi trips between 30 zones of New York City, every hour."
    HOMEPAGE = "https://github.com/xinychen/transdim"
    CITATION = (
        "X. Chen, L. Sun. Bayesian Temporal Factorization for Multidimensional Time"
        " Series Prediction. IEEE Transactions on Pattern Analysis and Machine"
        " Intelligence, 2022."
    )
    URLS = {"trips": f"{_FOLDER}/NYC-data-set/tensor.mat"}
    METADATA = {
        "unit": "trips/h",
        "interval_minutes": 60,
        "first_slot": 0,
        "missing": [],
        "layout": f"grid {ZONES} x {ZONES}",
    }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        files = dl_manager.download(self.URLS)
        return {"detectors": self._generate_examples(files["trips"])}

    def _generate_examples(self, trips: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        counts = parse_tensor(Path(trips))
        names = [pair(n) for n in range(ZONES * ZONES)]
        yield from self._examples(names, counts.reshape(len(names), -1).T)


def pair(n: int) -> str:
    """Returns the name of the `n`-th pair of zones, such as `07>12`."""
    return f"{n // ZONES:02}>{n % ZONES:02}"


def parse_tensor(path: Path) -> np.ndarray:
    """Returns the array `tensor` of a MATLAB file: whole numbers `(30, 30, hours)`.

    Raises:
        ReadingsError: naming the file, what was expected and what was received.
    """
    counts = _tensor(path)
    if counts.ndim != 3 or counts.shape[:2] != (ZONES, ZONES) or not counts.size:
        raise readings.ReadingsError(
            f"{path}: `tensor` must have the shape ({ZONES}, {ZONES}, hours)."
            f" Received: {counts.shape}"
        )
    if counts.dtype.kind not in "uif":
        raise readings.ReadingsError(
            f"{path}: `tensor` must hold numbers. Received: {counts.dtype}"
        )
    whole = np.isfinite(counts) & (counts >= 0) & (counts == np.trunc(counts))
    if not whole.all():
        row, column, hour = np.argwhere(~whole)[0]
        raise readings.ReadingsError(
            f"{path}: `tensor` must count trips: whole numbers, 0 or more. Received:"
            f" {counts[row, column, hour]} at {pair(row * ZONES + column)}, hour {hour}"
        )
    return counts


def _tensor(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            found = loadmat(file)
    except FileNotFoundError:
        raise readings.ReadingsError(f"{path}: there is no such file") from None
    except FAULTS as error:
        raise readings.ReadingsError(
            f"{path}: expected a MATLAB file of version 4 to 7.2. Received: {error}"
        ) from None
    if "tensor" not in found:
        names = sorted(name for name in found if not name.startswith("__"))
        raise readings.ReadingsError(
            f"{path}: expected an array `tensor`. Received: {', '.join(names) or 'none'}"
        )
    return np.asarray(found["tensor"])
