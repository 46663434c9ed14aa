"""Classes for images, with probabilities calibrated on the validation part."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram.serving.fields import Field
from engram.tasks import classification

LIMITS = """It knows the classes named above and no other: an image of something else
gets one of them, too. Probabilities are calibrated on the validation part, if the model
was not fitted on it, for images like those. Images have to be as large, as grey and as
centred as the data's."""
BATCH = 250


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of a request: images `(H, W, F)`, as bright as the data's."""
    white = spec["white"]
    words = f"pixels, 0 is black and {white} is white"
    return [Field("images", "float32", tuple(spec["shape"]), words, 0, white)]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the fields of an answer."""
    names = ", ".join(spec["names"])
    return [
        Field("class", "text", (), "the one with the largest logit, as it is measured"),
        Field("probability", "float64", (), "of that class"),
        Field("probabilities", "float64", (spec["classes"],), f"of {names}"),
    ]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request of the first two images of the validation part."""
    images, _ = classification.arrays(prepared, spec, "validation")
    return {"images": np.array(images[:2])}


def settled(model, prepared: Path, fitted: str) -> dict[str, float]:
    """Returns the temperature that `evaluate` measures with: 1 if validation was seen."""
    from engram.tasks.classification_metrics import natural, temperature_of

    if "validation" in fitted:
        return {"temperature": 1.0}
    spec = json.loads((prepared / "spec.json").read_text())
    data = classification.batches(prepared, "validation", BATCH)
    _, truth = classification.arrays(prepared, spec, "validation")
    logits = model.predict(data, verbose=0)
    scores = natural(logits, spec["weights"])
    return {"temperature": float(temperature_of(scores, np.array(truth)))}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's arrays to an answer's."""
    white, temperature = np.float32(spec["white"]), settled["temperature"]
    prior = np.log(spec["weights"] or 1.0)  # of classes that weighed more in training

    def predict(images):
        logits = model.predict(images / white, batch_size=BATCH, verbose=0)
        scores = (np.asarray(logits, np.float64) - prior) / temperature  # (B, C)
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        probabilities = odds / odds.sum(-1, keepdims=True)
        told = np.asarray(logits).argmax(-1)
        return {
            "class": [spec["names"][n] for n in told],
            "probability": probabilities[np.arange(len(told)), told],
            "probabilities": probabilities,
        }

    return predict
