"""LSTM: A long short-term memory over a detector's last readings."""

import keras

from engram.models.forecasting import shared_forecaster


def build(spec, learning_rate, units):
    """Returns a compiled forecaster, the same weights for every detector.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: int, width `U` of the layer.
    """
    # Short and static: unrolled is faster.
    body = keras.layers.LSTM(units, unroll=True)
    return shared_forecaster(spec, body, "lstm", learning_rate)
