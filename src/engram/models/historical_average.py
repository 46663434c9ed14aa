"""Historical average: the mean of the training part at the same time of day."""

import keras
import numpy as np
from keras import ops

from engram.models.forecasting import ClosedForm, compile_forecaster, inputs


@keras.saving.register_keras_serializable(package="engram")
class HistoricalAverage(ClosedForm):
    """`forecast_p = mean of the training readings in the interval slot + p of the day`.

    A reading counts once, as the first step that a training window predicts.

    An interval of the day without a training reading takes the detector's mean.
    """

    def solve(self, train, validation):
        """Sets the table to the means of the training targets."""
        table = self.get_layer("average")
        total = np.zeros(table.table.shape, np.float64)  # (slots, N)
        count = np.zeros_like(total)
        for given, target, weight in train:
            slot, target, weight = map(np.asarray, (given["slot"], target, weight))
            np.add.at(total, slot, target[:, 0] * weight[:, 0])
            np.add.at(count, slot, weight[:, 0])
        mean = total.sum(0) / np.maximum(count.sum(0), 1)  # (N,)
        known = total / np.maximum(count, 1)
        table.table.assign(np.where(count > 0, known, mean))


@keras.saving.register_keras_serializable(package="engram")
class SlotTable(keras.layers.Layer):
    """Reads rows `slot, ... slot + steps - 1` of a table that wraps at midnight.

    Args:
        slots: int, rows of the table.
        detectors: int, its columns `N`.
        steps: int, rows to read, `P`.

    Call arguments:
        slot: int tensor `(B,)`.

    Returns:
        Float tensor `(B, P, N)`.
    """

    def __init__(self, slots, detectors, steps, **kwargs):
        super().__init__(**kwargs)
        self.slots = slots
        self.detectors = detectors
        self.steps = steps

    def build(self, input_shape):
        self.table = self.add_weight(
            shape=(self.slots, self.detectors), initializer="zeros", trainable=False
        )

    def call(self, slot):
        rows = ops.expand_dims(slot, -1) + ops.arange(self.steps)  # (B, P)
        return ops.take(self.table, rows % self.slots, axis=0)

    def get_config(self):
        sizes = {"slots": self.slots, "detectors": self.detectors, "steps": self.steps}
        return {**super().get_config(), **sizes}


def build(spec, learning_rate):
    """Returns the model; `fit` fills its table and `learning_rate` is not used."""
    given = inputs(spec)
    table = SlotTable(
        spec["slots_per_day"], len(spec["detectors"]), spec["horizon"], name="average"
    )
    model = HistoricalAverage(given, table(given["slot"]))
    return compile_forecaster(model, learning_rate)
