"""The textbook's convolutional net: filters that slide, pooling, then dense layers."""

import keras

from engram.layers.augmentation import Augmentation
from engram.models import classification


def build(
    spec, learning_rate, filters, kernel_size, units, flip, shift, dropout, optimizer
):
    """Returns a compiled classifier of images.

        h_0 = image, mirrored and moved at random in training    (B, H, W, F)
        z_n = relu(h_{n-1} * K_n + b_n)       everywhere the same filters
        h_n = max of z_n over 2 x 2 pixels    (B, H / 2^n, W / 2^n, filters[n-1])
        u   = relu(flat h W + b)              (B, units), in part left out in training

    There are zeros around images, so that a convolution keeps the size; pooling halves
    it, rounded up. Weights start as He et al. 2015 have them, those of the logits as
    Glorot and Bengio 2010.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        filters: list of ints, of each convolution `convolution_n`.
        kernel_size: int, height and width of a filter.
        units: int, of the dense layer.
        flip: bool, whether half the images are mirrored in training.
        shift: float, at most which share of height and width an image is moved by in
            training; what comes in is 0.
        dropout: share in [0, 1) of its outputs that a step of training leaves out.
        optimizer: `"sgd"`, with a momentum of 0.9, or `"adam"`.

    References:
        - LeCun et al. 1998, Gradient-based learning applied to document recognition,
          section II, without its trained pooling.
    """
    images = h = classification.inputs(spec)
    if flip or shift:
        h = Augmentation(flip, shift, name="augmented")(h)
    for n, count in enumerate(filters, start=1):
        h = keras.layers.Conv2D(
            count,
            kernel_size,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"convolution_{n}",
        )(h)
        h = keras.layers.MaxPooling2D(padding="same", name=f"pooling_{n}")(h)
    h = keras.layers.Flatten(name="flat")(h)
    h = keras.layers.Dense(
        units, activation="relu", kernel_initializer="he_normal", name="dense"
    )(h)
    h = keras.layers.Dropout(dropout, name="dropout")(h)
    how = classification.optimizer(optimizer, learning_rate)
    return classification.classifier(images, h, spec, "cnn", how)
