"""SimpleRNN: A simple recurrent layer over a detector's last readings."""

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
    body = keras.layers.SimpleRNN(units, unroll=True)
    return shared_forecaster(spec, body, "simple_rnn", learning_rate)
