"""ParallelSTLM: a short and a long memory whose gates see the input alone."""

import functools

import keras
from keras import ops

from engram.layers.stlm import memories, xla
from engram.layers.stlm.linear_recurrence import linear_recurrence
from engram.layers.stlm.recurrent import checked_mask


@keras.saving.register_keras_serializable(package="engram")
class ParallelSTLM(keras.layers.Layer):
    """A short and a long memory, linear in time: fast on long sequences.

    Another layer than `STLM`: its gates read `x_t` and not `h_{t-1}`, so each memory is a
    linear recurrence, which needs no product per step and can be solved in parallel:

        g                        = tanh(x W_g + b_g)
        i_s, i_l, f_s, f_l, o    = sigmoid(x W_k + b_k), each k its own
        C_s                      = f_s * C_s + i_s * g
        C_l                      = f_l * C_l + i_l * g
        h                        = as in `STLM`, by `combine` and `output_gates`

    What that gives up: the layer cannot decide from what it remembers whether to write,
    keep or forget, so one layer alone cannot count to a limit, match brackets or follow
    any state whose next value depends on the present one. Stacked layers win some of it
    back. Where the input says by itself what matters, little is lost.

    Args:
        units: int, size `U` of each memory. The output has `2U` features with `concat`,
            else `U`.
        combine: `"concat"`, `"sum"` or `"weighted"`, how the memories meet in `h`.
        output_gates: `"shared"` or `"separate"`.
        short_horizon: float, at least 1, in steps: longest time scale of `C_s` at the
            start.
        long_horizon: float, at least 1, in steps: longest time scale of `C_l`.
        use_bias: bool. Without a bias the horizons have no effect.
        kernel_initializer: initializer of `kernel` `(F, 6U)`, or `7U` columns.
        bias_initializer: initializer of the candidate's and the output gates' biases.
        kernel_regularizer: regularizer of `kernel`.
        bias_regularizer: regularizer of `bias`.
        kernel_constraint: constraint of `kernel`.
        bias_constraint: constraint of `bias`.
        seed: int or None, seed of the time scales.
        return_sequences: bool, whether to return the output of every step.
        return_state: bool, whether to return `C_s` and `C_l` after the last step.
        go_backwards: bool, whether to read the last step first.

    Call arguments:
        sequences: float tensor `(B, T, F)`.
        initial_state: list `[C_s, C_l]` of float tensors `(B, U)`; zeros if None.
        mask: bool tensor `(B, T)`, false at steps to leave out.

    Returns:
        `(B, W)`, or `(B, T, W)` with `return_sequences`, `W` being `2U` or `U`; with
        `return_state` followed by `C_s` and `C_l`.

    Raises:
        ValueError: if an argument or the number of states is wrong.

    Masking: a masked step leaves the memories alone and outputs 0; the last output is
    that of the last step that counts. With `return_sequences` the mask is passed on.

    Precision: under a mixed policy the product is computed in half precision, gates and
    memories in float32.

    References:
        - Bradbury et al. 2017, Quasi-recurrent neural networks: gates of the input alone.
        - Martin & Cundy 2018, Parallelizing linear recurrent neural nets over sequence
          length: the scan and its gradient.
        - Tallec & Ollivier 2018, Can recurrent neural networks warp time?, section 2.2.
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
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        seed=None,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # states keep their own dtype
        memories.check(units, combine, output_gates, short_horizon, long_horizon)
        self.units = int(units)
        self.combine = combine
        self.output_gates = output_gates
        self.short_horizon = short_horizon
        self.long_horizon = long_horizon
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.seed = seed
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = False  # asked for by `Bidirectional`
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)
        # Drawn here: a layer may be built while it is traced (JAX).
        self._time_scales = memories.TimeScales(
            short_horizon, long_horizon, output_gates, self.bias_initializer, seed
        )

    def build(self, sequences_shape, initial_state_shape=None):
        columns = memories.count_blocks(self.output_gates) * self.units
        self.kernel = self.add_weight(
            shape=(sequences_shape[-1], columns),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            autocast=False,
            name="kernel",
        )
        self.bias = self.mix = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(columns,),
                initializer=self._time_scales,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                autocast=False,
                name="bias",
            )
        if self.combine == "weighted":
            self.mix = self.add_weight(
                shape=(self.units,), initializer="zeros", autocast=False, name="mix"
            )

    def call(self, sequences, initial_state=None, mask=None):
        memory = memories.memory_dtype(self.compute_dtype)
        first = self._first_states(sequences, initial_state, memory)
        kernel, bias, mix = (
            None if weight is None else weight.value
            for weight in (self.kernel, self.bias, self.mix)
        )
        x = ops.transpose(ops.cast(sequences, self.compute_dtype), (1, 0, 2))  # (T, B, F)
        mask = checked_mask(sequences, mask)
        if mask is not None:
            mask = ops.cast(ops.expand_dims(ops.transpose(mask), -1), memory)  # (T, B, 1)
        if self.go_backwards:
            x = ops.flip(x, 0)
            mask = None if mask is None else ops.flip(mask, 0)
        run = _compiled() if xla.may_compile(sequences) else _all_steps
        form = {"combine": self.combine, "output_gates": self.output_gates}
        hs, c = run(x, first, mask, kernel, bias, mix, **form)
        last = self._last(hs, mask)
        output = ops.transpose(hs, (1, 0, 2)) if self.return_sequences else last
        output = ops.cast(output, self.compute_dtype)
        return (output, *ops.split(c[-1], 2, axis=-1)) if self.return_state else output

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        batch, steps, _ = sequences_shape
        width = memories.output_width(self.units, self.combine)
        output = (batch, steps, width) if self.return_sequences else (batch, width)
        state = (batch, self.units)
        return (output, state, state) if self.return_state else output

    def compute_mask(self, sequences, mask=None):
        mask = mask if self.return_sequences else None
        return (mask, None, None) if self.return_state else mask

    def get_initial_state(self, batch_size):
        """Returns `[C_s, C_l]` of zeros, float32 under a mixed policy."""
        dtype = memories.memory_dtype(self.compute_dtype)
        return [ops.zeros((batch_size, self.units), dtype=dtype) for _ in range(2)]

    def _first_states(self, sequences, initial_state, dtype):
        """Returns `[C_s, C_l]` before the first step as one tensor `(B, 2U)`."""
        if initial_state is None:
            initial_state = self.get_initial_state(ops.shape(sequences)[0])
        count = len(initial_state) if isinstance(initial_state, (list, tuple)) else 1
        if count != 2:
            raise ValueError(
                "`initial_state` must be the two memories [C_s, C_l]."
                f" Received: {count} state(s)"
            )
        return ops.concatenate([ops.cast(one, dtype) for one in initial_state], axis=-1)

    def _last(self, hs, mask):
        """Returns the output `(B, W)` of the last step that counts, or 0."""
        if mask is None:
            return hs[-1]
        steps = ops.cumsum(ops.ones_like(mask), 0) * mask  # 1, 2, ... where it counts
        chosen = ops.equal(steps, ops.max(steps, 0)) & (mask > 0)  # (T, B, 1)
        return ops.sum(ops.where(chosen, hs, ops.zeros_like(hs)), 0)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "combine": self.combine,
            "output_gates": self.output_gates,
            "short_horizon": self.short_horizon,
            "long_horizon": self.long_horizon,
            "use_bias": self.use_bias,
            **{
                f"{name}_{kind}": module.serialize(getattr(self, f"{name}_{kind}"))
                for kind, module in (
                    ("initializer", keras.initializers),
                    ("regularizer", keras.regularizers),
                    ("constraint", keras.constraints),
                )
                for name in ("kernel", "bias")
            },
            "seed": self.seed,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
        }


def _all_steps(x, first, mask, kernel, bias, mix, combine, output_gates):
    """Returns the outputs `(T, B, W)` and both memories `(T, B, 2U)` of all steps."""
    z = ops.cast(ops.matmul(x, ops.cast(kernel, x.dtype)), first.dtype)  # (T, B, 6U)
    z = z if bias is None else z + bias
    g, i, f, *o = _gates(z, first.shape[-1] // 2, output_gates)
    drive = i * ops.concatenate([g, g], axis=-1)  # (T, B, 2U)
    if mask is not None:
        f, drive = 1 - mask * (1 - f), mask * drive  # keeps all, writes nothing
    c = linear_recurrence(f, drive, first)  # (T, B, 2U)
    short, long = ops.split(c, 2, axis=-1)
    hs = memories.read(o, short, long, mix, combine)
    return hs if mask is None else hs * mask, c


def _gates(z, units, output_gates):
    """Returns `g` `(..., U)`, `i` and `f` of both `(..., 2U)`, and one or two `o`."""
    g, gates = ops.split(z, [units], axis=-1)
    ends = [2 * units, 4 * units, 5 * units][: memories.count_blocks(output_gates) - 4]
    return ops.tanh(g), *ops.split(ops.sigmoid(gates), ends, axis=-1)


@functools.cache
def _compiled():
    """Returns `_all_steps` as one XLA program and its gradient as another (TensorFlow).

    The second computes gates and memories anew: they are quicker made than kept.
    """
    import tensorflow as tf

    compile_ = functools.partial(tf.function, jit_compile=True, autograph=False)
    forward = compile_(_all_steps)

    @compile_
    def backward(tensors, mask, upstream, combine, output_gates):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            x, first, kernel, bias, mix = tensors
            found = _all_steps(x, first, mask, kernel, bias, mix, combine, output_gates)
        return tape.gradient(found, tensors, upstream, unconnected_gradients="zero")

    def run(x, first, mask, kernel, bias, mix, combine, output_gates):
        columns, units = kernel.shape[-1], first.shape[-1] // 2
        bias = tf.zeros(columns, first.dtype) if bias is None else bias
        mix = tf.zeros(units, first.dtype) if mix is None else mix

        @tf.custom_gradient
        def all_steps(*tensors):
            x, first, kernel, bias, mix = tensors
            found = forward(x, first, mask, kernel, bias, mix, combine, output_gates)

            def gradient(*upstream):
                return backward(tensors, mask, upstream, combine, output_gates)

            return found, gradient

        return all_steps(x, first, *map(tf.convert_to_tensor, (kernel, bias, mix)))

    return run
