"""Ridge regression: a linear map of its own for every detector."""

import keras
import numpy as np
from keras import ops

from engram.models.forecasting import ClosedForm, compile_forecaster, inputs


@keras.saving.register_keras_serializable(package="engram")
class Ridge(ClosedForm):
    """`forecast = readings W_n + b_n`, with `|W_n|^2` held small, for each detector `n`.

    The penalty is chosen per detector on the validation part among `alphas`.
    """

    alphas: list[float] = [1.0]

    def solve(self, train, validation):
        """Sets each detector's kernel and bias from the training windows."""
        linear = self.get_layer("linear")
        seen = _windows(train)
        if validation is None and len(self.alphas) > 1:
            raise ValueError(
                "without validation rows there is nothing to choose `alpha` on: give one."
                f" Received: {self.alphas}"
            )
        held = seen if validation is None else _windows(validation)
        kernel, bias = np.zeros(linear.kernel.shape), np.zeros(linear.bias.shape)
        for n in range(len(kernel)):
            fits = [_solve(seen, n, alpha) for alpha in self.alphas]
            best = min(fits, key=lambda fit: _error(held, n, fit))
            kernel[n], bias[n] = best.coef_.T, best.intercept_
        linear.kernel.assign(kernel)
        linear.bias.assign(bias)


@keras.saving.register_keras_serializable(package="engram")
class LinearPerDetector(keras.layers.Layer):
    """`y[:, :, n] = x[:, :, n] kernel[n] + bias[n]`.

    Args:
        steps: int, steps predicted, `P`.

    Call arguments:
        inputs: float tensor `(B, T, N)`.

    Returns:
        Float tensor `(B, P, N)`.
    """

    def __init__(self, steps, **kwargs):
        super().__init__(**kwargs)
        self.steps = steps

    def build(self, input_shape):
        _, history, detectors = input_shape
        self.kernel = self.add_weight(shape=(detectors, history, self.steps))
        self.bias = self.add_weight(shape=(detectors, self.steps), initializer="zeros")

    def call(self, inputs):
        forecast = ops.einsum("btn,ntp->bpn", inputs, self.kernel)
        return forecast + ops.transpose(self.bias)

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


def build(spec, learning_rate, alpha):
    """Returns the model; `fit` solves it and `learning_rate` is not used.

    Args:
        spec: contents of `spec.json`.
        learning_rate: not used.
        alpha: list of penalties `alpha |W|^2` to choose from on validation.
    """
    given = inputs(spec)
    linear = LinearPerDetector(spec["horizon"], name="linear")
    model = Ridge(given, linear(given["readings"]))
    model.alphas = alpha
    return compile_forecaster(model, learning_rate)


def _windows(data):
    """Returns readings `(B, T, N)`, target and weight `(B, P, N)` of all batches."""
    rows = [(given["readings"], target, weight) for given, target, weight in data]
    return [
        np.concatenate(arrays).astype(np.float64) for arrays in zip(*rows, strict=True)
    ]


def _solve(seen, n, alpha):
    """Returns the fit of detector `n` to its windows without a missing target."""
    from sklearn.linear_model import Ridge as RidgeRegression  # to train alone

    readings, target, weight = (array[:, :, n] for array in seen)
    whole = weight.all(axis=1)
    return RidgeRegression(alpha=alpha).fit(readings[whole], target[whole])


def _error(held, n, fit):
    readings, target, weight = (array[:, :, n] for array in held)
    return (weight * (fit.predict(readings) - target) ** 2).sum()
