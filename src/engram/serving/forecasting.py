"""Forecasts for requests: readings in the data's unit, and the time of day."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram.serving.fields import Field
from engram.tasks.forecasting import fill, windows

LIMITS = """It reads the detectors that it was trained with, in their order, and
forecasts those alone. A missing reading takes the last one before it, or the mean. It
was measured on the last part of one period: other seasons, holidays and changed roads
were not in it."""
BATCH = 64


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the fields of a request: `T` past readings of `N` detectors, and a slot."""
    steps, detectors = spec["history"], len(spec["detectors"])
    every = f"every {spec['interval_minutes']} minutes"
    slots = spec["slots_per_day"]
    return [
        Field(
            "readings",
            "float32",
            (steps, detectors),
            f"{spec['unit']}, the last {steps} readings, {every}, of each detector",
            gaps=True,
        ),
        Field(
            "slot",
            "int64",
            (),
            f"of {slots} intervals of the day that of the first forecast",
            low=0,
            high=slots - 1,
        ),
    ]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of an answer: `P` future readings of `N` detectors."""
    steps, detectors = spec["horizon"], len(spec["detectors"])
    words = f"{spec['unit']}, the next {steps} readings of each detector"
    return [Field("forecast", "float32", (steps, detectors), words)]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request of two windows of the validation part, without gaps if it can."""
    past, _, slot = windows(prepared, spec, "validation")
    whole = np.flatnonzero(~np.isnan(past).any((1, 2)))
    chosen = whole[[0, -1]] if len(whole) else [0, -1]
    mean, std = spec["mean"], spec["std"]
    readings = fill((past[chosen] - mean) / std) * std + mean
    return {"readings": readings.round(3), "slot": slot[chosen]}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's arrays to an answer's."""
    mean, std = spec["mean"], spec["std"]

    def predict(readings, slot):
        inputs = {"readings": fill((readings - mean) / std), "slot": slot}
        scaled = model.predict(inputs, batch_size=BATCH, verbose=0)  # (B, P, N)
        return {"forecast": scaled * std + mean}

    return predict
