"""What a model says of a sequence: a number, a class, or a class at each step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram.serving.fields import Field
from engram.tasks.sequences import arrays

LIMITS = """It reads sequences of the length it was trained with, each feature between 0
and 1, in the order that the dataset has them: of `permuted_pixels` that is one fixed
order."""
BATCH = 250


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of a request: sequences of `T` steps with `F` features."""
    shape = spec["history"], spec["features"]
    words = f"features of each step, the data's numbers divided by {spec['scale']}"
    return [Field("sequences", "float32", shape, words, 0, 1)]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of an answer."""
    if spec["target"] == "number":
        return [Field("number", "float32", (), "what the sequence asks for")]
    if spec["target"] == "class":
        return [Field("class", "int64", (), "the likeliest class")]
    return [Field("classes", "int64", (spec["history"],), "the likeliest at each step")]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request of the first two sequences of the validation part."""
    inputs, _ = arrays(prepared, spec, "validation")
    return {"sequences": np.array(inputs[:2], np.float32) / spec["scale"]}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's arrays to an answer's."""
    (field,) = answered(spec)

    def predict(sequences):
        told = model.predict(sequences, batch_size=BATCH, verbose=0)
        return {field.name: told[:, 0] if field.name == "number" else told.argmax(-1)}

    return predict
