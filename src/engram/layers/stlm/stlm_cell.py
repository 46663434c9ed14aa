"""STLM: a recurrent cell with a short and a long memory."""

import keras
from keras import ops
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell  # masks per sequence

from engram.layers.stlm import memories


@keras.saving.register_keras_serializable(package="engram")
class STLMCell(keras.layers.Layer, DropoutRNNCell):
    """One step of the short and long memory.

    One candidate `g` is written into two memories. Each memory has an input and a
    forget gate of its own, so that they can live on different time scales; one output
    gate reads both, or each has its own:

        g                        = tanh(x W_g + h R_g + b_g)
        i_s, i_l, f_s, f_l, o    = sigmoid(x W_k + h R_k + b_k), each k its own
        C_s                      = f_s * C_s + i_s * g
        C_l                      = f_l * C_l + i_l * g
        concat:    h             = [o * tanh(C_s), o * tanh(C_l)]          (B, 2U)
        sum:       h             = o * tanh(C_s + C_l)                     (B, U)
        weighted:  h             = o * tanh(a * C_s + (1 - a) * C_l)       (B, U)
                   a             = sigmoid(mix), one learned number per unit

    With `output_gates="separate"` there are `o_s` and `o_l`, and `h` is the
    concatenation, the sum or the `a`-weighted sum of `o_s * tanh(C_s)` and
    `o_l * tanh(C_l)`.

    The blocks of `kernel`, `recurrent_kernel` and `bias` stand in the order
    `g, i_s, i_l, f_s, f_l, o` (or `o_s, o_l`). With `concat` the cell is an LSTM of `2U`
    units whose two halves share candidate and output gate: three quarters of its
    parameters.

    `STLM` is the layer; `keras.layers.RNN(STLMCell(units))` is the same, slower.

    Args:
        units: int, size `U` of each memory. Must be positive.
        combine: `"concat"`, `"sum"` or `"weighted"`, how the memories meet in `h`.
        output_gates: `"shared"` or `"separate"`.
        short_horizon: float, at least 1, in steps. The short memory's units start with
            time scales uniform between 1 step and this one (chrono initialisation:
            forget bias `log(t)`, input bias `-log(t)`). Without a bias there is none.
        long_horizon: float, at least 1, in steps; the same for the long memory. A good
            value is the distance over which things must be remembered.
        use_bias: bool.
        kernel_initializer: initializer of `kernel` `(F, 6U)`, or `7U` columns.
        recurrent_initializer: initializer of each block of `recurrent_kernel`
            `(2U or U, 6U)`.
        bias_initializer: initializer of the other biases: candidate and output gates.
        kernel_regularizer: regularizer of `kernel`.
        recurrent_regularizer: regularizer of `recurrent_kernel`.
        bias_regularizer: regularizer of `bias`.
        kernel_constraint: constraint of `kernel`.
        recurrent_constraint: constraint of `recurrent_kernel`.
        bias_constraint: constraint of `bias`.
        dropout: float in [0, 1), share of the inputs dropped, the same ones at all steps.
        recurrent_dropout: float in [0, 1), share of `h` dropped on its way to the gates,
            the same ones at all steps.
        seed: int or None, seed of the time scales and of dropout.

    Call arguments:
        inputs: float tensor `(B, F)`, the features of one step.
        states: list `[h, C_s, C_l]` of float tensors `(B, 2U or U)`, `(B, U)`,
            `(B, U)`.
        training: bool, whether to drop anything.

    Returns:
        Output `h` and the new `[h, C_s, C_l]`, shaped as the states.

    Raises:
        ValueError: if an argument cannot be used; it names the argument and its value.

    Masking: none; `keras.layers.RNN` carries the states over masked steps.

    Precision: under a mixed policy the products are computed in half precision, the
    gates and memories in the states' own dtype. `STLM` keeps float32 states;
    `keras.layers.RNN` casts states to the cell's compute dtype, where half precision
    rounds away what a long memory adds: there, give the cell `dtype="float32"`.

    References:
        - Hochreiter & Schmidhuber 1997, Long short-term memory: the gates of one
          memory.
        - Tallec & Ollivier 2018, Can recurrent neural networks warp time?, section
          2.2: chrono initialisation.
        - Gal & Ghahramani 2016, A theoretically grounded application of dropout in
          recurrent neural networks: one dropout mask for all steps.
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
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # states keep their own dtype
        memories.check(units, combine, output_gates, short_horizon, long_horizon)
        for name, share in (
            ("dropout", dropout),
            ("recurrent_dropout", recurrent_dropout),
        ):
            if not 0 <= share < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {share}")
        self.units = int(units)
        self.combine = combine
        self.output_gates = output_gates
        self.short_horizon = short_horizon
        self.long_horizon = long_horizon
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.recurrent_constraint = keras.constraints.get(recurrent_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.blocks = memories.count_blocks(output_gates)
        self.output_size = memories.output_width(self.units, combine)
        self.state_size = [self.output_size, self.units, self.units]
        # Drawn here: a layer may be built while it is traced (JAX).
        self._time_scales = memories.TimeScales(
            short_horizon, long_horizon, output_gates, self.bias_initializer, seed
        )

    def kernel_shape(self, features):
        """Returns the shape of a kernel that reads this many features."""
        return (features, self.blocks * self.units)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=self.kernel_shape(input_shape[-1]),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            autocast=False,
            name="kernel",
        )
        self.recurrent_kernel = self.add_weight(
            shape=self.kernel_shape(self.output_size),
            initializer=memories.PerBlock(self.recurrent_initializer, self.blocks),
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            autocast=False,
            name="recurrent_kernel",
        )
        self.bias = self.mix = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.blocks * self.units,),
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

    def call(self, inputs, states, training=False):
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        return self.advance(self.project(inputs), states, training)

    def advance(self, projected, states, training=False):
        """Returns what `call` does, from inputs that are projected already."""
        h, short, long = states
        if training and self.recurrent_dropout:
            h = h * self.get_recurrent_dropout_mask(h)
        z = projected + self.recur(h)
        h, short, long = memories.step(
            z, short, long, self.mix, self.combine, self.output_gates
        )
        return ops.cast(h, self.compute_dtype), [h, short, long]

    def project(self, inputs):
        """Returns `x W + b` `(..., 6U)`, what the inputs say to all gates."""
        z = self._whole(ops.matmul(*self._half(inputs, self.kernel)))
        return z + self.bias if self.use_bias else z

    def recur(self, h):
        """Returns `h R` `(B, 6U)`, what the state says to all gates."""
        return self._whole(ops.matmul(*self._half(h, self.recurrent_kernel)))

    def get_initial_state(self, batch_size=None):
        """Returns `[h, C_s, C_l]` of zeros, float32 under a mixed policy."""
        dtype = memories.memory_dtype(self.compute_dtype)
        return [ops.zeros((batch_size, size), dtype=dtype) for size in self.state_size]

    def _half(self, *tensors):
        """Returns the factors of a product in the compute dtype."""
        return [ops.cast(tensor, self.compute_dtype) for tensor in tensors]

    def _whole(self, product):
        """Returns a product in the memories' dtype."""
        return ops.cast(product, memories.memory_dtype(self.compute_dtype))

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
                for name in ("kernel", "recurrent", "bias")
            },
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "seed": self.seed,
        }
