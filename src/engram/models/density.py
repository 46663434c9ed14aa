"""What all models of densities share: an input of rows, and a fit of their own."""

from typing import Any

import keras
import numpy as np


def inputs(spec: dict[str, Any]) -> keras.KerasTensor:
    """Returns the input `(B, V)`."""
    return keras.Input((spec["visible"],), name="row")


def all_rows(data) -> np.ndarray:
    """Returns the rows of all batches, `(N, V)`."""
    return np.concatenate([np.asarray(batch) for batch in data])
