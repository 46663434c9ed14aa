"""The next frames of a clip, each predicted from those before it, its own among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram.serving.fields import Field
from engram.tasks.video import clips

LIMITS = """The further ahead, the more its frames blur: each is made of its own earlier
ones. It was trained on clips of one kind; other sizes, speeds or contents were not in
them."""
BATCH = 64


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of a request: clips of `T` frames `(H, W)`."""
    shape = spec["history"], spec["height"], spec["width"]
    words = f"pixels of consecutive frames, 0 is black and {spec['white']} is white"
    return [Field("frames", "float32", shape, words, 0, spec["white"])]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of an answer: the next `P` frames."""
    shape = spec["horizon"], spec["height"], spec["width"]
    return [Field("frames", "float32", shape, "pixels of the frames that follow")]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request of the first clip of the validation part."""
    seen = clips(prepared, spec, "validation")[:1, : spec["history"], ..., 0]
    return {"frames": (seen * spec["white"]).round()}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's arrays to an answer's."""
    white = np.float32(spec["white"])

    def predict(frames):
        seen = frames[..., None] / white  # (B, T, H, W, 1)
        for _ in range(spec["horizon"]):
            following = model.predict(seen, batch_size=BATCH, verbose=0)[:, -1:]
            seen = np.concatenate([seen, following], axis=1)
        return {"frames": seen[:, spec["history"] :, ..., 0] * white}

    return predict
