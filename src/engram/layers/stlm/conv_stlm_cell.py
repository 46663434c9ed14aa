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

    def advance(self, projected, states, training=False):
        """Returns what `call` does, from inputs that are projected already."""
        h, short, long = states
        if training and self.recurrent_dropout:
            h = h * self.get_recurrent_dropout_mask(h)
        both = ops.concatenate([short, long], axis=-1)
        h, both = self.step(projected, h, both, self.gates(self.recurrent_kernel))
        return ops.cast(h, self.compute_dtype), [h, *ops.split(both, 2, axis=-1)]

    def step(self, projected, h, both, kernels):
        """Returns `h` and both memories `[C_s, C_l]` `(B, ..., 2U)` after one step.

        Args:
            projected: what the inputs say to `g`, `i`, `f`, `o`.
            h: the output before, dropped or not.
            both: the memories before.
            kernels: of `h`, for `g`, `i`, `f`, `o`.
        """
        g, i, f, o = (
            z + self._convolve(h, kernel, padding="same")
            for z, kernel in zip(projected, kernels, strict=True)
        )
        g, i, f, o = ops.tanh(g), ops.sigmoid(i), ops.sigmoid(f), ops.sigmoid(o)
        both = f * both + i * ops.concatenate([g, g], axis=-1)
        return self._read(o, both), both

    def project(self, inputs):
        """Returns `x * W + b` for `g`, `i`, `f`, `o`: inputs of a step, or of all."""
        bias = self.gates(self.bias) if self.use_bias else [0] * 4
        return [
            self._convolve(
                inputs,
                kernel,
                strides=self.strides,
                padding=self.padding,
                dilation_rate=self.dilation_rate,
            )
            + b
            for kernel, b in zip(self.gates(self.kernel), bias, strict=True)
        ]

    def gates(self, weight):
        """Returns the columns of a weight for `g`, for `i`, `f` of both memories, `o`.

        On a CPU a convolution for each is faster than one for all, whose result must be
        cut along its last axis.
        """
        ends = [self.units, 3 * self.units, 5 * self.units]
        return ops.split(ops.convert_to_tensor(weight), ends, axis=-1)

    def _convolve(self, x, kernel, **how):
        product = ops.conv(*self._half(x, kernel), data_format="channels_last", **how)
        return self._whole(product)

    def _read(self, o, both):
        """Returns `h`: what the output gates let through of both memories."""
        o = ops.split(o, 2, axis=-1) if self.output_gates == "separate" else [o]
        if self.combine == "concat":
            return ops.concatenate([o[0], o[-1]], axis=-1) * ops.tanh(both)
        short, long = ops.split(both, 2, axis=-1)
        return memories.read(o, short, long, self.mix, self.combine)

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
