"""How far back in time a recurrent layer's gradients reach.

    s_t = cell(x_t, s_{t-1})                       s: all states, h first
    |J^T u| with J = d h_T / d s_{T-k}             for the lags k = 0, 1, ..., T

`h_T` is the last output, `u` random signs, and every state is told by itself: of an LSTM
`h` and `c`, of an STLM `h`, `C_s` and `C_l`. Masks and dropout are left aside.
"""

import keras
import numpy as np
import tensorflow as tf

from engram.gradient_flow import chain_rule, graph
from engram.gradient_flow.chain_rule import Scaled


def can_be_told(layer) -> bool:
    """Whether the layer steps through time with one cell whose states are vectors."""
    if not isinstance(layer, keras.layers.RNN):
        return False
    stack = isinstance(layer.cell, keras.layers.StackedRNNCells)  # h is its last cell's
    return not stack and len(_sizes(layer)) > 0


def gradient_by_lag(layer, sequences, initial_state=None, seed: int = 1) -> np.ndarray:
    """Returns `ln` of the root of the mean square of `J^T u` for each lag and state.

    Args:
        layer: a built layer over time with a `cell`: `RNN`, `LSTM`, `GRU`, `STLM`, ...
        sequences: float array `(B, T, F)`.
        initial_state: list of states `(B, U)`; zeros if None.
        seed: int, of `u`.

    Returns:
        Array `(T + 1, states)`; at lag 0 the other states than `h` have -inf.
    """
    calls, first = steps(layer, sequences, initial_state)
    last = calls[-1].outputs
    seeds = [(last[0], chain_rule.scaled(chain_rule.signs(last[0], seed)))]
    pulled = chain_rule.pull(calls, seeds)
    at_start = [pulled.inputs.get(id(state)) for state in first]
    rows = [[_ln_mean(one) for one in at] for at in [*pulled.outputs[::-1], at_start]]
    return np.array(rows)


def state_jacobian(layer, sequence, initial_state=None) -> tuple[np.ndarray, float]:
    """Returns `d h_T / d h_0` `(U, U)` for one sequence `(T, F)`, and a logarithm.

    The Jacobian is the array times `e^log`.

    Args:
        layer: as of `gradient_by_lag`.
        sequence: float array `(T, F)`.
        initial_state: list of states `(1, U)`; zeros if None.
    """
    units = _sizes(layer)[0]
    rows = np.repeat(np.asarray(sequence)[None], units, 0)  # one for each output
    if initial_state is not None:
        initial_state = [tf.repeat(state, units, 0) for state in initial_state]
    calls, first = steps(layer, rows, initial_state)
    seed = chain_rule.scaled(tf.eye(units, dtype=first[0].dtype))
    pulled = chain_rule.pull(calls, [(calls[-1].outputs[0], seed)])
    found = pulled.inputs[id(first[0])]
    return np.asarray(found.value), float(found.log)


def steps(layer, sequences, initial_state=None) -> tuple[list[graph.Call], list]:
    """Returns the calls of the cell, one for each step, and the states before the first.

    Raises:
        ValueError: if the layer has no cell with vectors for states, or reads no vectors.
    """
    graph.require_tensorflow()
    if not can_be_told(layer) or np.ndim(sequences) != 3:
        raise ValueError(
            "`layer` must be a recurrent layer whose `cell` has vectors for states, such"
            " as GRU, LSTM or STLM, and is no stack of cells, and `sequences` (B, T, F)."
            f" Received: {type(layer).__name__!r} and {np.shape(sequences)}"
        )
    sequences = tf.cast(sequences, layer.compute_dtype)
    if layer.go_backwards:
        sequences = tf.reverse(sequences, [1])
    if initial_state is None:
        initial_state = layer.get_initial_state(batch_size=sequences.shape[0])
    states = first = [tf.identity(s) for s in keras.tree.flatten(initial_state)]
    calls = []
    for x in tf.unstack(sequences, axis=1):
        one, states = _step(layer.cell, x, states)
        calls.append(one)
    return calls, first


def _step(cell, x, states):
    form = cell.state_size

    def again():
        packed = keras.tree.pack_sequence_as(form, states)
        given = packed if isinstance(form, (list, tuple)) else [packed]
        _, new = cell(x, given, training=False)
        return [tf.identity(s) for s in keras.tree.flatten(new)]

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(states)
        new = again()
    return graph.Call(cell.name, cell, states, new, tape, again), new


def _sizes(layer) -> list[int]:
    found = keras.tree.flatten(getattr(layer, "state_size", []))
    return found if all(isinstance(size, int) for size in found) else []


def _ln_mean(one: Scaled | None) -> float:
    if one is None:
        return -np.inf
    found = float(chain_rule.ln_norm(one)) - 0.5 * np.log(float(tf.size(one.value)))
    return found if found > -1e20 else -np.inf
