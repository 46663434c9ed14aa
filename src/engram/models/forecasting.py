"""What all forecasters share: inputs, loss, and one body for every detector."""

import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="engram")
def squared_error(target, forecast):
    """Returns `(forecast - target)^2`, one number per reading `(B, P, N)`.

    Unreduced, so that `fit`'s sample weights `(B, P, N)` leave out missing readings.
    """
    return ops.square(forecast - target)


def inputs(spec: dict[str, Any]) -> dict[str, keras.KerasTensor]:
    """Returns the inputs `readings` `(B, T, N)` and `slot` `(B,)`."""
    shape = (spec["history"], len(spec["detectors"]))
    return {
        "readings": keras.Input(shape, name="readings"),
        "slot": keras.Input((), dtype="int32", name="slot"),
    }


def compile_forecaster(model: keras.Model, learning_rate) -> keras.Model:
    """Returns `model`, compiled with Adam on the squared error of known readings.

    The loss is their sum over the number of all readings, known or not: missing ones
    have no gradient.
    """
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=squared_error)
    return model


def shared_forecaster(
    body: Callable, spec: dict[str, Any], name: str, learning_rate
) -> keras.Model:
    """Returns a compiled model that reads every detector with the same weights.

    A detector's features at a step are its scaled reading and the time of day as a point
    on a circle, `F = 3`. The body reads them, and a dense layer predicts the change from
    the last reading:

        h = body([reading, sin(2 pi slot / day), cos(2 pi slot / day)])     (B N, U)
        forecast = last reading + h W + b                                   (B N, P)

    Args:
        body: layer or function from `(B N, T, 3)` to `(B N, U)`.
        spec: contents of `spec.json`.
        name: name of the model.
        learning_rate: float or schedule.
    """
    given = inputs(spec)
    steps, detectors = spec["history"], len(spec["detectors"])
    x = ops.transpose(given["readings"], (0, 2, 1))  # (B, N, T)
    last = ops.expand_dims(x[:, :, -1], -1)  # (B, N, 1)
    clock = _clock(given["slot"], steps, spec["slots_per_day"])  # (B, T, 2)
    clock = ops.repeat(ops.expand_dims(clock, 1), detectors, axis=1)  # (B, N, T, 2)
    x = ops.concatenate([ops.expand_dims(x, -1), clock], axis=-1)  # (B, N, T, 3)
    h = body(ops.reshape(x, (-1, steps, 3)))  # (B N, U)
    change = keras.layers.Dense(spec["horizon"], name="change")(h)  # (B N, P)
    change = ops.reshape(change, (-1, detectors, spec["horizon"]))
    forecast = ops.transpose(last + change, (0, 2, 1))  # (B, P, N)
    return compile_forecaster(keras.Model(given, forecast, name=name), learning_rate)


def recurrent(
    layer: Callable, spec: dict[str, Any], name: str, learning_rate
) -> keras.Model:
    """Returns a `shared_forecaster` around a layer over time, as `models.recurrent`."""
    body = layer(return_sequences=False)
    return shared_forecaster(body, spec, name, learning_rate)


def convolutional(
    layer: Callable, spec: dict[str, Any], name: str, learning_rate
) -> keras.Model:
    """Returns a `shared_forecaster` around a layer that sees all detectors at once.

    Detector `n` is the pixel at row `n // W`, column `n % W`. Its features are those of
    every forecaster, its reading and the time of day, and a 1 x 1 convolution K of
    the layer's last output predicts the change from its last reading:

        x_t = image of [reading, sin(2 pi slot / day), cos(2 pi slot / day)]   (H, W, 3)
        h = layer(x_1, ..., x_T)                                               (H, W, U)
        forecast = last reading + h K + b, pixel by pixel                      (H, W, P)

    Args:
        layer: function of `return_sequences`, a bool, to a layer from `(B, T, H, W, 3)`
            to `(B, H, W, U)` if it is false.
        spec: contents of `spec.json`.
        name: name of the model.
        learning_rate: float or schedule.

    Raises:
        ValueError: if the dataset has no grid.
    """
    height, width = _grid(spec, name)
    over_images = layer(return_sequences=False)

    def body(x):  # (B N, T, 3)
        steps, features = x.shape[1:]
        x = ops.reshape(x, (-1, height, width, steps, features))
        h = over_images(ops.transpose(x, (0, 3, 1, 2, 4)))  # (B, H, W, U)
        return ops.reshape(h, (-1, h.shape[-1]))  # (B N, U)

    return shared_forecaster(body, spec, name, learning_rate)


def _clock(slot, steps: int, day: int):
    """Returns the time of day of the `steps` intervals before `slot`, `(B, T, 2)`."""
    # of NumPy: tf2onnx would take a tensor of Keras for an input of the model
    before = np.arange(-steps, 0, dtype="float32")  # (T,)
    angle = (ops.cast(ops.expand_dims(slot, -1), "float32") + before) * (
        2 * math.pi / day
    )
    return ops.stack([ops.sin(angle), ops.cos(angle)], axis=-1)


def _grid(spec: dict[str, Any], name: str) -> tuple[int, int]:
    """Returns the rows and columns of the dataset's grid, for the model `name`.

    Raises:
        ValueError: if its layout is not `grid <rows> x <columns>`, a place a detector.
    """
    found = re.fullmatch(r"grid (\d+) x (\d+)", spec["layout"])
    height, width = map(int, found.groups()) if found else (0, 0)
    if height * width != len(spec["detectors"]):
        raise ValueError(
            f"model {name!r} needs detectors on a grid, which dataset"
            f" {spec['dataset']!r} does not have: expected the layout 'grid <rows> x"
            f" <columns>' for its {len(spec['detectors'])} detectors. Received:"
            f" {spec['layout']!r}"
        )
    return height, width


class ClosedForm(keras.Model):
    """A forecaster that is computed from the training part, not trained by gradients."""

    def solve(self, train, validation):
        """Sets the weights from batches of training and, or None, validation windows."""

    def fit(self, x=None, validation_data=None, callbacks=None, verbose="auto", **kwargs):
        """Solves once and reports losses as `keras.Model.fit` does after one epoch."""
        calls = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=self, epochs=1, verbose=0, steps=1
        )
        calls.on_train_begin()
        calls.on_epoch_begin(0)
        self.solve(x, validation_data)
        logs = {"loss": self.evaluate(x, verbose=0)}
        if validation_data is not None:
            logs["val_loss"] = self.evaluate(validation_data, verbose=0)
        calls.on_epoch_end(0, logs)
        calls.on_train_end(logs)
        return self.history
