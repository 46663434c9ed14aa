"""Gradients over time are those of a tape through the whole layer."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from engram.gradient_flow import chain_rule, over_time
from engram.layers import STLM

UNITS, STEPS, FEATURES = 4, 6, 3
LAYERS = {
    "SimpleRNN": lambda: keras.layers.SimpleRNN(UNITS, return_state=True),
    "GRU": lambda: keras.layers.GRU(UNITS, return_state=True),
    "GRU, reset before": lambda: keras.layers.GRU(
        UNITS, return_state=True, reset_after=False
    ),
    "LSTM": lambda: keras.layers.LSTM(UNITS, return_state=True),
    "STLM": lambda: STLM(UNITS // 2, return_state=True),
    "STLM, sum": lambda: STLM(UNITS, combine="sum", return_state=True),
}


def drawn(name, rows):
    """Returns a layer with weights of no special form, sequences and first states."""
    draw = np.random.default_rng(1)
    layer = LAYERS[name]()
    layer.build((rows, STEPS, FEATURES))
    for weight in layer.trainable_variables:
        weight.assign(draw.normal(0, 0.6, weight.shape))
    x = tf.constant(draw.normal(size=(rows, STEPS, FEATURES)), tf.float32)
    form = keras.tree.flatten(layer.get_initial_state(batch_size=rows))
    return layer, x, [tf.constant(draw.normal(size=s.shape), tf.float32) for s in form]


def run(layer, x, states):
    """Returns the last output and the last states."""
    output, *last = layer(x, initial_state=states)
    return output, last


@pytest.mark.parametrize("name", LAYERS)
def test_the_jacobian_of_the_state_is_that_of_a_tape(name):
    layer, x, states = drawn(name, 1)
    with tf.GradientTape() as tape:
        tape.watch(states[0])
        output, _ = run(layer, x, states)
    expected = tape.jacobian(output, states[0])[0, :, 0]  # (U, U), row: an output
    found, log = over_time.state_jacobian(layer, x[0], states)
    np.testing.assert_allclose(found * np.exp(log), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected - np.transpose(expected)).max() > 1e-3  # not symmetric


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lag", [1, 4, STEPS])
def test_gradients_by_lag_are_those_of_a_tape(name, lag):
    layer, x, states = drawn(name, 5)
    between = states
    if lag < STEPS:
        _, between = run(layer, x[:, : STEPS - lag], states)
    with tf.GradientTape() as tape:
        tape.watch(between)
        output, _ = run(layer, x[:, STEPS - lag :], between)
        asked = tf.reduce_sum(output * chain_rule.signs(output, 1))
    logs = over_time.gradient_by_lag(layer, x, states)
    assert logs.shape == (STEPS + 1, len(states))
    for found, one in zip(logs[lag], tape.gradient(asked, between), strict=True):
        size = -np.inf if one is None else np.log(np.square(one).mean()) / 2
        assert found == pytest.approx(size, abs=1e-4)


def test_the_page_tells_how_fast_gradients_fall_over_time():
    docs = Path(__file__).parents[2] / "docs"
    page = " ".join((docs / "gradient_flow.md").read_text(encoding="utf-8").split())
    found = json.loads((docs / "gradient_over_time.json").read_text())
    falls = {name: round(row["steps_to_a_tenth"]) for name, row in found.items()}
    plain = [falls[name] for name in ("SimpleRNN", "GRU", "LSTM")]
    assert "nine tenths of it about every {}, {} and {} steps".format(*plain) in page
    assert f"(chrono) loses them in {falls['LSTM, chrono']} steps" in page
    assert f"long memory of STLM in {falls['STLM, long memory']}," in page
    assert f"that of ParallelSTLM in {falls['ParallelSTLM, long memory']}." in page
    short = falls["ParallelSTLM, short memory"]
    assert f"nine tenths every {short} steps" in page
    assert max(*plain, short) * 5 < falls["STLM, long memory"]


def test_a_stack_of_cells_is_refused_by_name():
    cells = [keras.layers.GRUCell(3), keras.layers.GRUCell(2)]
    layer = keras.layers.RNN(cells)
    assert not over_time.can_be_told(layer)
    with pytest.raises(ValueError, match="is no stack of cells.* 'RNN'"):
        over_time.steps(layer, np.ones((2, 5, 3), "float32"))
