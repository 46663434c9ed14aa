"""Exact numbers of small RBMs, by going through all states of the smaller side.

    log Z = log sum_v e^-F(v) = log sum_h e^-G(h)

Letters: `V` visible, `L` hidden units, `B` rows.
"""

from collections.abc import Callable

import numpy as np
from keras import ops

from engram.layers.rbm import energy

LIMIT = 20  # units: a million states
CHUNK = 2**14  # states at a time


def all_rows(units: int, dtype="float64"):
    """Returns all `2^units` rows of zeros and ones, `(2^units, units)`."""
    return ops.cast(numbered_rows(np.arange(2**units), units), dtype)


def numbered_rows(numbers: np.ndarray, units: int) -> np.ndarray:
    """Returns the rows of `all_rows` with the numbers given, `(B, units)`."""
    return (numbers[:, None] >> np.arange(units) & 1).astype(np.float64)


def log_weights(w: energy.Weights, side: Callable, units: int) -> np.ndarray:
    """Returns `-side(w, state)` of all states of one side, `(2^units,)`, in float64.

    Args:
        w: the RBM's weights.
        side: `energy.free_energy` or `energy.hidden_free_energy`.
        units: int, of the side that is gone through.
    """
    w, found = _float64(w), []
    for start in range(0, 2**units, CHUNK):
        states = numbered_rows(np.arange(start, min(start + CHUNK, 2**units)), units)
        found.append(ops.convert_to_numpy(-side(w, ops.convert_to_tensor(states))))
    return np.concatenate(found)


def smaller_side(w: energy.Weights) -> tuple[Callable, int]:
    """Returns the free energy of the side with fewer units, and how many these are.

    Raises:
        ValueError: if neither side has at most 20 units to go through.
    """
    visible, hidden = w.kernel.shape
    if w.log_variance is None and visible <= hidden:
        side, units = energy.free_energy, visible
    else:
        side, units = energy.hidden_free_energy, hidden
    if units > LIMIT:
        raise ValueError(
            f"the exact log Z enumerates the smaller side, of at most {LIMIT}"
            f" units. Received: {visible} visible and {hidden} hidden units"
        )
    return side, units


def log_partition(rbm) -> float:
    """Returns log Z, in nats.

    Raises:
        ValueError: as in `smaller_side`.
    """
    w = rbm.density()
    return float(np.logaddexp.reduce(log_weights(w, *smaller_side(w))))


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


def _float64(w: energy.Weights) -> energy.Weights:
    return energy.Weights(
        *(None if one is None else ops.cast(one, "float64") for one in w)
    )
