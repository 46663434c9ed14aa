"""Persistence: the future repeats the last reading."""

import keras
from keras import ops

from engram.models.forecasting import ClosedForm, compile_forecaster, inputs


@keras.saving.register_keras_serializable(package="engram")
class Persistence(ClosedForm):
    """`forecast_p = reading_T` for every step `p`."""


def build(spec, learning_rate):
    """Returns the model; it has no weights, and `learning_rate` is not used."""
    given = inputs(spec)
    last = given["readings"][:, -1:, :]  # (B, 1, N)
    forecast = ops.repeat(last, spec["horizon"], axis=1)  # (B, P, N)
    return compile_forecaster(Persistence(given, forecast), learning_rate)
