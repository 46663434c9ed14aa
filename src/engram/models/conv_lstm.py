"""ConvLSTM: an LSTM at every place of an image, its maps convolutions."""

import keras

from engram.models import video


def build(spec, learning_rate, filters, kernel_size):
    """Returns the compiled model of next frames around one layer.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        filters: int, features `F` of the memory at each place.
        kernel_size: int, places that a convolution reaches over, on each side.
    """
    body = keras.layers.ConvLSTM2D(
        filters, kernel_size, padding="same", return_sequences=True
    )
    return video.next_frame(body, spec, "conv_lstm", learning_rate)
