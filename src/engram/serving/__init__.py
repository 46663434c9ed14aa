"""A trained model as a function from requests to answers, in the units of the data.

    keep   model file, data/prepared/<dataset> -> a folder that needs nothing else
    load   that folder                         -> Served, whose `answer` takes requests

What a request and an answer hold is told by the module of the task's word: `given`,
`answered`, `example`, `LIMITS`, and `predictor`. The folder holds `model.keras`,
`spec.json`, `serving.json`, what else the task needs, and `example.json`: a request and
how it was answered where the folder was made.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from engram.serving import (
    classification,
    density,
    forecasting,
    generation,
    image_generation,
    reconstruction,
    sequences,
    translation,
    video,
)
from engram.serving.fields import TEXT, Field, Refused, checked

__all__ = ["TASKS", "Field", "Refused", "Served", "deviation", "keep", "load"]

Json = dict[str, Any]
TASKS: dict[str, ModuleType] = {
    "forecasting": forecasting,
    "sequences": sequences,
    "video": video,
    "density": density,
    "classification": classification,
    "reconstruction": reconstruction,
    "translation": translation,
    "generation": generation,
    "image_generation": image_generation,
}


class Served(NamedTuple):
    """A loaded model.

    Attributes:
        given: fields of a request.
        answered: fields of an answer.
        example: a request and its `answer`, as the folder has them.
    """

    given: list[Field]
    answered: list[Field]
    example: Json
    predict: Callable[..., Json]

    def answer(self, request: Json) -> Json:
        """Returns of each field of the answer one value a row of the request.

        Args:
            request: arrays or lists by the names of `given`, with equally many rows.

        Raises:
            Refused: if the request holds something else.
        """
        return self.predict(**checked(self.given, request))

    def deviations(self) -> dict[str, float]:
        """Returns how far each field of the example's answer is from what it was.

        Of numbers the largest difference over the largest number, of texts 0 or 1.
        """
        was = self.example["answer"]
        now = self.answer(self.example["request"])
        return {
            field.name: _deviation(field, _listed(now[field.name]), was[field.name])
            for field in self.answered
        }


def keep(folder: Path, file: Path, prepared: Path, about: Json) -> Served:
    """Writes what answering needs into a new `folder`; returns it loaded.

    Args:
        folder: to write.
        file: the trained model, `.keras`.
        prepared: folder that `prepare` wrote.
        about: `task`, `model` and `fitted`, the part that the model was fitted on.

    Raises:
        ValueError: if the model's answer to its example is no number.
    """
    from engram import models

    kind = TASKS[about["task"]]
    folder.mkdir(parents=True)
    shutil.copy(file, folder / "model.keras")
    spec = _read(prepared / "spec.json")
    for name in ("spec.json", *getattr(kind, "FILES", ())):
        shutil.copy(prepared / name, folder)
    model, settled = models.load(about["model"], about["task"], file), {}
    if hasattr(kind, "settled"):
        settled = kind.settled(model, prepared, about["fitted"])
    _write(folder / "serving.json", {**about, "settled": settled})
    predict = kind.predictor(model, spec, settled, folder)
    request = {k: np.asarray(v).tolist() for k, v in kind.example(prepared, spec).items()}
    answer = predict(**checked(kind.given(spec), request))
    example = {"request": request, "answer": {k: _listed(v) for k, v in answer.items()}}
    try:
        _write(folder / "example.json", example)
    except ValueError:  # JSON has neither
        raise ValueError("the model answers its example with NaN or infinity") from None
    return Served(kind.given(spec), kind.answered(spec), example, predict)


def load(folder: str | Path) -> Served:
    """Returns the model of a folder that `keep` wrote; runs no code from it."""
    from engram import models

    folder = Path(folder)
    about, spec = _read(folder / "serving.json"), _read(folder / "spec.json")
    kind, settled = TASKS[about["task"]], about["settled"]
    model = models.load(about["model"], about["task"], folder / "model.keras")
    return Served(
        kind.given(spec),
        kind.answered(spec),
        _read(folder / "example.json"),
        kind.predictor(model, spec, settled, folder),
    )


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference over the largest number; 1 if one is no number."""
    scale = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    share = float(np.abs(found - expected).max() / scale)
    return share if np.isfinite(share) else 1.0


def _deviation(field: Field, now: list, was: list) -> float:
    if now == was:
        return 0.0
    if field.dtype == TEXT:
        return 1.0
    a, b = np.array(now, np.float64), np.array(was, np.float64)
    return deviation(a, b) if a.shape == b.shape else 1.0


def _listed(values) -> list:
    return [one.tolist() if hasattr(one, "tolist") else one for one in values]


def _read(file: Path) -> Json:
    return json.loads(file.read_text(encoding="utf-8"))


def _write(file: Path, content: Json) -> None:
    file.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
