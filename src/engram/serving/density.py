"""How probable a model finds rows of zeros and ones, and what it takes them for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram.serving.fields import Field
from engram.tasks.density import rows as rows_of

LIMITS = """Free energies tell which of two rows is the more probable one, not how
probable they are. Log-likelihoods are exact where one side of the machine has at most
20 units; where both have more, the answer holds none."""


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of a request: rows of `V` zeros and ones."""
    shape = " x ".join(map(str, spec["shape"]))
    words = f"pixels of an image of {shape}, row after row, 1 or 0 as prepared"
    return [Field("rows", "int64", (spec["visible"],), words, 0, 1)]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the fields of an answer."""
    return [
        Field("free_energy", "float64", (), "F(v), in nats"),
        Field("log_likelihood", "float64", (), "log p(v), in nats, or null"),
        Field("mean", "float64", (spec["visible"],), "of v, after one look at h"),
    ]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request of the first two rows of the validation part."""
    return {"rows": rows_of(prepared, "validation")[:2].astype(np.int64)}


def settled(model, prepared: Path, fitted: str) -> dict[str, float | None]:
    """Returns log Z, or None if it cannot be enumerated."""
    from engram.layers.rbm import enumeration

    small = min(model.rbm.kernel.shape) <= enumeration.LIMIT
    return {"log_z": enumeration.log_partition(model.rbm) if small else None}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's arrays to an answer's."""
    from engram.layers.rbm import enumeration

    log_z = settled["log_z"]

    def predict(rows):
        v = rows.astype(np.float32)
        minus = enumeration.log_likelihood(model.rbm, v, log_z=0.0)  # -F(v)
        known = [None] * len(v) if log_z is None else minus - log_z
        mean = np.asarray(model.rbm.reconstruct(v), np.float64)
        return {"free_energy": -minus, "log_likelihood": known, "mean": mean}

    return predict
