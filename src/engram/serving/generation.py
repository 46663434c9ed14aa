"""Points out of noise: as many as asked for, the same ones for the same seed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram.serving.fields import Field

LIMITS = """It makes points like those it was trained on and tells of none how probable
it is. Some of the modes can be missing among them: the metrics count which are
found."""
MOST = 2500  # of a row
LARGEST = 2**31 - 1  # seed


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the fields of a request: how many, and of which seed."""
    return [
        Field("count", "int64", (), "how many to make", 1, MOST),
        Field("seed", "int64", (), "of the noise; the same makes the same", 0, LARGEST),
    ]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of an answer: `count` points."""
    return [Field("points", "float32", (-1, *spec["shape"]), "in the data's units")]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request of three points."""
    return {"count": np.array([3]), "seed": np.array([1])}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's arrays to an answer's."""

    def predict(count, seed):
        pairs = zip(count.tolist(), seed.tolist(), strict=True)
        return {"points": [np.asarray(model.generate(*pair)) for pair in pairs]}

    return predict
