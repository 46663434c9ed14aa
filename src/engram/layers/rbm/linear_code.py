"""Linear units on top of a stack of RBMs, in closed form."""

import numbers

import keras
import numpy as np
from keras import ops

from engram.layers.rbm.rbm import check_rows

INSIDE = 1e-4  # how far from 0 and 1 rows are kept, so that their logits are numbers


@keras.saving.register_keras_serializable(package="engram")
class LinearCode(keras.layers.Layer):
    """The first principal axes of rows in [0, 1], and a sigmoid that leads back.

    With the mean `m` of the rows and their principal axes `A`, largest variance first,

        code = (v - m) A
        v'   = sigmoid(b + code B)

    where `b` is the mean of `logit(v)` and `B` its least squares on the code,

        B = diag(1 / variance of the code) cov(code, logit(v)).

    `v'` follows the logits of rows kept within [1e-4, 1 - 1e-4] and is no conditional
    mean.

    `adapt` sets the weights from rows; `fit` leaves them alone.

    Args:
        units: int, size `L` of the code. Must be positive.

    Call arguments:
        inputs: float tensor `(B, V)`.

    Returns:
        The code, float tensor `(B, L)`.

    Raises:
        ValueError: if `units` is no positive integer.

    Masking: none.

    References:
        - Pearson 1901, On lines and planes of closest fit to systems of points in space:
          the axes.
        - Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural
          networks: linear units on a stack, there learned by contrastive divergence.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(units, numbers.Integral) or units < 1:
            raise ValueError(f"`units` must be a positive integer. Received: {units}")
        self.units = int(units)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape):
        width = input_shape[-1]
        for name, shape in (
            ("mean", (width,)),
            ("axes", (width, self.units)),
            ("back", (self.units, width)),
            ("back_bias", (width,)),
        ):
            weight = self.add_weight(
                shape=shape, initializer="zeros", trainable=False, name=name
            )
            setattr(self, name, weight)
        self.input_spec = keras.layers.InputSpec(ndim=2, axes={-1: width})

    def call(self, inputs):
        return ops.matmul(inputs - self.mean, self.axes)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def visible_mean(self, code):
        """Returns `v'` `(B, V)`; the name is that of the way back in an `RBM`."""
        code = ops.cast(code, self.variable_dtype)
        return ops.sigmoid(self.back_bias + ops.matmul(code, self.back))

    def adapt(self, rows):
        """Sets the weights from rows `(B, V)` in [0, 1].

        Raises:
            ValueError: if they are no such rows (`check_rows`), or have fewer columns
                than the code has units.
        """
        width = self.axes.shape[0] if self.built else None
        rows = check_rows(rows, "bernoulli", self.variable_dtype, width)
        if rows.shape[1] < self.units:
            raise ValueError(
                f"`rows` must have at least {self.units} columns, one for each unit of"
                f" the code. Received: {rows.shape[1]}"
            )
        if not self.built:
            self.build(rows.shape)
        rows = ops.convert_to_numpy(rows).astype(np.float64)
        mean, axes = principal_axes(rows, self.units)
        inner = rows.clip(INSIDE, 1 - INSIDE)
        logits = np.log(inner) - np.log1p(-inner)
        back, *_ = np.linalg.lstsq((rows - mean) @ axes, logits - logits.mean(axis=0))
        for weight, value in (
            (self.mean, mean),
            (self.axes, axes),
            (self.back, back),
            (self.back_bias, logits.mean(axis=0)),
        ):
            weight.assign(value)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def principal_axes(rows, count):
    """Returns mean `(V,)` and first principal axes `(V, count)` of rows, in float64.

    The axes are eigenvectors of the rows' covariance, largest eigenvalue first, of length
    one; each points where its largest entry is positive.

    Args:
        rows: float array `(N, V)`.
        count: int, how many axes, at most `V`.
    """
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - mean
    _, vectors = np.linalg.eigh(centred.T @ centred / len(rows))  # smallest first
    axes = vectors[:, ::-1][:, :count]
    largest = np.abs(axes).argmax(axis=0)
    return mean, axes * np.sign(axes[largest, np.arange(count)])
