"""ConvSTLM: a short and a long memory at every place of an image."""

import functools

from engram import models
from engram.layers.stlm.conv_stlm import ConvSTLM2D


def build(
    spec, learning_rate, filters, kernel_size, combine, short_horizon, long_horizon
):
    """Returns the compiled model of the spec's task around one layer.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        filters: int, features of each memory at each place.
        kernel_size: int, places that a convolution reaches over, on each side.
        combine: `"concat"`, `"sum"` or `"weighted"`.
        short_horizon: float, steps that the slowest unit of the short memory keeps a
            value for at the start of training.
        long_horizon: float, the same of the long memory.
    """
    layer = functools.partial(
        ConvSTLM2D,
        filters,
        kernel_size,
        combine=combine,
        short_horizon=short_horizon,
        long_horizon=long_horizon,
        padding="same",
    )
    return models.convolutional(layer, spec, "conv_stlm", learning_rate)
