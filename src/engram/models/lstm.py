"""LSTM: one memory with an input, a forget and an output gate."""

import functools

import keras

from engram import models


def build(spec, learning_rate, units):
    """Returns the compiled model of the spec's task around one layer.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: int, width `U` of the layer.
    """
    # A short sequence is faster unrolled.
    layer = functools.partial(keras.layers.LSTM, units, unroll=spec["history"] <= 32)
    return models.recurrent(layer, spec, "lstm", learning_rate)
