"""Exact numbers of small RBMs, by going through all states of the smaller side.

    log Z = log sum_v e^-F(v) = log sum_h e^-G(h)

Letters: `V` visible, `L` hidden units, `B` rows.
"""

import numpy as np
from keras import ops

from engram.layers.rbm import energy

LIMIT = 20  # units: a million states
CHUNK = 2**14  # states at a time


def all_rows(units: int, dtype="float64"):
    """Returns all `2^units` rows of zeros and ones, `(2^units, units)`."""
    return ops.cast(_rows(np.arange(2**units), units), dtype)


def log_partition(rbm) -> float:
    """Returns log Z, in nats.

    Raises:
        ValueError: if neither side has at most 20 units to go through.
    """
    w = _float64(rbm.density())
    visible, hidden = w.kernel.shape
    discrete = w.log_variance is None
    if discrete and visible <= hidden:
        side, units = energy.free_energy, visible
    else:
        side, units = energy.hidden_free_energy, hidden
    if units > LIMIT:
        raise ValueError(
            f"the exact log Z enumerates the smaller side, of at most {LIMIT}"
            f" units. Received: {visible} visible and {hidden} hidden units"
        )
    total = -np.inf
    for start in range(0, 2**units, CHUNK):
        states = _rows(np.arange(start, min(start + CHUNK, 2**units)), units)
        found = ops.convert_to_numpy(-side(w, ops.convert_to_tensor(states)))
        total = np.logaddexp(total, np.logaddexp.reduce(found))
    return float(total)


def log_likelihood(rbm, rows, log_z: float | None = None) -> np.ndarray:
    """Returns log p of each row, `(B,)`, in nats.

    Args:
        rbm: a built `RBM`.
        rows: float array `(B, V)`.
        log_z: of this RBM, if it is known already, exactly or estimated.
    """
    log_z = log_partition(rbm) if log_z is None else log_z
    w = _float64(rbm.density())
    rows = ops.convert_to_tensor(np.asarray(rows, np.float64))
    return -ops.convert_to_numpy(energy.free_energy(w, rows)) - log_z


def _rows(numbers: np.ndarray, units: int) -> np.ndarray:
    """Returns the binary digits of each number, `(B, units)`."""
    return (numbers[:, None] >> np.arange(units) & 1).astype(np.float64)


def _float64(w: energy.Weights) -> energy.Weights:
    return energy.Weights(
        *(None if one is None else ops.cast(one, "float64") for one in w)
    )
