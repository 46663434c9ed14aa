"""STLM: a short and a long memory with gates of their own."""

import functools

from engram import models
from engram.layers.stlm.stlm import STLM


def build(spec, learning_rate, units, combine, short_horizon, long_horizon):
    """Returns the compiled model of the spec's task around one layer.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: int, size `U` of each memory.
        combine: `"concat"`, `"sum"` or `"weighted"`.
        short_horizon: float, steps that the slowest unit of the short memory keeps a
            value for at the start of training.
        long_horizon: float, the same of the long memory.
    """
    layer = functools.partial(
        STLM,
        units,
        combine=combine,
        short_horizon=short_horizon,
        long_horizon=long_horizon,
    )
    return models.recurrent(layer, spec, "stlm", learning_rate)
