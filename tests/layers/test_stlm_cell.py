"""The STLM cell computes its equation, and works wherever Keras puts a cell."""

import subprocess
import sys

import keras
import layer_checks
import numpy as np
import pytest
import stlm_equations as equations
import tensorflow as tf
from keras import ops

from engram.layers import STLMCell

B, T, F, U = 3, 7, 4, 5
every_mode = pytest.mark.parametrize("combine, output_gates", equations.MODES)
every_combination = pytest.mark.parametrize("combine", equations.COMBINATIONS)


def _cell(combine="concat", output_gates="shared", **kwargs):
    """Returns a built cell whose weights are all drawn, none is zero."""
    cell = STLMCell(U, combine=combine, output_gates=output_gates, **kwargs)
    cell.build((None, F))
    return equations.draw_weights(cell)


def _inputs(dtype="float32", steps=T):
    return np.random.default_rng(2).normal(size=(B, steps, F)).astype(dtype)


def _states(cell, dtype="float64"):
    draw = np.random.default_rng(3)
    return [draw.normal(size=(B, size)).astype(dtype) for size in cell.state_size]


@every_mode
@pytest.mark.parametrize("use_bias", [True, False])
def test_one_step_equals_the_equation(combine, output_gates, use_bias):
    cell = _cell(combine, output_gates, use_bias=use_bias, dtype="float64")
    names = {"kernel", "recurrent_kernel"} | ({"bias"} if use_bias else set())
    names |= {"mix"} if combine == "weighted" else set()
    assert {weight.name for weight in cell.weights} == names
    x, states = _inputs("float64")[:, 0], _states(cell)
    output, new = cell(x, states)
    expected = equations.one_step(cell, x, states)
    np.testing.assert_array_equal(output, new[0])
    for found, wanted in zip(new, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@every_mode
def test_a_sequence_equals_the_equation_step_after_step(combine, output_gates):
    cell = _cell(combine, output_gates, dtype="float64")
    rnn = keras.layers.RNN(cell, return_sequences=True, dtype="float64")
    x, states = _inputs("float64"), _states(cell)
    found = ops.convert_to_numpy(rnn(x, initial_state=states))
    for t in range(T):
        states = equations.one_step(cell, x[:, t], states)
        np.testing.assert_allclose(found[:, t], states[0], rtol=0, atol=1e-12)


@every_combination
def test_a_sequence_starts_from_memories_of_zero(combine):
    cell = _cell(combine, dtype="float64")
    rnn = keras.layers.RNN(cell, dtype="float64")
    x = _inputs("float64")
    zeros = [np.zeros((B, size)) for size in cell.state_size]
    np.testing.assert_array_equal(rnn(x), rnn(x, initial_state=zeros))


def _tied(blocks):
    """Returns the six blocks of a weight in the order `i, f, g, o` of an LSTM of 2U."""
    g, i_s, i_l, f_s, f_l, o = np.split(blocks, 6, axis=-1)
    return np.concatenate([i_s, i_l, f_s, f_l, g, g, o, o], axis=-1)


def _untied(gradient):
    """Returns the gradient of the six blocks: copies of one block add up."""
    i_s, i_l, f_s, f_l, g, g2, o, o2 = np.split(gradient, 8, axis=-1)
    return np.concatenate([g + g2, i_s, i_l, f_s, f_l, o + o2], axis=-1)


def test_concat_is_an_lstm_with_tied_candidate_and_output_gate():
    cell = _cell("concat", dtype="float64")
    stlm = keras.layers.RNN(cell, return_sequences=True, dtype="float64")
    lstm = keras.layers.LSTM(2 * U, return_sequences=True, dtype="float64")
    x = _inputs("float64")
    lstm.build(x.shape)
    lstm.set_weights([_tied(weight) for weight in cell.get_weights()])
    np.testing.assert_allclose(stlm(x), lstm(x), rtol=0, atol=1e-12)

    ours = layer_checks.gradients(stlm, x)
    theirs = map(_untied, layer_checks.gradients(lstm, x))
    for found, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)
    assert sum(w.size for w in ours) * 4 == lstm.count_params() * 3


def test_the_config_keeps_every_argument():
    cell = STLMCell(
        U,
        combine="weighted",
        output_gates="separate",
        short_horizon=3.0,
        long_horizon=24.0,
        use_bias=False,
        kernel_initializer="he_normal",
        recurrent_initializer=keras.initializers.RandomNormal(stddev=0.1),
        bias_initializer="ones",
        kernel_regularizer="l2",
        recurrent_regularizer="l1",
        bias_regularizer=keras.regularizers.L2(0.3),
        kernel_constraint="non_neg",
        recurrent_constraint="unit_norm",
        bias_constraint=keras.constraints.MaxNorm(2),
        dropout=0.1,
        recurrent_dropout=0.2,
        seed=7,
    )
    layer_checks.check_config(cell)


def test_a_fresh_process_reloads_every_combination(tmp_path):
    inputs = keras.Input((None, F))
    rnns = [keras.layers.RNN(_cell(combine)) for combine in equations.COMBINATIONS]
    outputs = keras.layers.Concatenate()([rnn(inputs) for rnn in rnns])
    model = keras.Model(inputs, outputs)
    module = "engram.layers.stlm.stlm_cell"
    layer_checks.check_reload(model, _inputs(), tmp_path, module)


def test_batch_and_time_may_be_unknown():
    inputs = keras.Input(batch_shape=(None, None, F))
    rnn = keras.layers.RNN(_cell())
    model = keras.Model(inputs, rnn(inputs))
    assert model.output_shape == (None, 2 * U)
    for batch, steps in ((3, 7), (1, 2)):
        x = _inputs()[:batch, :steps]
        found = model.predict(x, verbose=0)
        np.testing.assert_allclose(found, rnn(x), rtol=0, atol=1e-6)


@every_combination
def test_a_masked_step_changes_nothing(combine):
    cell = _cell(combine)
    rnn = keras.layers.RNN(cell, return_state=True)
    x = _inputs()
    gap = np.insert(x, [0, 3, T], -9, axis=1)  # before, amid and after
    mask = keras.layers.Masking(-9.0)
    expected = rnn(x)
    assert len(expected) == 4
    for found, wanted in zip(rnn(mask(gap)), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert np.abs(rnn(gap)[0] - expected[0]).max() > 0.01  # without a mask it matters


@every_combination
def test_mixed_precision_outputs_the_compute_dtype(combine):
    def make(policy):
        return keras.layers.RNN(_cell(combine, dtype=policy), dtype=policy)

    layer_checks.check_policies(make, _inputs(), tolerance=0.01)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_long_memory_of_a_float32_cell_adds_up_under_a_mixed_policy(policy):
    def remembered(dtype):
        cell = STLMCell(
            64, long_horizon=500.0, kernel_initializer="ones", seed=1, dtype="float32"
        )
        cell.build((None, 1))
        zeros = np.zeros(cell.recurrent_kernel.shape)  # each unit sums up on its own
        cell.recurrent_kernel.assign(zeros)
        rnn = keras.layers.RNN(cell, return_state=True, dtype=dtype)
        long = tf.function(rnn)(np.full((1, 500, 1), 0.3, "float32"))[3]
        return ops.convert_to_numpy(ops.cast(long, "float32"))

    expected = remembered("float32")
    difference = np.abs(remembered(policy) - expected).max() / expected.max()
    assert difference < 0.02  # its small additions are not rounded away


@every_combination
def test_gradients_over_200_steps_are_finite(combine):
    rnn = keras.layers.RNN(_cell(combine))
    layer_checks.check_gradients(rnn, _inputs(steps=200))


def test_the_long_memory_passes_on_gradients_that_the_short_one_forgets():
    # Without recurrent weights a memory alone carries what came at the first step.
    cell = STLMCell(50, "sum", long_horizon=200.0, recurrent_initializer="zeros", seed=1)
    cell.build((None, F))
    x = tf.constant(_inputs(steps=100))
    sizes = []
    for memory in (1, 2):
        with tf.GradientTape() as tape:
            tape.watch(x)
            states = cell.get_initial_state(B)
            for t in range(100):
                _, states = cell(x[:, t], states)
            kept = ops.sum(states[memory])
        sizes.append(np.abs(tape.gradient(kept, x)[:, 0]).max())
    short, long = sizes
    assert long > 1e6 * short


def test_both_directions_of_bidirectional_equal_the_layer():
    x = _inputs()
    rnn = keras.layers.RNN(STLMCell(U))
    both = keras.layers.Bidirectional(rnn)
    found = both(x)
    assert found.shape == (B, 4 * U)
    expected = [both.forward_layer(x), both.backward_layer(x[:, ::-1])]
    one_way = keras.layers.RNN(both.forward_layer.cell)
    np.testing.assert_allclose(expected[0], one_way(x), rtol=0, atol=1e-6)
    one_way = keras.layers.RNN(both.backward_layer.cell)
    np.testing.assert_allclose(found[:, 2 * U :], one_way(x[:, ::-1]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[:, : 2 * U], expected[0], rtol=0, atol=1e-6)


def test_stacked_cells_equal_layers_on_top_of_each_other():
    x = _inputs()
    lower, upper = _cell("concat"), STLMCell(2, combine="sum")
    stacked = keras.layers.RNN(keras.layers.StackedRNNCells([lower, upper]))
    found = stacked(x)
    h = keras.layers.RNN(lower, return_sequences=True)(x)
    np.testing.assert_allclose(found, keras.layers.RNN(upper)(h), rtol=0, atol=1e-6)


def test_time_distributed_treats_every_sequence_alone():
    rnn = keras.layers.RNN(_cell())
    x = np.stack([_inputs(), _inputs()[:, ::-1]], axis=1)  # (B, 2, T, F)
    found = keras.layers.TimeDistributed(rnn)(x)
    for k in range(2):
        np.testing.assert_allclose(found[:, k], rnn(x[:, k]), rtol=0, atol=1e-6)


def test_an_unrolled_layer_equals_a_loop():
    cell, x = _cell(), _inputs()
    unrolled = keras.layers.RNN(cell, unroll=True)
    np.testing.assert_allclose(unrolled(x), keras.layers.RNN(cell)(x), rtol=0, atol=1e-6)


def test_a_compiled_training_step_equals_the_plain_one():
    def make():
        return keras.Sequential([keras.Input((T, F)), keras.layers.RNN(_cell())])

    target = np.random.default_rng(4).normal(size=(B, 2 * U))
    layer_checks.check_compiled_step(make, _inputs(), target)


@pytest.mark.parametrize("output_gates, others", [("shared", 2), ("separate", 3)])
def test_each_memory_starts_with_time_scales_up_to_its_horizon(output_gates, others):
    cell = STLMCell(
        1000,
        output_gates=output_gates,
        short_horizon=6.0,
        long_horizon=50.0,
        recurrent_initializer="zeros",  # quick to draw
        bias_initializer="ones",
        seed=1,
    )
    cell.build((None, F))
    g, i_s, i_l, f_s, f_l, *o = np.split(cell.get_weights()[2], 4 + others)
    for f, i, horizon in ((f_s, i_s, 6), (f_l, i_l, 50)):
        scales = np.exp(f)  # steps: uniform, so its mean is in the middle
        assert 1 <= scales.min() < 1 + horizon / 100
        assert horizon * 0.99 < scales.max() <= horizon * (1 + 1e-6)
        assert scales.mean() == pytest.approx((1 + horizon) / 2, rel=0.05)
        np.testing.assert_array_equal(i, -f)
    assert abs(np.corrcoef(f_s, f_l)[0, 1]) < 0.2  # each memory draws its own
    np.testing.assert_array_equal(g, 1)
    np.testing.assert_array_equal(o, np.ones((others - 1, 1000)))


def test_horizons_of_one_step_start_with_gates_half_open():
    cell = STLMCell(U, short_horizon=1, long_horizon=1)
    cell.build((None, F))
    np.testing.assert_array_equal(cell.get_weights()[2], 0)


def _second_draw(cell, x, states):
    """Returns the new `h` in training after the masks were drawn anew."""
    cell.reset_dropout_mask()
    cell.reset_recurrent_dropout_mask()
    return np.asarray(cell(x, states, training=True)[0])


@pytest.mark.parametrize("argument", ["dropout", "recurrent_dropout"])
def test_dropout_scales_what_it_keeps_and_acts_in_training_alone(argument):
    cell = _cell("sum", dtype="float64", **{argument: 0.5}, seed=3)
    plain = _cell("sum", dtype="float64")
    x, states = _inputs("float64")[:, 0], _states(cell)
    np.testing.assert_array_equal(cell(x, states)[0], plain(x, states)[0])
    found = _second_draw(cell, x, states)
    if argument == "dropout":
        drop = np.asarray(cell.get_dropout_mask(x))
        x = x * drop
    else:
        drop = np.asarray(cell.get_recurrent_dropout_mask(states[0]))
        states = [states[0] * drop, *states[1:]]
    assert set(np.unique(drop)) == {0, 2}
    wanted = equations.one_step(cell, x, states)[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_equal_seeds_draw_equal_biases_and_other_seeds_others():
    def bias(seed):
        cell = STLMCell(U, seed=seed)
        cell.build((None, F))
        return cell.get_weights()[2]

    np.testing.assert_array_equal(bias(1), bias(1))
    assert np.any(bias(1) != bias(2))
    assert np.any(bias(None) != bias(None))


@pytest.mark.parametrize("seed", [None, 1])
def test_each_gate_draws_an_orthogonal_block_of_its_own(seed):
    initializer = keras.initializers.Orthogonal(seed=seed)
    cell = STLMCell(U, recurrent_initializer=initializer)
    cell.build((None, F))
    blocks = np.split(cell.get_weights()[1], 6, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(U), rtol=0, atol=1e-5)
    for k, block in enumerate(blocks):
        for other in blocks[:k]:
            assert np.abs(block - other).max() > 0.01, "two gates start as one"


@pytest.mark.parametrize(
    "argument, value",
    [
        ("units", 0),
        ("units", -1),
        ("units", 2.5),
        ("combine", "mean"),
        ("output_gates", "both"),
        ("short_horizon", 0.5),
        ("short_horizon", float("nan")),
        ("long_horizon", 0.5),
        ("long_horizon", float("nan")),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("recurrent_dropout", 1.0),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, value):
    def make(units=U, **arguments):
        return STLMCell(units, **arguments)

    layer_checks.check_refused(make, argument, value)


def test_importing_the_package_of_layers_does_not_import_keras():
    code = (
        "import sys, engram.layers\n"
        "assert 'keras' not in sys.modules\n"
        "assert 'STLMCell' in engram.layers.__all__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_layer_is_an_attribute_error():
    import engram.layers

    with pytest.raises(AttributeError, match="STLMCel'"):
        _ = engram.layers.STLMCel
