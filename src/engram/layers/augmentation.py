"""Augmentation: images that look a little different at every step of training."""

import keras


@keras.saving.register_keras_serializable(package="engram")
class Augmentation(keras.layers.Layer):
    """Mirrors and moves each image at random, in training alone.

        in training   left and right change places with a chance of one half, if `flip`;
                      moved by up to `shift` of its height and width, what comes in is 0
        else          y = x

    Keras' own layers of this kind also change images where nobody says whether it is
    training, as in `model(x)`; this one does not.

    Args:
        flip: bool, whether images are mirrored.
        shift: float in [0, 1), largest move as a share of height and width.
        seed: int or None, of the random numbers.
        **kwargs: of a Keras layer.

    Call arguments:
        x: float tensor `(B, H, W, F)`.
        training: bool or None.

    Returns:
        A tensor of that shape and dtype.
    """

    def __init__(self, flip: bool, shift: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.flip, self.shift, self.seed = flip, shift, seed
        dtype = self.dtype_policy
        self.mirrored = keras.layers.RandomFlip("horizontal", seed=seed, dtype=dtype)
        self.moved = keras.layers.RandomTranslation(
            shift,
            shift,
            fill_mode="constant",
            interpolation="nearest",
            seed=seed,
            dtype=dtype,
        )

    def build(self, shape):
        self.mirrored.build(shape)
        self.moved.build(shape)

    def call(self, x, training=None):
        if not training:
            return x
        if self.flip:
            x = self.mirrored(x, training=True)
        return self.moved(x, training=True) if self.shift else x

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        own = {"flip": self.flip, "shift": self.shift, "seed": self.seed}
        return {**super().get_config(), **own}
