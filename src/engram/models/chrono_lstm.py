"""LSTM with chrono initialisation: its memory starts with long time scales."""

import functools

import keras
from keras import ops

from engram import models


@keras.saving.register_keras_serializable(package="engram")
class ChronoBias(keras.initializers.Initializer):
    """Draws the bias `(4U,)` of an LSTM so that its units forget at their own pace.

        t ~ uniform(1, horizon),  b_f = log(t),  b_i = -log(t)

    A forget gate of `t / (1 + t)` keeps `1/e` of a value for about `t` steps. The biases
    of the candidate and the output gate are 0; Keras' order is `i, f, g, o`.

    Args:
        horizon: float, at least 1, in steps: longest time scale.
        seed: int or None.

    Raises:
        ValueError: if `horizon` is below 1.

    Reference:
        - Tallec and Ollivier 2018, Can recurrent neural networks warp time?, section
          2.2, with `T_max = horizon + 1`.
    """

    def __init__(self, horizon, seed=None):
        if not horizon >= 1:
            raise ValueError(f"`horizon` must be at least 1 step. Received: {horizon}")
        self.horizon = horizon
        self.seed = seed
        self._scales = keras.initializers.RandomUniform(1.0, horizon, seed=seed)

    def __call__(self, shape, dtype=None):
        forget = ops.log(self._scales((shape[0] // 4,), dtype=dtype))  # (U,)
        zero = ops.zeros_like(forget)
        return ops.concatenate([-forget, forget, zero, zero])

    def get_config(self):
        return {"horizon": self.horizon, "seed": self.seed}


def build(spec, learning_rate, units, horizon):
    """Returns the compiled model of the spec's task around one layer.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: int, width `U` of the layer.
        horizon: float, longest time scale of a unit at the start of training, in steps.
    """
    layer = functools.partial(
        keras.layers.LSTM,
        units,
        unit_forget_bias=False,
        bias_initializer=ChronoBias(horizon),
        unroll=spec["history"] <= 32,  # a short sequence is faster unrolled
    )
    return models.recurrent(layer, spec, "chrono_lstm", learning_rate)
