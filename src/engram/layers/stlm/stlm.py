"""STLM: a recurrent layer with a short and a long memory."""

import keras
from keras import ops
from keras.src import backend  # `rnn.py`'s own way to cuDNN

from engram.layers.stlm import xla
from engram.layers.stlm.recurrent import Recurrent, of_cell
from engram.layers.stlm.stlm_cell import STLMCell


@keras.saving.register_keras_serializable(package="engram")
class STLM(Recurrent):
    """Short and long memory over a sequence, wherever `keras.layers.LSTM` would stand.

    At each step (`STLMCell` has the equations):

        g                        = tanh(x W_g + h R_g + b_g)
        i_s, i_l, f_s, f_l, o    = sigmoid(x W_k + h R_k + b_k), each k its own
        C_s                      = f_s * C_s + i_s * g              the short memory
        C_l                      = f_l * C_l + i_l * g              the long memory
        h                        = [o * tanh(C_s), o * tanh(C_l)]   (`concat`)

    How it is computed is chosen when it is called, and changes no result beyond
    rounding: with `concat` on a GPU, cuDNN's LSTM with tied weights; on TensorFlow
    otherwise, where the number of steps is known and the call is traced (`fit`,
    `predict`, `tf.function`), one loop compiled by XLA (`scan.py`); else Keras' loop over
    `STLMCell`.

    Args:
        units: int, size `U` of each memory. The output has `2U` features with `concat`,
            else `U`.
        combine: `"concat"`, `"sum"` or `"weighted"`, how the memories meet in `h`.
        output_gates: `"shared"` or `"separate"`: one gate reads both, or each has its
            own.
        short_horizon: float, at least 1, in steps: the short memory's units start with
            time scales between 1 step and this one.
        long_horizon: float, at least 1, in steps; the same for the long memory. A good
            value is the distance over which things must be remembered.
        use_bias: bool. Without a bias the horizons have no effect.
        kernel_initializer: as in `STLMCell`.
        recurrent_initializer: as in `STLMCell`.
        bias_initializer: as in `STLMCell`.
        kernel_regularizer: as in `STLMCell`.
        recurrent_regularizer: as in `STLMCell`.
        bias_regularizer: as in `STLMCell`.
        kernel_constraint: as in `STLMCell`.
        recurrent_constraint: as in `STLMCell`.
        bias_constraint: as in `STLMCell`.
        dropout: as in `STLMCell`.
        recurrent_dropout: as in `STLMCell`; it costs no speed.
        seed: as in `STLMCell`.
        return_sequences: bool, whether to return the output of every step.
        return_state: bool, whether to return `h`, `C_s` and `C_l` after the last step.
        go_backwards: bool, whether to read the last step first.
        stateful: bool, whether a batch starts where the batch before it ended.
        unroll: bool, whether Keras unrolls its loop over the cell.
        fused: bool, whether cuDNN and the compiled loop may be chosen. False is for
            exports to a runtime without XLA, and for second-order gradients, which the
            compiled loop does not have.

    Call arguments:
        sequences: float tensor `(B, T, F)`.
        initial_state: list `[h, C_s, C_l]`, float tensors `(B, 2U or U)`, `(B, U)`,
            `(B, U)`; zeros if None.
        mask: bool tensor `(B, T)`, false at steps to leave out.
        training: bool, whether to drop anything.

    Returns:
        `(B, W)`, or `(B, T, W)` with `return_sequences`, `W` being `2U` or `U`; with
        `return_state` followed by `h`, `C_s`, `C_l`.

    Raises:
        ValueError: if an argument, the mask's shape or the number of states is wrong.

    Masking: a masked step leaves the states alone and repeats the output before it (0
        at the start). With `return_sequences` the mask is passed on.

    Precision: under a mixed policy products are computed in half precision, gates and
        memories in float32; the returned states are float32. cuDNN runs in float32.
    """

    def __init__(
        self,
        units,
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
        fused=True,
        **kwargs,
    ):
        cell = STLMCell(
            units,
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
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.fused = fused

    units = of_cell("units")

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Returns last output, outputs and last states, by the fastest way there is."""
        if self.fused and not self.unroll:
            if self.cell.combine == "concat":
                try:
                    return self._cudnn(sequences, initial_state, mask, training)
                except NotImplementedError:  # no GPU, or a call that cuDNN cannot take
                    pass
            if xla.may_compile(sequences):
                return self._scan(sequences, initial_state, mask, training)
        return super().inner_loop(sequences, initial_state, mask, training)

    def _cudnn(self, sequences, states, mask, training):
        """Runs cuDNN's LSTM of `2U` units with tied candidate and output gate.

        Raises:
            NotImplementedError: without a GPU, or for a call that cuDNN cannot take.
        """
        cell = self.cell
        if self.recurrent_dropout and training:
            raise NotImplementedError("cuDNN has no recurrent dropout")
        if mask is not None:
            raise NotImplementedError("cuDNN takes masks of some shapes only")
        if training and self.dropout:
            drop = cell.get_dropout_mask(sequences[:, 0])
            sequences = sequences * ops.expand_dims(drop, 1)
        if self.go_backwards:  # turned here: on JAX, Keras turns the outputs back
            sequences = ops.flip(sequences, 1)
        h, short, long = states
        kernel, recurrent_kernel, bias = (
            None if weight is None else _tied(weight, self.units, self.output_gates)
            for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)
        )
        last, outputs, (h, c) = backend.lstm(
            ops.cast(sequences, h.dtype),
            h,
            ops.concatenate([short, long], axis=-1),  # (B, 2U)
            mask,
            kernel=kernel,
            recurrent_kernel=recurrent_kernel,
            bias=bias,
            activation=keras.activations.tanh,
            recurrent_activation=keras.activations.sigmoid,
            return_sequences=self.return_sequences,
            go_backwards=False,
            unroll=self.unroll,
        )
        if backend.backend() == "tensorflow":
            self.supports_jit = False  # XLA has no cuDNN LSTM
        return last, outputs, [h, *ops.split(c, 2, axis=-1)]

    def _scan(self, sequences, states, mask, training):
        """Runs all steps in one compiled loop."""
        from engram.layers.stlm.scan import scan

        cell, recurrent_mask = self.cell, None
        if training and self.dropout:
            drop = cell.get_dropout_mask(sequences[:, 0])  # (B, F)
            sequences = sequences * ops.expand_dims(drop, 1)
        if training and self.recurrent_dropout:
            recurrent_mask = cell.get_recurrent_dropout_mask(states[0])  # (B, W)
        x = ops.transpose(sequences, (1, 0, 2))  # (T, B, F)
        if mask is not None:
            mask = ops.expand_dims(ops.transpose(mask), -1)  # (T, B, 1)
        if self.go_backwards:
            x = ops.flip(x, 0)
            mask = None if mask is None else ops.flip(mask, 0)
        hs, states = scan(
            cell, x, states, mask, recurrent_mask, self.return_sequences, bool(training)
        )
        last = states[0]  # (B, W)
        if mask is not None:
            # As Keras' loop has it: 0 before the first step that counts.
            read = ops.cast(mask, last.dtype)
            seen = read if self.zero_output_for_mask else ops.cumsum(read, 0) > 0
            seen = ops.cast(seen, last.dtype)  # (T, B, 1)
            last = last * seen[-1]
            hs = None if hs is None else hs * seen
        outputs = None if hs is None else ops.transpose(hs, (1, 0, 2))
        return last, outputs, states

    def get_config(self):
        return {**super().get_config(), "fused": self.fused}


def _tied(weight, units, output_gates):
    """Returns the blocks `g, i_s, i_l, f_s, f_l, o` as an LSTM's `i, f, g, o` of `2U`."""
    weight = ops.convert_to_tensor(weight)
    g, i, f, o = ops.split(weight, [units, 3 * units, 5 * units], axis=-1)
    g = ops.concatenate([g, g], axis=-1)
    if output_gates == "shared":
        o = ops.concatenate([o, o], axis=-1)
    return ops.concatenate([i, f, g, o], axis=-1)
