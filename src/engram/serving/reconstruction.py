"""The code of an image, and the image that is drawn from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram.serving.fields import Field

LIMITS = """It draws what it was trained on: an image of another kind comes back as the
nearest thing it knows. Codes of two trainings have nothing to do with one another."""
BATCH = 250


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of a request: images, as bright as the data's."""
    words = f"pixels, 0 is black and {spec['white']} is white"
    return [Field("images", "float32", tuple(spec["shape"]), words, 0, spec["white"])]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the fields of an answer."""
    return [
        Field("code", "float32", (-1,), "what the image was squeezed into"),
        Field("images", "float32", tuple(spec["shape"]), "pixels drawn from the code"),
    ]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request of the first two images of the validation part."""
    first = spec["parts"]["validation"][0]
    rows = np.load(prepared / "rows.npy", mmap_mode="r")[first : first + 2]
    return {"images": np.array(rows).reshape(-1, *spec["shape"])}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's arrays to an answer's."""
    import keras

    white = np.float32(spec["white"])
    both = keras.Model(model.input, [model.get_layer("code").output, model.output])

    def predict(images):
        rows = images.reshape(len(images), -1) / white  # (B, V)
        code, drawn = both.predict(rows, batch_size=BATCH, verbose=0)
        return {"code": code, "images": drawn.reshape(images.shape) * white}

    return predict
