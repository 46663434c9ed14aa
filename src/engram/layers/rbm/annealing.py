"""Annealed importance sampling: log Z of an RBM that is too large to enumerate.

Between the density of independent pixels (beta = 0) and the RBM's (beta = 1) lie

    p_beta(v) ~ e^-E_beta(v) prod_j e^(-lambda_j beta a_j) (1 + e^(beta a_j))

with `a` the hidden logits and `E_beta` the visible part of the energy, its bias between
both, `(1 - beta) b_0 + beta b`. Chains go from one end to the other; at each of the
temperatures `beta_0, beta_1, ...` they are weighted and moved by one Gibbs step:

    log w = sum_n log p*_{beta_n}(v) - log p*_{beta_{n-1}}(v)

    forwards     log Z = log Z_0 + log mean w,    too low on average
    backwards    log Z = log Z_0 - log mean w,    too high if the chains start in the RBM

The true value lies between both, as far as backward chains start from the RBM's own rows:
drawn exactly where it has few hidden units, else by many Gibbs steps from rows given.

Sources: Salakhutdinov & Murray 2008, On the quantitative analysis of deep belief
networks (forwards, temperatures); Burda, Grosse & Salakhutdinov 2015, Accurate and
conservative estimates of MRF log-likelihood using reverse annealing (backwards).
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from engram.layers.rbm import draws, energy, enumeration
from engram.layers.rbm.rbm import RBM, check_rows


class LogZ(NamedTuple):
    """An estimate of log Z in nats, and where three standard errors of mean w reach."""

    estimate: float
    low: float
    high: float


def temperatures(coarse: int = 500, middle: int = 4000, fine: int = 10000) -> np.ndarray:
    """Returns betas from 0 to 1: coarse to 0.5, finer to 0.9, finest to 1.

    By default the 14,500 of Salakhutdinov & Murray 2008.
    """
    pieces = ((0, 0.5, coarse), (0.5, 0.9, middle), (0.9, 1, fine))
    spaced = [np.linspace(a, b, count, endpoint=False) for a, b, count in pieces]
    return np.concatenate([*spaced, [1.0]])


def forward(rbm: RBM, rows, betas=None, chains: int = 100, seed: int = 0) -> LogZ:
    """Estimates log Z by chains from independent pixels to the RBM.

    Args:
        rbm: a built `RBM`.
        rows: float array `(B, V)`, rows whose means the independent pixels have.
        betas: increasing from 0 to 1; `temperatures()` if None.
        chains: int, how many.
        seed: int.

    Raises:
        ValueError: if betas do not lead from 0 to 1, or the rows do not fit.
    """
    w, base, betas = _prepared(rbm, rows, betas)
    start = _independent(w, base, chains, seed)
    upwards = tf.constant(betas, start.dtype)
    weights = _anneal(w, base, upwards, start, tf.constant(seed, tf.int64)).numpy()
    return _estimate(_log_z0(w, base), weights, 1)


def backward(
    rbm: RBM, rows, betas=None, chains: int = 100, seed: int = 0, steps: int = 1000
) -> LogZ:
    """Estimates log Z by chains from the RBM to independent pixels.

    Args:
        rbm: a built `RBM`.
        rows: as in `forward`; chains that cannot be drawn exactly start from them.
        betas: as in `forward`.
        chains: int, how many.
        seed: int.
        steps: int, Gibbs steps before they count, of an RBM with more than 20 hidden
            units.

    Raises:
        ValueError: as in `forward`.
    """
    w, base, betas = _prepared(rbm, rows, betas)
    if w.kernel.shape[1] <= enumeration.LIMIT:
        start = _exact(w, chains, seed)
    else:
        rows = np.asarray(rows)
        chosen = np.random.Generator(np.random.PCG64(seed)).integers(0, len(rows), chains)
        start = tf.constant(rows[chosen], w.kernel.dtype)
        warm = tf.ones(steps + 1, start.dtype)
        other = tf.constant(seed + 1, tf.int64)
        start = _anneal(w, base, warm, start, other, moved=True)
    downwards = tf.constant(betas[::-1].copy(), start.dtype)
    weights = _anneal(w, base, downwards, start, tf.constant(seed, tf.int64)).numpy()
    return _estimate(_log_z0(w, base), weights, -1)


def _prepared(rbm: RBM, rows, betas):
    """Returns weights, bias of the independent pixels and betas."""
    betas = temperatures() if betas is None else np.asarray(betas, np.float64)
    if betas[0] != 0 or betas[-1] != 1 or not (np.diff(betas) > 0).all():
        raise ValueError(
            f"`betas` must rise from 0 to 1. Received: {betas[0]} to {betas[-1]}"
        )
    w = rbm.density()
    rows = check_rows(rows, rbm.visible, w.kernel.dtype, w.kernel.shape[0])
    mean, count = tf.reduce_mean(rows, 0), rows.shape[0]
    if rbm.visible == "gaussian":
        return w, mean - w.visible_offset, betas
    smoothed = (count * mean + 0.5) / (count + 1)  # never 0 or 1
    return w, tf.math.log(smoothed) - tf.math.log1p(-smoothed), betas


def _log_z0(w, base) -> float:
    """Returns log Z of the independent pixels, hidden units included."""
    none = tf.zeros_like
    independent = w._replace(
        kernel=none(w.kernel), hidden_bias=none(w.hidden_bias), visible_bias=base
    )
    one_state = -energy.hidden_free_energy(independent, none(w.hidden_bias)[None])
    return float(one_state[0]) + w.kernel.shape[1] * math.log(2)


def _independent(w, base, chains, seed):
    """Draws rows `(chains, V)` of independent pixels."""
    independent = w._replace(kernel=tf.zeros_like(w.kernel), visible_bias=base)
    h = tf.zeros((chains, w.kernel.shape[1]), w.kernel.dtype)
    return _visible(independent, energy.visible_mean(independent, h), seed, 0, False)


def _exact(w, chains, seed):
    """Draws rows `(chains, V)` of an RBM whose hidden states can be enumerated."""
    units = w.kernel.shape[1]
    logits = enumeration.log_weights(w, energy.hidden_free_energy, units)
    chances = np.exp(logits - np.logaddexp.reduce(logits))
    coins = np.random.Generator(np.random.PCG64(seed))
    drawn = coins.choice(len(chances), chains, p=chances / chances.sum())
    h = tf.constant(enumeration.numbered_rows(drawn, units), w.kernel.dtype)
    return _visible(w, energy.visible_mean(w, h), seed, 0, False)


def _visible(w, mean, seed, number, jit_compile):
    """Draws visible units with the mean given."""
    draw = functools.partial(
        draws.uniform, mean.shape, seed, jit_compile=jit_compile, dtype=mean.dtype
    )
    if w.log_variance is None:
        return tf.cast(draw(number=number) < mean, mean.dtype)
    noise = draws.normal(draw(number=number), draw(number=number + 1))
    return mean + tf.exp(w.log_variance / 2) * noise


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _anneal(w, base, betas, v, seed, moved=False):
    """Returns log w `(chains,)` float64 after all betas; the rows if `moved`."""

    def at(beta):
        """Returns the weights whose visible part is `E_beta`."""
        return w._replace(visible_bias=(1 - beta) * base + beta * w.visible_bias)

    def log_p(beta, v, a):
        without_hidden = at(beta)._replace(
            kernel=tf.zeros_like(w.kernel), hidden_bias=tf.zeros_like(w.hidden_bias)
        )
        visible = -energy.visible_energy(without_hidden, v)
        return visible + tf.reduce_sum(
            tf.nn.softplus(beta * a) - w.hidden_offset * beta * a, axis=-1
        )

    def step(n, v, weight):
        a = energy.hidden_logits(w, v)
        gain = log_p(betas[n], v, a) - log_p(betas[n - 1], v, a)
        weight += tf.cast(gain, tf.float64)
        p = tf.sigmoid(betas[n] * a)
        h = tf.cast(draws.uniform(p.shape, seed, 3 * n, True, p.dtype) < p, p.dtype)
        cooler = at(betas[n])._replace(kernel=betas[n] * w.kernel)
        v = _visible(w, energy.visible_mean(cooler, h), seed, 3 * n + 1, True)
        return n + 1, v, weight

    count = betas.shape[0]
    weight = tf.zeros(v.shape[0], tf.float64)
    _, v, weight = tf.while_loop(
        lambda n, *_: n < count, step, (1, v, weight), maximum_iterations=count - 1
    )
    return v if moved else weight


def _estimate(log_z0: float, weights: np.ndarray, sign: int) -> LogZ:
    """Returns `log Z_0 + sign * log mean e^weights`, with three standard errors."""
    top = weights.max()
    scaled = np.exp(weights - top)
    mean = scaled.mean()
    error = 3 * scaled.std(ddof=1) / math.sqrt(len(scaled)) if len(scaled) > 1 else 0.0
    ends = [
        log_z0 + sign * (top + math.log(max(one, 1e-300)))
        for one in (mean - error, mean, mean + error)
    ]
    return LogZ(ends[1], min(ends), max(ends))
