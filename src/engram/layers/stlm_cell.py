"""STLM: a recurrent cell with a short and a long memory."""

import keras
from keras import ops

COMBINATIONS = ("concat", "sum", "weighted")


@keras.saving.register_keras_serializable(package="engram")
class STLMCell(keras.layers.Layer):
    """One step of the short and long memory.

    One candidate `g` is written into two memories. Each memory has an input and a
    forget gate of its own, so that they can live on different time scales; one output
    gate reads both:

        g                        = tanh(x W_g + h R_g + b_g)
        i_s, f_s, i_l, f_l, o    = sigmoid(x W_k + h R_k + b_k), each k its own
        C_s                      = f_s * C_s + i_s * g
        C_l                      = f_l * C_l + i_l * g
        concat:    h             = [o * tanh(C_s), o * tanh(C_l)]          (B, 2U)
        sum:       h             = o * tanh(C_s + C_l)                     (B, U)
        weighted:  h             = o * tanh(a * C_s + (1 - a) * C_l)       (B, U)
                   a             = sigmoid(mix), one learned number per unit

    The six blocks of `kernel`, `recurrent_kernel` and `bias` stand in the order
    `g, i_s, f_s, i_l, f_l, o`. With `concat` the cell is an LSTM of `2U` units whose
    two halves share candidate and output gate: three quarters of its parameters.

    Use it as `keras.layers.RNN(STLMCell(units))`.

    Args:
        units: int, size `U` of each memory. Must be positive.
        combine: `"concat"`, `"sum"` or `"weighted"`, how the memories meet in `h`.
        long_horizon: float above 2, in steps. The long memory's forget biases start
            at `log(t - 1)` with `t` uniform in `[2, long_horizon]`, so that a unit
            keeps a value for about `t` steps, and its input biases at the negative
            of that (chrono initialisation). The short memory's forget bias starts
            at 1, a time constant of about 3.7 steps. All other biases start at 0.
        kernel_initializer: initializer of `kernel` `(F, 6U)`.
        recurrent_initializer: initializer of each block of `recurrent_kernel`
            `(2U or U, 6U)`.
        seed: int or None, seed of the horizons drawn for the long memory.

    Call arguments:
        inputs: float tensor `(B, F)`, the features of one step.
        states: list `[h, C_s, C_l]` of float tensors `(B, 2U or U)`, `(B, U)`,
            `(B, U)`.

    Returns:
        Output `h` and the new `[h, C_s, C_l]`, shaped as the states.

    Raises:
        ValueError: if `units < 1`, `combine` is unknown or `long_horizon <= 2`.

    Masking: none; `keras.layers.RNN` carries the states over masked steps.

    Precision: `keras.layers.RNN` keeps states in the cell's compute dtype, and half
    precision rounds away what a long memory adds. Under a mixed policy give the cell
    `dtype="float32"`; inputs and outputs of the layer stay in the policy's dtype.

    References:
        - Hochreiter & Schmidhuber 1997, Long short-term memory: the gates of one
          memory.
        - Tallec & Ollivier 2018, Can recurrent neural networks warp time?, section
          2.2: chrono initialisation.
    """

    def __init__(
        self,
        units,
        combine="concat",
        long_horizon=100.0,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"`units` must be positive. Received: {units}")
        if combine not in COMBINATIONS:
            raise ValueError(
                f"`combine` must be one of {COMBINATIONS}. Received: {combine}"
            )
        if long_horizon <= 2:
            raise ValueError(f"`long_horizon` must be above 2. Received: {long_horizon}")
        self.units = units
        self.combine = combine
        self.long_horizon = long_horizon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.seed = seed
        # An initializer holds its seed: `build` may be traced (JAX), where an unseeded
        # draw is an error.
        self._horizons = keras.initializers.RandomUniform(2.0, long_horizon, seed=seed)
        self.output_size = 2 * units if combine == "concat" else units
        self.state_size = [self.output_size, units, units]

    def build(self, input_shape):
        blocks = 6 * self.units
        self.kernel = self.add_weight(
            shape=(input_shape[-1], blocks),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.output_size, blocks),
            initializer=self._initial_recurrent_kernel,
            name="recurrent_kernel",
        )
        self.bias = self.add_weight(
            shape=(blocks,), initializer=self._initial_bias, name="bias"
        )
        if self.combine == "weighted":
            self.mix = self.add_weight(
                shape=(self.units,), initializer="zeros", name="mix"
            )

    def call(self, inputs, states):
        h, short, long = states
        z = ops.matmul(inputs, self.kernel)  # (B, 6U)
        z = z + ops.matmul(h, self.recurrent_kernel) + self.bias
        g, gates = ops.split(z, [self.units], axis=-1)  # (B, U), (B, 5U)
        g = ops.tanh(g)
        i_s, f_s, i_l, f_l, o = ops.split(ops.sigmoid(gates), 5, axis=-1)  # (B, U) each
        short = f_s * short + i_s * g
        long = f_l * long + i_l * g
        h = self._read(o, short, long)
        return h, [h, short, long]

    def get_initial_state(self, batch_size=None):
        """Returns `[h, C_s, C_l]` of zeros."""
        shapes = [(batch_size, size) for size in self.state_size]
        return [ops.zeros(shape, dtype=self.compute_dtype) for shape in shapes]

    def _read(self, o, short, long):
        """Returns `h`: what the output gate lets through of both memories."""
        if self.combine == "concat":
            both = ops.concatenate([ops.tanh(short), ops.tanh(long)], axis=-1)  # (B, 2U)
            return ops.concatenate([o, o], axis=-1) * both
        if self.combine == "sum":
            return o * ops.tanh(short + long)
        a = ops.sigmoid(self.mix)  # (U,)
        return o * ops.tanh(a * short + (1 - a) * long)

    def _initial_recurrent_kernel(self, shape, dtype=None):
        # Each gate's block is drawn alone: one orthogonal draw over all six would
        # shrink every block.
        draws = [_another(self.recurrent_initializer, k) for k in range(6)]
        blocks = [draw((shape[0], self.units), dtype=dtype) for draw in draws]
        return ops.concatenate(blocks, axis=-1)

    def _initial_bias(self, shape, dtype=None):
        horizon = self._horizons((self.units,), dtype=dtype)
        f_l = ops.log(horizon - 1)
        zeros = ops.zeros_like(f_l)
        return ops.concatenate([zeros, zeros, zeros + 1, -f_l, f_l, zeros])

    def get_config(self):
        initializers = keras.initializers.serialize
        return {
            **super().get_config(),
            "units": self.units,
            "combine": self.combine,
            "long_horizon": self.long_horizon,
            "kernel_initializer": initializers(self.kernel_initializer),
            "recurrent_initializer": initializers(self.recurrent_initializer),
            "seed": self.seed,
        }


def _another(initializer, k):
    """Returns an initializer like this one with a draw of its own for block `k`."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer  # a plain function draws anew at every call
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += k
    return type(initializer).from_config(config)
