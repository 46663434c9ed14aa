"""Singular values of a Jacobian that is only known by its products with vectors.

    push(v) = J v,    pull(u) = J^T u          both `Scaled`, so that nothing underflows

    top      power iteration on J^T J: what v / |v| <- J^T J v ends at
    median   small J: all singular values, from the rows J^T e_i
             large J: Gauss quadrature of the spectrum of J^T J by Lanczos' method
             (Golub & Meurant 1994, Matrices, moments and quadrature), a few starts

All are natural logarithms. A median that float32 does not tell from nothing is NaN, as
all of a Jacobian are that has entries which are no numbers.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from engram.gradient_flow.chain_rule import Scaled, ln_norm, scaled

Product = Callable[[Scaled], Scaled]

STEPS = 300  # of power iteration, at most
SETTLED = 1e-6  # of the logarithm, from one step to the next
KRYLOV, STARTS = 60, 3
FINEST = {"exact": 1e-6, "lanczos": 1e-3}  # share of the top that can still be told


def power_iteration(push: Product, pull: Product, start: tf.Tensor) -> float:
    """Returns `ln` of the largest singular value.

    Args:
        push: function from `v` to `J v`.
        pull: function from `u` to `J^T u`.
        start: any `v` that is not orthogonal to the answer; random numbers never are.
    """
    v, last = scaled(start), np.inf
    for _ in range(STEPS):
        v = Scaled(v.value, -(ln_norm(v) - v.log))  # |v| = 1
        u = push(v)
        found = float(ln_norm(u))
        if not found < np.inf:
            return np.nan
        if abs(found - last) < SETTLED or found < -1e20:
            break
        v, last = pull(u), found
    return found if found > -1e20 else -np.inf


def exact(rows: np.ndarray, log: float = 0.0) -> tuple[float, float]:
    """Returns `ln` of the top and the median singular value of `rows * e^log`."""
    if not np.isfinite(rows).all():
        return np.nan, np.nan
    values = np.linalg.svd(np.asarray(rows, np.float64), compute_uv=False)
    if not values[0] > 0:
        return -np.inf, np.nan
    median = float(np.median(values))
    fine = median > FINEST["exact"] * values[0]
    return float(np.log(values[0])) + log, np.log(median) + log if fine else np.nan


def median(push: Product, pull: Product, start: tf.Tensor, image: tf.Tensor) -> float:
    """Returns `ln` of the median singular value, of the smaller side of `J`.

    Args:
        push: function from `v` to `J v`.
        pull: function from `u` to `J^T u`.
        start: a tensor of `v`'s shape.
        image: a tensor of `u`'s shape.
    """
    wide = int(tf.size(start)) > int(tf.size(image))
    there, back, like = (pull, push, image) if wide else (push, pull, start)
    draw = np.random.default_rng(1)
    unit = float(ln_norm(there(_unit(draw.normal(size=like.shape), like))))
    if not -1e20 < unit < np.inf:
        return np.nan

    def square(v):  # J^T J v / e^(2 unit), linear: one scale for all
        found = back(there(_unit(v.reshape(like.shape), like)))
        size = float(found.log) - 2 * unit
        return np.asarray(found.value, np.float64).ravel() * np.exp(size)

    size = int(tf.size(like))
    pairs = [lanczos(square, draw.normal(size=size)) for _ in range(STARTS)]
    values, weights = (np.concatenate(part) for part in zip(*pairs, strict=True))
    order = np.argsort(values)
    values, weights = values[order], weights[order] / STARTS
    below = np.cumsum(weights) - weights / 2
    fine = FINEST["lanczos"] ** 2 * values[-1]
    middle = float(np.interp(0.5, below, values))
    return 0.5 * np.log(middle) + unit if middle > fine else np.nan


def lanczos(square, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns nodes and weights of a symmetric operator's spectrum, as `start` has it."""
    basis = [start / np.linalg.norm(start)]
    diagonal, beside = [], []
    for _ in range(min(KRYLOV, len(start))):
        w = square(basis[-1])
        diagonal.append(w @ basis[-1])
        for _ in range(2):  # twice is enough
            w = w - np.array(basis).T @ (np.array(basis) @ w)
        beside.append(np.linalg.norm(w))
        if beside[-1] < 1e-6 * max(diagonal):
            break
        basis.append(w / beside[-1])
    off = beside[: len(diagonal) - 1]
    values, vectors = np.linalg.eigh(
        np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
    )
    return values, vectors[0] ** 2


def _unit(v, like) -> Scaled:
    return scaled(tf.cast(v, like.dtype))
