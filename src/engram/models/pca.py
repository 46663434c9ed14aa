"""Principal component analysis: the best linear code, computed at once."""

import keras
import numpy as np

from engram.layers.rbm.linear_code import principal_axes
from engram.models.reconstruction import inputs


@keras.saving.register_keras_serializable(package="engram")
class PrincipalComponents(keras.Model):
    """Two dense layers around a code, whose `fit` solves for their weights."""

    def solve(self, train):
        """Sets mean and axes from batches of training rows."""
        rows = np.concatenate([np.asarray(row) for row, _ in train])
        code, row = self.get_layer("code"), self.get_layer("visible")
        mean, axes = principal_axes(rows, code.units)
        code.set_weights([axes, -mean @ axes])
        row.set_weights([axes.T, mean])

    def fit(self, x=None, validation_data=None, callbacks=None, verbose="auto", **kwargs):
        """Solves once and reports losses as `keras.Model.fit` does after one epoch."""
        calls = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=self, epochs=1, verbose=0, steps=1
        )
        calls.on_train_begin()
        calls.on_epoch_begin(0)
        self.solve(x)
        logs = {"loss": self.evaluate(x, verbose=0)}
        if validation_data is not None:
            logs["val_loss"] = self.evaluate(validation_data, verbose=0)
        calls.on_epoch_end(0, logs)
        calls.on_train_end(logs)
        return self.history


def build(spec, learning_rate, units):
    """Returns the model; `fit` solves it and `learning_rate` is not used.

        code           = (row - m) A         (B, units)
        reconstruction = m + code A^T        (B, V), not held within [0, 1]

    `m` is the mean of the training rows and `A` their first principal axes. Of all linear
    codes of this size theirs has the least squared error on these rows: the sum of the
    eigenvalues that are left out.

    Args:
        spec: contents of `spec.json`.
        learning_rate: not used.
        units: int, size of the code.

    Raises:
        ValueError: if a row has fewer pixels.
    """
    if units > spec["visible"]:
        raise ValueError(
            f"`units` must be at most {spec['visible']}, the pixels of a row."
            f" Received: {units}"
        )
    row = inputs(spec)
    code = keras.layers.Dense(units, name="code")(row)
    again = keras.layers.Dense(spec["visible"], name="visible")(code)
    model = PrincipalComponents(row, again, name="pca")
    model.compile(loss=keras.losses.MeanSquaredError())
    return model
