"""One step of the convolutional STLM."""

import keras
from keras import ops

from engram.layers.stlm import memories
from engram.layers.stlm.stlm_cell import STLMCell


@keras.saving.register_keras_serializable(package="engram")
class ConvSTLMCell(STLMCell):
    """`STLMCell` with convolutions instead of matrix products, channels last.

    `ConvSTLM1D`, `ConvSTLM2D` and `ConvSTLM3D` have the equations and the arguments.

    Args:
        rank: int, spatial dimensions: 1, 2 or 3.
        filters: int, size `U` of each memory at each place.
        kernel_size: int or `rank` ints.
        strides: int or `rank` ints, of the input's convolution.
        padding: `"valid"` or `"same"`, of the input's convolution.
        dilation_rate: int or `rank` ints, of the input's convolution.
        **kwargs: arguments of `STLMCell` other than `units`.
    """

    def __init__(
        self,
        rank,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        dilation_rate=1,
        **kwargs,
    ):
        memories.check_size(filters, "filters")
        super().__init__(filters, **kwargs)
        if padding not in ("valid", "same"):
            raise ValueError(f"`padding` must be 'valid' or 'same'. Received: {padding}")
        self.rank = rank
        self.filters = self.units
        self.kernel_size = _for_each_axis(kernel_size, rank, "kernel_size")
        self.strides = _for_each_axis(strides, rank, "strides")
        self.padding = padding
        self.dilation_rate = _for_each_axis(dilation_rate, rank, "dilation_rate")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "`strides` above 1 cannot be combined with `dilation_rate` above 1."
                f" Received: strides={strides}, dilation_rate={dilation_rate}"
            )

    def kernel_shape(self, channels):
        return (*self.kernel_size, channels, self.blocks * self.units)

    def project(self, inputs):
        """Returns `x * W + b` `(..., 6U)`: inputs of one step, or of all at once."""
        z = ops.conv(
            *self._half(inputs, self.kernel),
            strides=self.strides,
            padding=self.padding,
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )
        z = self._whole(z)
        return z + self.bias if self.use_bias else z

    def recur(self, h):
        """Returns `h * R` `(B, ..., 6U)`, a convolution that keeps the places."""
        z = ops.conv(
            *self._half(h, self.recurrent_kernel),
            padding="same",
            data_format="channels_last",
        )
        return self._whole(z)

    def places(self, sizes):
        """Returns the spatial sizes of the states for inputs of these sizes."""
        found = []
        for size, kernel, stride, dilation in zip(
            sizes, self.kernel_size, self.strides, self.dilation_rate, strict=True
        ):
            reach = 0 if self.padding == "same" else dilation * (kernel - 1)
            if size is not None and size <= reach:
                raise ValueError(
                    f"`kernel_size` {self.kernel_size} with padding 'valid' does not fit"
                    f" into inputs of the sizes {tuple(sizes)}"
                )
            found.append(None if size is None else (size - reach - 1) // stride + 1)
        return tuple(found)

    def get_config(self):
        config = super().get_config()
        del config["units"]
        return {
            **config,
            "rank": self.rank,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
        }


def _for_each_axis(value, rank, name):
    """Returns `rank` positive ints."""
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank or not all(isinstance(v, int) and v > 0 for v in values):
        raise ValueError(
            f"`{name}` must be a positive int or {rank} of them. Received: {value}"
        )
    return values
