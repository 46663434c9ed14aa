"""The equations of the STLM layers in NumPy float64, for their tests to compare with."""

import itertools

import numpy as np

COMBINATIONS = ("concat", "sum", "weighted")
OUTPUT_GATES = ("shared", "separate")
MODES = list(itertools.product(COMBINATIONS, OUTPUT_GATES))


def weights(layer):
    """Returns the cell's or layer's weights by name, in float64."""
    return {w.name: np.asarray(w.value, np.float64) for w in layer.weights}


def draw_weights(layer):
    """Gives a built layer weights of which none is zero."""
    draw = np.random.default_rng(1)
    layer.set_weights([draw.normal(0, 0.5, weight.shape) for weight in layer.weights])
    return layer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gates(z, output_gates):
    """Returns `g, i_s, i_l, f_s, f_l, o_s, o_l`; a shared output gate comes twice."""
    g, *rest = np.split(z, 6 if output_gates == "shared" else 7, axis=-1)
    i_s, i_l, f_s, f_l, *o = map(sigmoid, rest)
    return np.tanh(g), i_s, i_l, f_s, f_l, o[0], o[-1]


def output(o_s, o_l, short, long, mix, combine, output_gates):
    """Returns `h`."""
    if combine == "concat":
        return np.concatenate([o_s * np.tanh(short), o_l * np.tanh(long)], axis=-1)
    a, b = (sigmoid(mix), 1 - sigmoid(mix)) if combine == "weighted" else (1, 1)
    if output_gates == "shared":
        return o_s * np.tanh(a * short + b * long)
    return a * o_s * np.tanh(short) + b * o_l * np.tanh(long)


def step(layer, z, short, long):
    """Returns `[h, C_s, C_l]` after a step whose gates are `z` before activation."""
    g, i_s, i_l, f_s, f_l, o_s, o_l = gates(z, layer.output_gates)
    short = f_s * short + i_s * g
    long = f_l * long + i_l * g
    mix = weights(layer).get("mix")
    h = output(o_s, o_l, short, long, mix, layer.combine, layer.output_gates)
    return [h, short, long]


def one_step(layer, x, states):
    """Returns `[h, C_s, C_l]` of an STLM or its cell after one step."""
    w = weights(layer)
    h, short, long = states
    z = x @ w["kernel"] + h @ w["recurrent_kernel"] + w.get("bias", 0)
    return step(layer, z, short, long)


def all_steps(advance, x, states, mask=None, backwards=False):
    """Runs `advance(x_t, states)` over time, as Keras does it.

    Returns the outputs and the states after every step, in the order of computing, and
    the last states. A masked step repeats the output before it, zeros at the start.
    """
    order = range(x.shape[1])[::-1] if backwards else range(x.shape[1])
    found, outputs, kept = np.zeros_like(states[0]), [], []
    for t in order:
        new = advance(x[:, t], states)
        counts = np.ones(len(x), bool) if mask is None else np.asarray(mask)[:, t]
        counts = counts.reshape(-1, *[1] * (found.ndim - 1))
        found = np.where(counts, new[0], found)
        states = [np.where(counts, a, b) for a, b in zip(new, states, strict=True)]
        outputs.append(found)
        kept.append(states)
    after = [np.stack(one, axis=1) for one in zip(*kept, strict=True)]
    return np.stack(outputs, axis=1), after, states
