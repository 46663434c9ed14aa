"""Images out of noise: as many as asked for, the same ones for the same seed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram.serving import generation
from engram.serving.fields import Field

LIMITS = """It makes images like those it was trained on, and no other. Some kinds can
be missing among them; how near they are to real ones, the metrics say, by one judge's
eyes."""
MOST = 100  # of a row


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the fields of a request: how many, and of which seed."""
    count, seed = generation.given(spec)
    return [count._replace(high=MOST), seed]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of an answer: `count` images."""
    words = f"pixels, 0 is black and {spec['white']} is white"
    return [Field("images", "float32", (-1, *spec["shape"]), words)]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request of one image."""
    return {"count": np.array([1]), "seed": np.array([1])}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's arrays to an answer's."""
    points = generation.predictor(model, spec, settled, folder)
    white = np.float32(spec["white"])

    def predict(count, seed):
        made = points(count, seed)["points"]
        return {"images": [one * white for one in made]}

    return predict
