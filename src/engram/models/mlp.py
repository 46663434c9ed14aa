"""Two dense layers over a detector's last readings."""

import keras

from engram.models import forecasting


def build(spec, learning_rate, units):
    """Returns a compiled forecaster, the same weights for every detector.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: int, width `U` of both layers.
    """
    body = keras.Sequential(
        [
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(units, activation="relu"),
        ],
        name="body",
    )
    return forecasting.shared_forecaster(body, spec, "mlp", learning_rate)
