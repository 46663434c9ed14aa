"""How good an RBM is while it learns, at a bounded cost.

reconstruction    mean |v - E[v | p(h | v)]|^2 over the units of a row
free_energy_gap   mean F(held-out rows) - mean F(training rows): rises when the RBM
                  knows the training rows by heart (Hinton 2012, section 6)
pseudo_likelihood mean over rows of sum_i log p(v_i | all others), Bernoulli units:
                  log sigmoid(F(v with bit i flipped) - F(v)), over all bits
log_likelihood    exact where one side has at most 20 units, else left out
log_partition     log Z of the same, in the layer's own dtype and compiled: seven times
                  as fast as in float64, and the same up to rounding
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from engram.layers.rbm import energy, enumeration
from engram.layers.rbm.rbm import RBM

SEEN = 1000  # rows of each part whose free energies are compared
FLIPPED = 100  # rows whose every bit is flipped
CHUNK = 2**12  # states of log Z at a time


def monitor(train, held, exact: bool = False) -> Callable[[RBM, int], dict[str, float]]:
    """Returns a monitor for `ContrastiveDivergence.fit`.

    Args:
        train: float array `(N, V)`; the first rows are looked at, the same each time.
        held: float array, rows that are not trained on.
        exact: bool, whether to tell the exact log-likelihood of the held-out rows too.
    """
    train, held = np.asarray(train)[:SEEN], np.asarray(held)[:SEEN]

    def look(rbm: RBM, epoch: int) -> dict[str, float]:
        seen = {
            "reconstruction": reconstruction(rbm, held),
            "free_energy_gap": free_energy_gap(rbm, train, held),
        }
        if rbm.visible == "bernoulli":
            seen["pseudo_likelihood"] = float(
                pseudo_likelihood(rbm, held[:FLIPPED]).mean()
            )
        if exact:
            log_z = log_partition(rbm)
            exact_held = enumeration.log_likelihood(rbm, held, log_z)
            seen["log_likelihood"] = float(exact_held.mean())
        return seen

    return look


def reconstruction(rbm: RBM, rows) -> float:
    """Returns the mean squared error of `rbm.reconstruct`, over rows and units."""
    return float(np.square(rows - np.asarray(rbm.reconstruct(rows))).mean())


def free_energy_gap(rbm: RBM, train, held) -> float:
    """Returns mean `F` of held-out rows less that of training rows, nats."""
    of_held, of_train = (np.mean(rbm.free_energy(rows)) for rows in (held, train))
    return float(of_held - of_train)


def pseudo_likelihood(rbm: RBM, rows) -> np.ndarray:
    """Returns the log pseudo-likelihood of each row, `(B,)`, over all bits, in nats.

    Args:
        rbm: a built `RBM` with Bernoulli visible units.
        rows: array `(B, V)` of zeros and ones; what lies between is rounded.

    Raises:
        ValueError: for Gaussian visible units, whose bits cannot be flipped.
    """
    if rbm.visible != "bernoulli":
        raise ValueError(
            "`rbm` must have Bernoulli visible units, whose bits can be flipped."
            f" Received: {rbm.visible}"
        )
    w = rbm.density()
    return _pseudo_likelihood(w, tf.round(tf.cast(rows, w.kernel.dtype))).numpy()


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _pseudo_likelihood(w, rows):
    def of_row(v):
        flip = 1 - 2 * v  # (V,), what flipping bit i adds to it
        a = energy.hidden_logits(w, v[None])  # (1, L)
        moved = flip[:, None] * w.kernel  # (V, L), what that adds to a
        gained = tf.nn.softplus(a + moved) - tf.nn.softplus(a) - w.hidden_offset * moved
        rise = -flip * w.visible_bias - tf.reduce_sum(gained, 1)  # of F, (V,)
        return tf.reduce_sum(tf.math.log_sigmoid(rise))

    return tf.map_fn(of_row, rows)


def log_partition(rbm: RBM) -> float:
    """Returns log Z in nats, as `enumeration.log_partition` up to rounding.

    Raises:
        ValueError: if neither side has at most 20 units to go through.
    """
    w = rbm.density()
    side, units = enumeration.smaller_side(w)
    return float(_log_partition(w, side, units))


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _log_partition(w, side, units):
    chunk, bits = min(CHUNK, 2**units), 2 ** tf.range(units)

    def of_chunk(n):
        numbers = n * chunk + tf.range(chunk)
        states = tf.cast(numbers[:, None] // bits % 2, w.kernel.dtype)  # (chunk, units)
        return tf.reduce_logsumexp(-side(w, states))

    chunks = tf.range(2**units // chunk)
    return tf.reduce_logsumexp(
        tf.map_fn(of_chunk, chunks, fn_output_signature=w.kernel.dtype)
    )
