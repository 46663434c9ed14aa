"""SinusoidalPositions: adds waves that tell the position of each step."""

import keras
import numpy as np
from keras import ops

from engram.layers.attention.multi_head import check_positive
from engram.layers.attention.positions import rows

PERIOD = 10_000  # of the longest wave, in steps over 2 pi


@keras.saving.register_keras_serializable(package="engram")
class SinusoidalPositions(keras.layers.Layer):
    """Adds sines and cosines of its position to each step: `y_t = x_t + PE(t)`.

        PE(t, 2i)     = sin(t / 10000^(2i / F))
        PE(t, 2i + 1) = cos(t / 10000^(2i / F))

    Args:
        longest: int, how many positions there are; they are then computed once, in
            float64. None: there is no limit, they are computed at each call, in float32,
            and wrong by about 1e-7 times the position.

    Call arguments:
        x: float tensor `(B, T, F)`, `F` even.
        start: int or int tensor without axes, the position of the first step: 0, or where
            a sequence goes on.

    Returns:
        `y` `(B, T, F)`.

    Raises:
        ValueError: if `longest` is not a positive integer, `F` is odd, or it is known
            that `x` has more steps than there are positions.

    Masking: the mask is passed on; steps that do not count are counted as positions.

    Reference:
        - Vaswani et al. 2017, Attention is all you need, section 3.5,
          https://arxiv.org/abs/1706.03762
    """

    def __init__(self, longest=None, **kwargs):
        super().__init__(**kwargs)
        if longest is not None:
            check_positive("longest", longest)
        self.longest = longest
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, x_shape):
        features = x_shape[-1]
        if features % 2:
            raise ValueError(
                f"`x` must have an even number of features. Received: {features}"
            )
        self.rates = PERIOD ** -(np.arange(0, features, 2) / features)  # (F / 2,)
        self.table = None
        if self.longest is not None:
            angles = np.arange(self.longest)[:, None] * self.rates
            waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
            self.table = waves.reshape(self.longest, features)

    def call(self, x, start=0):
        if self.table is not None:
            return x + rows(ops.cast(self.table, self.compute_dtype), x, start)
        wide = "float64" if self.compute_dtype == "float64" else "float32"
        steps = ops.cast(start, wide) + ops.arange(ops.shape(x)[1], dtype=wide)  # (T,)
        angles = steps[:, None] * ops.cast(self.rates, wide)
        waves = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)  # (T, F / 2, 2)
        return x + ops.cast(ops.reshape(waves, (-1, x.shape[-1])), x.dtype)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "longest": self.longest}
