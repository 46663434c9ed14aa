"""The two memories: what a step writes into them, what it reads, how long they last.

    g                        = tanh(z_g)                        one candidate
    i_s, i_l, f_s, f_l, o    = sigmoid(z_k), each k its own      `output_gates="shared"`
    C_s                      = f_s * C_s + i_s * g
    C_l                      = f_l * C_l + i_l * g

                 shared                                separate: o_s and o_l
    concat       [o * tanh(C_s), o * tanh(C_l)]        [o_s * tanh(C_s), o_l * tanh(C_l)]
    sum          o * tanh(C_s + C_l)                   o_s * tanh(C_s) + o_l * tanh(C_l)
    weighted     o * tanh(a * C_s + (1 - a) * C_l)     a * o_s * tanh(C_s)
                                                         + (1 - a) * o_l * tanh(C_l)
                 a = sigmoid(mix), one learned number per unit

The blocks of `z`, and so of every kernel and bias, stand in the order
`g, i_s, i_l, f_s, f_l, o` or `..., o_s, o_l`.

Time scales: a memory with the forget gate `f = t / (1 + t)` keeps `1/e` of a value for
about `t` steps. Each unit draws its own `t`, uniform between 1 and the memory's horizon,
and starts with the biases `b_f = log(t)`, `b_i = -log(t)`.

Source: Tallec & Ollivier 2018, Can recurrent neural networks warp time?, section 2.2
(chrono initialisation, with `T_max = horizon + 1`).
"""

import numbers

import keras
from keras import ops

COMBINATIONS = ("concat", "sum", "weighted")
OUTPUT_GATES = ("shared", "separate")


def check_size(size, name):
    """Raises a ValueError if the size of a memory is no positive integer."""
    if not isinstance(size, numbers.Integral) or size < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {size}")


def check(units, combine, output_gates, short_horizon, long_horizon):
    """Raises a ValueError that names the first argument that cannot be used."""
    check_size(units, "units")
    if combine not in COMBINATIONS:
        raise ValueError(f"`combine` must be one of {COMBINATIONS}. Received: {combine}")
    if output_gates not in OUTPUT_GATES:
        raise ValueError(
            f"`output_gates` must be one of {OUTPUT_GATES}. Received: {output_gates}"
        )
    for name, horizon in (("short", short_horizon), ("long", long_horizon)):
        if not horizon >= 1:
            raise ValueError(
                f"`{name}_horizon` must be at least 1 step. Received: {horizon}"
            )


def count_blocks(output_gates):
    """Returns how many blocks of `U` columns the gates need: 6 or 7."""
    return 6 if output_gates == "shared" else 7


def output_width(units, combine):
    """Returns the width of `h`: `2U` for concat, else `U`."""
    return 2 * units if combine == "concat" else units


def memory_dtype(compute_dtype):
    """Returns the memories' dtype: half precision would round away what they add."""
    return "float32" if compute_dtype in ("float16", "bfloat16") else compute_dtype


def step(z, short, long, mix, combine, output_gates):
    """Returns `(h, C_s, C_l)` after one step.

    Args:
        z: `(..., 6U)` or `(..., 7U)`, all blocks before their activation.
        short: `C_s` before the step, `(..., U)`.
        long: `C_l` before the step, `(..., U)`.
        mix: `(U,)` for weighted, else None.
        combine: one of `COMBINATIONS`.
        output_gates: one of `OUTPUT_GATES`.
    """
    units = short.shape[-1]
    g, gates = ops.split(ops.cast(z, short.dtype), [units], axis=-1)
    g = ops.tanh(g)
    gates = ops.split(ops.sigmoid(gates), count_blocks(output_gates) - 1, axis=-1)
    i_s, i_l, f_s, f_l, *o = gates  # (..., U) each
    short = f_s * short + i_s * g
    long = f_l * long + i_l * g
    return read(o, short, long, mix, combine), short, long


def read(o, short, long, mix, combine):
    """Returns `h`: what one or two output gates let through of both memories."""
    if combine == "weighted":
        a = ops.cast(ops.sigmoid(mix), short.dtype)  # (U,)
        of_short, of_long = a, 1 - a
    else:
        of_short = of_long = 1
    if len(o) == 1 and combine != "concat":
        return o[0] * ops.tanh(of_short * short + of_long * long)
    read_short, read_long = o[0] * ops.tanh(short), o[-1] * ops.tanh(long)
    if combine == "concat":
        return ops.concatenate([read_short, read_long], axis=-1)
    return of_short * read_short + of_long * read_long


@keras.saving.register_keras_serializable(package="engram")
class TimeScales(keras.initializers.Initializer):
    """Draws a bias `(6U,)` or `(7U,)` that gives both memories their time scales.

    Args:
        short_horizon: float, at least 1, in steps: longest time scale of `C_s`.
        long_horizon: float, at least 1, in steps: longest time scale of `C_l`.
        output_gates: `"shared"` or `"separate"`.
        others: initializer of the candidate's and the output gates' biases.
        seed: int or None.
    """

    def __init__(
        self, short_horizon, long_horizon, output_gates, others="zeros", seed=None
    ):
        self.short_horizon = short_horizon
        self.long_horizon = long_horizon
        self.output_gates = output_gates
        self.others = keras.initializers.get(others)
        self.seed = seed
        # Uniform shares of the way from 1 to the horizon. An initializer keeps its seed:
        # a layer may be built while it is traced (JAX), where unseeded draws are errors.
        self._shares = keras.initializers.RandomUniform(0.0, 1.0, seed=seed)

    def __call__(self, shape, dtype=None):
        blocks = count_blocks(self.output_gates)
        units = shape[0] // blocks
        g, *o = [self.others((units,), dtype=dtype) for _ in range(blocks - 4)]
        to_short, to_long = ops.split(self._shares((2 * units,), dtype=dtype), 2)
        f_s = ops.log(1 + (self.short_horizon - 1) * to_short)
        f_l = ops.log(1 + (self.long_horizon - 1) * to_long)
        return ops.concatenate([g, -f_s, -f_l, f_s, f_l, *o])

    def get_config(self):
        return {
            "short_horizon": self.short_horizon,
            "long_horizon": self.long_horizon,
            "output_gates": self.output_gates,
            "others": keras.initializers.serialize(self.others),
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="engram")
class PerBlock(keras.initializers.Initializer):
    """Draws each gate's block of a recurrent kernel `(..., blocks U)` alone.

    One orthogonal draw over all blocks would shrink every block.

    Args:
        initializer: of one block `(..., U)`.
        blocks: int.
    """

    def __init__(self, initializer, blocks):
        self.initializer = keras.initializers.get(initializer)
        self.blocks = blocks

    def __call__(self, shape, dtype=None):
        block = (*shape[:-1], shape[-1] // self.blocks)
        draws = [_another(self.initializer, k) for k in range(self.blocks)]
        return ops.concatenate([draw(block, dtype=dtype) for draw in draws], axis=-1)

    def get_config(self):
        initializer = keras.initializers.serialize(self.initializer)
        return {"initializer": initializer, "blocks": self.blocks}


def _another(initializer, k):
    """Returns an initializer like this one with a draw of its own for block `k`."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer  # a plain function draws anew at every call
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += k
    return type(initializer).from_config(config)
