"""The equations of an RBM in NumPy float64, for its tests to compare with.

All comes from the energy alone: every density and every conditional is a sum over all
states, divided by such a sum.
"""

import functools
import itertools

import numpy as np

LEARNED = ("kernel", "visible_bias", "hidden_bias", "log_variance")


def weights(rbm):
    """Returns the layer's weights by name, in float64."""
    return {w.name: np.asarray(w.value, np.float64) for w in rbm.weights}


def draw_weights(rbm, width, seed=1):
    """Builds an RBM and gives it weights of which none is zero, the offsets too."""
    draw = np.random.default_rng(seed)
    rbm.build((None, width))
    for weight in rbm.weights:
        size = 0.8 if weight.name == "kernel" else 0.5
        weight.assign(draw.normal(0, size, weight.shape))
    return rbm


@functools.cache
def states(units):
    """Returns all rows of zeros and ones `(2^units, units)`, read-only, since kept."""
    rows = np.array(list(itertools.product((0.0, 1.0), repeat=units)))
    rows.flags.writeable = False
    return rows


def energies(rbm, v, h):
    """Returns `E(v, h)` of each row with each hidden state, `(rows, states)`."""
    w = weights(rbm)
    x, q = v - w["visible_offset"], h - w["hidden_offset"]
    if rbm.visible == "bernoulli":
        of_v = -x @ w["visible_bias"]
    else:
        variance = np.exp(w["log_variance"])
        of_v = np.sum((x - w["visible_bias"]) ** 2 / (2 * variance), axis=1)
        x = x / variance
    return of_v[:, None] - q @ w["hidden_bias"] - x @ w["kernel"] @ q.T


def log_sum(values, axis=None):
    """Returns `log sum e^values`."""
    top = values.max(axis=axis, keepdims=True)
    summed = np.log(np.exp(values - top).sum(axis=axis, keepdims=True)) + top
    return np.squeeze(summed, axis=axis)


def free_energy(rbm, v):
    """Returns `-log sum_h e^-E` `(rows,)`."""
    return -log_sum(-energies(rbm, v, states(rbm.units)), axis=1)


def log_z(rbm):
    """Returns log Z of Bernoulli units: the sum over all pairs `(v, h)`."""
    return log_sum(-energies(rbm, states(rbm.kernel.shape[0]), states(rbm.units)))


def log_p(rbm, v):
    """Returns log p `(rows,)` of Bernoulli units."""
    return -free_energy(rbm, v) - log_z(rbm)


def hidden_given(rbm, v):
    """Returns the chance of each hidden state given each row, `(rows, 2^L)`."""
    logits = -energies(rbm, v, states(rbm.units))
    return np.exp(logits - log_sum(logits, axis=1)[:, None])


def visible_given(rbm, h):
    """Returns the chance of each row given each hidden state, `(states, 2^V)`."""
    logits = -energies(rbm, states(rbm.kernel.shape[0]), h).T
    return np.exp(logits - log_sum(logits, axis=1)[:, None])


def gibbs(rbm):
    """Returns the chance of each row after one Gibbs step from each row."""
    v, h = states(rbm.kernel.shape[0]), states(rbm.units)
    return hidden_given(rbm, v) @ visible_given(rbm, h)


def statistics(rbm, v):
    """Returns `-dE/d(W, b, c)` of each row, hidden units summed out, side by side.

    For Gaussian units `-dE/d(log sigma^2)` comes last.
    """
    w = weights(rbm)
    x = v - w["visible_offset"]
    q = hidden_given(rbm, v) @ states(rbm.units) - w["hidden_offset"]
    of_b, of_variance = x, x[:, :0]
    if rbm.visible == "gaussian":
        variance, away = np.exp(w["log_variance"]), x - w["visible_bias"]
        x, of_b = x / variance, away / variance
        of_variance = away**2 / (2 * variance) - x * (q @ w["kernel"].T)
    products = (x[:, :, None] * q[:, None]).reshape(len(v), -1)
    return np.concatenate([products, of_b, q, of_variance], axis=1)


def gradient(rbm, rows):
    """Returns the gradient of the mean log-likelihood by `(W, b, c)`, Bernoulli units."""
    v = states(rbm.kernel.shape[0])
    return statistics(rbm, rows).mean(axis=0) - np.exp(log_p(rbm, v)) @ statistics(rbm, v)


def _learned(rbm):
    by_name = {weight.name: weight for weight in rbm.weights}
    return [by_name[name] for name in LEARNED if name in by_name]


def learned(rbm):
    """Returns what training changes, in the order of `statistics`, side by side."""
    return np.concatenate([np.asarray(w.value).ravel() for w in _learned(rbm)])


def set_learned(rbm, values):
    """Sets what training changes from values that stand side by side."""
    for weight in _learned(rbm):
        size = int(np.prod(weight.shape))
        weight.assign(values[:size].reshape(weight.shape))
        values = values[size:]


def bars_and_stripes(side=3):
    """Returns all patterns of equal columns and all of equal rows, `2 * 2^side` rows."""
    lines = states(side)
    bars = np.repeat(lines[:, None], side, axis=1)
    stripes = np.repeat(lines[:, :, None], side, axis=2)
    return np.concatenate([bars, stripes]).reshape(-1, side * side)
