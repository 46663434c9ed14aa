"""A stack of three RBMs, and what it says of rows, in NumPy."""

import numpy as np
import rbm_equations as equations

from engram.layers import RBM

V = 6


def stack(visible="bernoulli", dtype="float32"):
    """Returns three RBMs, 6-5-4-3, of which no weight is zero."""
    kinds = [visible, "bernoulli", "bernoulli"]
    return [
        equations.draw_weights(RBM(units, kind, dtype=dtype), units + 1, seed=units)
        for units, kind in zip((5, 4, 3), kinds, strict=True)
    ]


def draw_rows(visible="bernoulli", rows=20):
    draw = np.random.default_rng(2)
    if visible == "bernoulli":
        return draw.integers(0, 2, (rows, V)).astype("float32")
    return draw.normal(size=(rows, V)).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def upwards(rbms, x):
    """Returns what each RBM of the stack says of the one below, in NumPy."""
    for rbm in rbms:
        w = equations.weights(rbm)
        x = (x - w["visible_offset"]) * np.exp(-w.get("log_variance", 0.0))
        x = sigmoid(w["hidden_bias"] + x @ w["kernel"])
        yield x
