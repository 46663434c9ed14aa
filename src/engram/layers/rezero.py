"""ReZero: a number to multiply with, learned from zero on."""

import keras


@keras.saving.register_keras_serializable(package="engram")
class ReZero(keras.layers.Layer):
    """A branch of a residual net that starts closed.

        y = a x,    a learned, 0 at the start

    At first `h + ReZero(g(h))` is `h`, and its Jacobian the identity, however deep the
    net.

    Call arguments:
        x: float tensor of any shape.

    Returns:
        A tensor of that shape and dtype.

    Masking: the mask of `x` is passed on.

    Reference:
        - Bachlechner et al. 2020, ReZero is all you need, eq. 1, arXiv:2003.04887
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="zeros", name="scale")

    def call(self, x):
        return self.scale * x

    def compute_output_shape(self, shape):
        return shape
