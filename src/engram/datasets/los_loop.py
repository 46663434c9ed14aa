"""Los-loop: 207 loop detectors on highways of Los Angeles, 5-minute speeds in mph."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from engram.datasets import readings

_FOLDER = (
    "https://raw.githubusercontent.com/lehaifeng/T-GCN/master/T-GCN/T-GCN-PyTorch/data"
)


class LosLoop(readings.ReadingsBuilder):
    """Los-loop as published with T-GCN: 1 to 7 March 2012, 2,016 intervals, and a graph.

    The published file has its gaps filled by interpolation and no zeros; a zero, which
    means "no reading" in the data it was cut from (METR-LA), would count as missing.
    The first reading is at midnight. `weights` is the published 207 x 207 matrix of
    road distances through a Gaussian kernel.
    """

    DESCRIPTION = "Road speed (mph) of 207 detectors in Los Angeles, every 5 minutes."
    HOMEPAGE = "https://github.com/lehaifeng/T-GCN"
    CITATION = (
        "L. Zhao et al. T-GCN: A Temporal Graph Convolutional Network for Traffic"
        " Prediction. IEEE Transactions on Intelligent Transportation Systems, 2020."
    )
    URLS = {"speed": f"{_FOLDER}/los_speed.csv", "graph": f"{_FOLDER}/los_adj.csv"}
    METADATA = {
        "unit": "mph",
        "interval_minutes": 5,
        "first_slot": 0,
        "missing": [0.0],
        "layout": "network",
    }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        files = dl_manager.download(self.URLS)
        return {"detectors": self._generate_examples(files["speed"], files["graph"])}

    def _generate_examples(
        self, speed: Path, graph: Path
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        names, values = readings.parse_csv(Path(speed))
        weights = readings.parse_matrix(Path(graph), len(names))
        yield from self._examples(names, values, weights)
