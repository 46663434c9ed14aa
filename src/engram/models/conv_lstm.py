"""ConvLSTM: an LSTM at every place of an image, its maps convolutions."""

import functools

import keras

from engram import models


def build(spec, learning_rate, filters, kernel_size):
    """Returns the compiled model of the spec's task around one layer.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        filters: int, features `F` of the memory at each place.
        kernel_size: int, places that a convolution reaches over, on each side.
    """
    layer = functools.partial(
        keras.layers.ConvLSTM2D, filters, kernel_size, padding="same"
    )
    return models.convolutional(layer, spec, "conv_lstm", learning_rate)
