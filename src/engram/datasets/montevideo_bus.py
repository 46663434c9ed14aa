"""Montevideo bus: passengers at 675 stops, every hour of October 2020."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from engram.datasets import readings

_FOLDER = (
    "https://raw.githubusercontent.com/benedekrozemberczki"
    "/pytorch_geometric_temporal/master/dataset"
)
LISTS = ("nodes", "links")
ENDS = ("source", "target")  # of a link


class MontevideoBus(readings.ReadingsBuilder):
    """Montevideo bus as published with PyTorch Geometric Temporal: 744 hours.

    The stops are those of the 11 lines that bring most people to the centre of the city;
    a detector is named by its stop's number. A zero counts: nobody came, which is so in
    80 % of the readings. The first hour begins at midnight on 1 October 2020.
    `weights` is the length of the road, in metres, from a stop (row) to the next one on
    a line (column), and 0 where no line goes that way.
    """

    DESCRIPTION = "Passenger inflow at bus stops of Montevideo, every hour."
    HOMEPAGE = "https://github.com/benedekrozemberczki/pytorch_geometric_temporal"
    CITATION = (
        "B. Rozemberczki et al. PyTorch Geometric Temporal: Spatiotemporal Signal"
        " Processing with Neural Machine Learning Models. CIKM 2021."
    )
    URLS = {"stops": f"{_FOLDER}/montevideo_bus.json"}
    METADATA = {
        "unit": "passengers/h",
        "interval_minutes": 60,
        "first_slot": 0,
        "missing": [],
        "layout": "network",
    }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        files = dl_manager.download(self.URLS)
        return {"detectors": self._generate_examples(files["stops"])}

    def _generate_examples(self, stops: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from self._examples(*parse_graph(Path(stops)))


def parse_graph(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Returns the stops' names, their counts `(hours, N)` and the weights `(N, N)`.

    The file is a graph in JSON: `nodes` have an `id` and a list `y` of counts, `links` a
    `source`, a `target` and a `weight`.

    Raises:
        ReadingsError: naming the file, what was expected and what was received.
    """
    nodes, links = _graph(path)
    order: dict[int, int] = {}
    columns: list[list[int]] = []
    for node in nodes:
        stop, counts = _field(path, node, "id"), _field(path, node, "y")
        if type(stop) is not int or stop in order:
            raise readings.ReadingsError(
                f"{path}: a node's `id` must be a whole number of its own."
                f" Received: {stop!r}"
            )
        hours = len(columns[0]) if columns else None
        columns.append(_counts(path, stop, counts, hours))
        order[stop] = len(order)
    weights = np.zeros((len(order), len(order)))
    for link in links:
        start, end = (order[_end(path, link, key, order)] for key in ENDS)
        weights[start, end] = _weight(path, link)
    return [str(stop) for stop in order], np.array(columns).T, weights


def _graph(path: Path) -> tuple[list[Any], list[Any]]:
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise readings.ReadingsError(f"{path}: there is no such file") from None
    except OSError as error:
        raise readings.ReadingsError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # JSON's, and UTF-8's
        raise readings.ReadingsError(
            f"{path}: expected JSON. Received: {error}"
        ) from None
    known = graph if isinstance(graph, dict) else {}
    if not all(isinstance(known.get(key), list) for key in LISTS):
        raise readings.ReadingsError(
            f"{path}: expected an object with the lists {' and '.join(LISTS)}."
            f" Received: {sorted(known) or type(graph).__name__}"
        )
    if not known["nodes"]:
        raise readings.ReadingsError(f"{path}: expected nodes. Received: none")
    return known["nodes"], known["links"]


def _field(path: Path, block: Any, key: str) -> Any:
    if not isinstance(block, dict) or key not in block:
        received = sorted(block) if isinstance(block, dict) else repr(block)
        raise readings.ReadingsError(
            f"{path}: a node or link must have `{key}`. Received: {received}"
        )
    return block[key]


def _counts(path: Path, stop: int, counts: Any, hours: int | None) -> list[int]:
    if not isinstance(counts, list) or not counts:
        raise readings.ReadingsError(
            f"{path}, stop {stop}: `y` must be a list of counts. Received: {counts!r}"
        )
    if hours not in (None, len(counts)):
        raise readings.ReadingsError(
            f"{path}, stop {stop}: expected {hours} hours, as at the first stop."
            f" Received: {len(counts)}"
        )
    for hour, count in enumerate(counts):
        if type(count) is not int or count < 0:  # True is no count
            raise readings.ReadingsError(
                f"{path}, stop {stop}, hour {hour}: expected a whole number, 0 or more."
                f" Received: {count!r}"
            )
    return counts


def _end(path: Path, link: Any, key: str, order: dict[int, int]) -> int:
    stop = _field(path, link, key)
    if type(stop) is not int or stop not in order:
        raise readings.ReadingsError(
            f"{path}: the `{key}` of a link must be a node's `id`. Received: {stop!r}"
        )
    return stop


def _weight(path: Path, link: dict[str, Any]) -> float:
    weight = _field(path, link, "weight")
    if type(weight) not in (int, float) or not 0 < weight < math.inf:
        raise readings.ReadingsError(
            f"{path}, link from {link['source']} to {link['target']}: `weight` must be a"
            f" number above 0. Received: {weight!r}"
        )
    return weight
