"""Readings of one's own: a CSV with a column per detector and a line per interval."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from engram.datasets import readings


class DetectorCsv(readings.ReadingsBuilder):
    """A CSV file of equally spaced readings; `readings.parse_csv` tells its form.

    Args:
        file: path of the CSV.
        interval_minutes: int, minutes between two lines; must divide a day.
        unit: str, printed beside every error, such as `"km/h"`.
        missing: list of numbers that mean "no reading", such as `[0]`; empty cells
            always do.
        first_reading: str, time of day of the first line, `"HH:MM"`.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        ReadingsError: if the interval does not divide a day, or from `parse_csv`.
    """

    DESCRIPTION = "Readings of equally spaced intervals, a column per detector."

    def __init__(
        self,
        *,
        file: str | Path,
        interval_minutes: int,
        unit: str,
        missing: list[float],
        first_reading: str,
        **kwargs,
    ):
        if interval_minutes < 1 or 1440 % interval_minutes:
            raise readings.ReadingsError(
                "`interval_minutes` must divide a day of 1440."
                f" Received: {interval_minutes}"
            )
        hours, minutes = first_reading.split(":")
        self.file = Path(file)
        self.METADATA = {
            "unit": unit,
            "interval_minutes": interval_minutes,
            "first_slot": (60 * int(hours) + int(minutes)) // interval_minutes,
            "missing": list(missing),
            "layout": "network",
        }
        super().__init__(**kwargs)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {"detectors": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from self._examples(*readings.parse_csv(self.file))
