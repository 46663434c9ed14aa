"""STLM: a short and a long memory over a detector's last readings."""

import keras

from engram.layers.stlm_cell import STLMCell
from engram.models.forecasting import shared_forecaster


def build(spec, learning_rate, units, combine, long_horizon):
    """Returns a compiled forecaster, the same weights for every detector.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: int, size `U` of each memory.
        combine: `"concat"`, `"sum"` or `"weighted"`.
        long_horizon: float, steps that the slowest unit of the long memory keeps a
            value for at the start of training.
    """
    cell = STLMCell(units, combine=combine, long_horizon=long_horizon)
    body = keras.layers.RNN(cell, unroll=True)  # short and static: unrolled is faster
    return shared_forecaster(spec, body, "stlm", learning_rate)
