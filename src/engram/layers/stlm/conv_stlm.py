"""ConvSTLM1D, ConvSTLM2D, ConvSTLM3D: a short and a long memory at every place."""

import keras
from keras import ops
from keras.src import backend  # `rnn`, Keras' loop over time

from engram.layers.stlm import memories
from engram.layers.stlm.conv_stlm_cell import ConvSTLMCell
from engram.layers.stlm.recurrent import Recurrent, of_cell

UNROLLED = 16  # steps; up to here a loop is slower than its steps one after the other


class ConvSTLM(Recurrent):
    """The layer of any rank; use `ConvSTLM1D`, `ConvSTLM2D` or `ConvSTLM3D`.

    At each step and place, `*` being a convolution (`STLM` has the rest):

        g                        = tanh(x * W_g + h * R_g + b_g)
        i_s, i_l, f_s, f_l, o    = sigmoid(x * W_k + h * R_k + b_k), each k its own
        C_s                      = f_s C_s + i_s g
        C_l                      = f_l C_l + i_l g
        h                        = [o tanh(C_s), o tanh(C_l)]       (`concat`)

    The inputs of all steps are convolved at once, before the loop. There is a convolution
    for the candidate, one for both input gates, one for both forget gates and one for the
    output gates: half as many as Keras' ConvLSTM runs.

    Args:
        rank: int, spatial dimensions.
        filters: int, size `U` of each memory at each place. The output has `2U` channels
            with `concat`, else `U`.
        kernel_size: int or `rank` ints, of both convolutions.
        strides: int or `rank` ints, of the inputs' convolution.
        padding: `"valid"` or `"same"`, of the inputs' convolution. The state's is `same`.
        data_format: `"channels_last"`, `"channels_first"` or None, Keras' setting.
        dilation_rate: int or `rank` ints, of the inputs' convolution.
        combine: as in `STLM`.
        output_gates: as in `STLM`.
        short_horizon: as in `STLM`, in steps.
        long_horizon: as in `STLM`, in steps.
        use_bias: as in `STLM`.
        kernel_initializer: initializer of `kernel`, `(*kernel_size, channels, 6U)`.
        recurrent_initializer: initializer of each block of `recurrent_kernel`.
        bias_initializer: as in `STLM`.
        kernel_regularizer: as in `STLM`.
        recurrent_regularizer: as in `STLM`.
        bias_regularizer: as in `STLM`.
        kernel_constraint: as in `STLM`.
        recurrent_constraint: as in `STLM`.
        bias_constraint: as in `STLM`.
        dropout: as in `STLM`; a mask over places and channels, the same at all steps.
        recurrent_dropout: as in `STLM`.
        seed: as in `STLM`.
        return_sequences: as in `STLM`.
        return_state: as in `STLM`.
        go_backwards: as in `STLM`.
        stateful: as in `STLM`.
        unroll: bool; up to 16 known steps are unrolled in any case.

    Call arguments:
        sequences: float tensor `(B, T, *places, channels)`, or with the channels before
            the places. The sizes of the places must be known.
        initial_state: list `[h, C_s, C_l]`, shaped as the outputs; zeros if None.
        mask: bool tensor `(B, T)`.
        training: bool.

    Returns:
        `(B, *places, W)`, or `(B, T, *places, W)` with `return_sequences`, `W` being `2U`
        or `U`; with `return_state` followed by `h`, `C_s`, `C_l`.

    Raises:
        ValueError: if an argument, the mask's shape or the states do not fit.

    Masking, precision: as in `STLM`.

    Reference:
        - Shi et al. 2015, Convolutional LSTM network: convolutions in place of products.
    """

    def __init__(
        self,
        rank,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        combine="concat",
        output_gates="shared",
        short_horizon=4.0,
        long_horizon=100.0,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        **kwargs,
    ):
        cell = ConvSTLMCell(
            rank,
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            dilation_rate=dilation_rate,
            combine=combine,
            output_gates=output_gates,
            short_horizon=short_horizon,
            long_horizon=long_horizon,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="cell",
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            autocast=False,  # states keep their own dtype
            **kwargs,
        )
        if data_format not in (None, "channels_last", "channels_first"):
            raise ValueError(
                "`data_format` must be 'channels_last', 'channels_first' or None."
                f" Received: {data_format}"
            )
        self.data_format = data_format or keras.config.image_data_format()
        self.input_spec = keras.layers.InputSpec(ndim=rank + 3)

    rank = of_cell("rank")
    filters = of_cell("filters")
    kernel_size = of_cell("kernel_size")
    strides = of_cell("strides")
    padding = of_cell("padding")
    dilation_rate = of_cell("dilation_rate")

    def build(self, sequences_shape, initial_state_shape=None):
        batch, steps, *sizes, channels = self._channels_last(sequences_shape)
        if None in sizes or channels is None:
            raise ValueError(
                "the sizes of places and channels must be known."
                f" Received: an input of the shape {tuple(sequences_shape)}"
            )
        self._places = self.cell.places(sizes)
        super().build((batch, steps, *sizes, channels))

    def call(self, sequences, initial_state=None, mask=None, training=False):
        sequences, initial_state = self._moved_in(sequences, initial_state)
        found = super().call(sequences, initial_state, mask, training)
        output, *states = found if self.return_state else (found,)
        output = self._moved_out(output, over_time=self.return_sequences)
        states = [self._moved_out(state) for state in states]
        return (output, *states) if self.return_state else output

    def memories(self, sequences, initial_state=None, mask=None):
        """Returns what both memories held after each step, each shaped as outputs are."""
        sequences = ops.convert_to_tensor(sequences)
        if not self.built:
            self.build(sequences.shape)
        sequences, initial_state = self._moved_in(sequences, initial_state)
        found = super().memories(sequences, initial_state, mask)
        return [self._moved_out(one, over_time=True) for one in found]

    def _moved_in(self, sequences, states):
        """Returns the inputs and states with channels last, as all is computed."""
        if self.data_format == "channels_first":
            sequences = ops.moveaxis(sequences, 2, -1)
            states = states and [ops.moveaxis(state, 1, -1) for state in states]
        return sequences, states

    def _moved_out(self, tensor, over_time=False):
        """Returns a tensor with the channels where `data_format` has them."""
        if self.data_format == "channels_first":
            return ops.moveaxis(tensor, -1, 2 if over_time else 1)
        return tensor

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Returns last output, outputs and last states: all inputs first, then steps."""
        cell, steps = self.cell, sequences.shape[1]
        drop = 1
        if training and self.dropout:
            mask_x = cell.get_dropout_mask(sequences[:, 0])  # (B, *places, channels)
            sequences = sequences * ops.expand_dims(mask_x, 1)
        h, short, long = initial_state
        if training and self.recurrent_dropout:
            drop = cell.get_recurrent_dropout_mask(h)
        frames = ops.reshape(sequences, (-1, *sequences.shape[2:]))  # (B T, ...)
        shape = ops.shape(sequences)
        projected = [  # (B, T, *places, U or 2U) each
            ops.reshape(z, (shape[0], shape[1], *z.shape[1:]))
            for z in cell.project(frames)
        ]
        kernels = cell.gates(cell.recurrent_kernel)
        packed = steps is None  # Keras' loop takes several inputs of known length only

        def step(z, states):
            z = cell.gates(z) if packed else z
            h, both = cell.step(z, states[0] * drop, states[1], kernels)
            return h, [h, both]

        last, outputs, (h, both) = backend.rnn(
            step,
            ops.concatenate(projected, axis=-1) if packed else projected,
            [h, ops.concatenate([short, long], axis=-1)],
            go_backwards=self.go_backwards,
            mask=mask,
            unroll=self.unroll or (steps is not None and steps <= UNROLLED),
            input_length=steps,
            zero_output_for_mask=self.zero_output_for_mask,
            return_all_outputs=self.return_sequences,
        )
        return last, outputs, [h, *ops.split(both, 2, axis=-1)]

    def get_initial_state(self, batch_size):
        """Returns `[h, C_s, C_l]` of zeros, channels last."""
        dtype = memories.memory_dtype(self.compute_dtype)
        return [
            ops.zeros((batch_size, *self._places, size), dtype=dtype)
            for size in self.cell.state_size
        ]

    def state_shapes(self, sequences_shape):
        """Returns the shapes of `h`, `C_s`, `C_l`, channels last."""
        batch, sizes = sequences_shape[0], self.cell.state_size
        return [(batch, *self._places, size) for size in sizes]

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        batch, steps, *sizes, _ = self._channels_last(sequences_shape)
        places = self.cell.places(sizes)
        shapes = [(*places, size) for size in self.cell.state_size]
        if self.data_format == "channels_first":
            shapes = [(size, *places) for *_, size in shapes]
        states = [(batch, *shape) for shape in shapes]
        output = (batch, steps, *shapes[0]) if self.return_sequences else states[0]
        return (output, *states) if self.return_state else output

    def _channels_last(self, shape):
        batch, steps, *rest = shape
        if self.data_format == "channels_first":
            rest = [*rest[1:], rest[0]]
        return (batch, steps, *rest)

    def get_config(self):
        return {**super().get_config(), "data_format": self.data_format}


@keras.saving.register_keras_serializable(package="engram")
class ConvSTLM1D(ConvSTLM):
    """A short and a long memory at every place of a line.

    `ConvSTLM` has the equations and all arguments.

    Args:
        filters: int, size of each memory at each place.
        kernel_size: int.
        **kwargs: as in `ConvSTLM`.

    Call arguments:
        sequences: float tensor `(B, T, length, channels)`.
    """

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(1, filters, kernel_size, **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["rank"]
        return config


@keras.saving.register_keras_serializable(package="engram")
class ConvSTLM2D(ConvSTLM):
    """A short and a long memory at every place of a picture.

    `ConvSTLM` has the equations and all arguments.

    Args:
        filters: int, size of each memory at each place.
        kernel_size: int or 2 ints.
        **kwargs: as in `ConvSTLM`.

    Call arguments:
        sequences: float tensor `(B, T, height, width, channels)`.
    """

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(2, filters, kernel_size, **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["rank"]
        return config


@keras.saving.register_keras_serializable(package="engram")
class ConvSTLM3D(ConvSTLM):
    """A short and a long memory at every place of a volume.

    `ConvSTLM` has the equations and all arguments.

    Args:
        filters: int, size of each memory at each place.
        kernel_size: int or 3 ints.
        **kwargs: as in `ConvSTLM`.

    Call arguments:
        sequences: float tensor `(B, T, depth, height, width, channels)`.
    """

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(3, filters, kernel_size, **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["rank"]
        return config
