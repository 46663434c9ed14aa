"""STLM computes its equation, whichever way is chosen, and fits where an LSTM fits."""

import subprocess
import sys

import keras
import layer_checks
import numpy as np
import pytest
import stlm_equations as equations
import tensorflow as tf
from keras import ops
from keras.src import backend

from engram import distribution
from engram.layers import STLM, STLMCell
from engram.layers.stlm import scan, stlm

B, T, F, U = 4, 5, 3, 2
every_mode = pytest.mark.parametrize("combine, output_gates", equations.MODES)
both_directions = pytest.mark.parametrize("go_backwards", [False, True])
MASKS = {
    "left": [0, 0, 1, 1, 1],
    "right": [1, 1, 1, 0, 0],
    "middle": [1, 0, 0, 1, 1],
    "nothing counts": [0, 0, 0, 0, 0],
    "everything counts": [1, 1, 1, 1, 1],
}


def _layer(combine="concat", output_gates="shared", cls=STLM, **kwargs):
    """Returns a built layer whose weights are all drawn, none is zero."""
    layer = cls(U, combine=combine, output_gates=output_gates, **kwargs)
    layer.build((B, T, F))
    return equations.draw_weights(layer)


def _inputs(dtype="float32", steps=T):
    return np.random.default_rng(2).normal(size=(B, steps, F)).astype(dtype)


def _states(layer, dtype="float32"):
    draw = np.random.default_rng(3)
    return [draw.normal(size=(B, size)).astype(dtype) for size in layer.state_size]


def _masks():
    """Returns masks `(B, T)`, each row of another kind; none is the same for all."""
    rows = list(MASKS.values())
    return [np.array(np.roll(rows, k, axis=0)[:B], bool) for k in range(0, 4, 2)]


def _close(found, wanted, tolerance=1e-5):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def _float(tensors):
    """Returns tensors as float32 or float64 arrays."""
    arrays = [ops.convert_to_numpy(ops.cast(t, _wide(t))) for t in tensors]
    return arrays


def _wide(tensor):
    return "float64" if tensor.dtype == "float64" else "float32"


def _all(layer, x, states, mask=None, training=False):
    """Returns the outputs, the states, and the gradients of all that has one."""
    x, *states = map(tf.convert_to_tensor, (x, *states))
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        found = layer(x, initial_state=states, mask=mask, training=training)
        wide = [ops.cast(one, _wide(one)) for one in found]
        loss = sum(ops.sum(ops.square(one - 0.3)) for one in wide)
    weights = [weight.value for weight in layer.trainable_weights]
    return [*wide, *tape.gradient(loss, [x, *states, *weights])]


def _compiled(layer, **kwargs):
    """Returns `_all` of a layer, traced; `jit_compile` compiles all of it."""
    return tf.function(lambda *given: _all(layer, *given), **kwargs)


def _twins(combine="concat", output_gates="shared", **kwargs):
    """Returns a layer and its equal that always goes step by step through the cell."""
    kwargs = {"return_sequences": True, "return_state": True, "seed": 3, **kwargs}
    return [
        _layer(combine, output_gates, fused=fused, **kwargs) for fused in (True, False)
    ]


@pytest.fixture
def scans(monkeypatch):
    """A list that grows by one whenever the compiled loop is taken."""
    taken, real = [], scan.scan

    def counted(*args):
        taken.append(args)
        return real(*args)

    monkeypatch.setattr(scan, "scan", counted)
    return taken


# The equation.


@every_mode
@both_directions
@pytest.mark.parametrize("traced", [False, True])
def test_every_mode_equals_the_equation(combine, output_gates, go_backwards, traced):
    kwargs = {"go_backwards": go_backwards, "return_state": True, "dtype": "float64"}
    layer = _layer(combine, output_gates, return_sequences=True, **kwargs)
    x, states = _inputs("float64"), _states(layer, "float64")
    run = tf.function(layer) if traced else layer
    zeros = [np.zeros_like(state) for state in states]
    for mask in _masks():
        for first in (zeros, states):
            sequence, *last = run(x, initial_state=first, mask=mask)
            wanted, _, wanted_last = equations.all_steps(
                lambda x_t, now: equations.one_step(layer, x_t, now),
                x,
                first,
                mask,
                go_backwards,
            )
            _close([sequence, *last], [wanted, *wanted_last], 1e-12)


@every_mode
@pytest.mark.parametrize("traced", [False, True])
def test_the_last_output_alone_is_the_last_of_all(combine, output_gates, traced):
    every = _layer(combine, output_gates, return_sequences=True)
    last = _layer(combine, output_gates)
    run = tf.function(last) if traced else last
    for mask in (None, *_masks()):
        wanted = every(_inputs(), mask=mask)[:, -1]
        np.testing.assert_allclose(run(_inputs(), mask=mask), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_without_a_bias_the_gates_read_input_and_state_alone(traced):
    layer = _layer(use_bias=False, return_sequences=True, dtype="float64")
    assert [weight.name for weight in layer.weights] == ["kernel", "recurrent_kernel"]
    x = _inputs("float64")
    zeros = [np.zeros((B, size)) for size in layer.state_size]
    wanted, *_ = equations.all_steps(
        lambda x_t, now: equations.one_step(layer, x_t, now), x, zeros
    )
    found = tf.function(layer)(x) if traced else layer(x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def _tied(blocks):
    """Returns the six blocks of a weight in the order `i, f, g, o` of an LSTM of 2U."""
    g, i_s, i_l, f_s, f_l, o = np.split(blocks, 6, axis=-1)
    return np.concatenate([i_s, i_l, f_s, f_l, g, g, o, o], axis=-1)


def _untied(gradient):
    """Returns the gradient of the six blocks: copies of one block add up."""
    i_s, i_l, f_s, f_l, g, g2, o, o2 = np.split(gradient, 8, axis=-1)
    return np.concatenate([g + g2, i_s, i_l, f_s, f_l, o + o2], axis=-1)


@both_directions
@pytest.mark.parametrize("traced", [False, True])
def test_concat_is_an_lstm_with_tied_candidate_and_output_gate(go_backwards, traced):
    kwargs = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    layer = _layer(go_backwards=go_backwards, **kwargs)
    lstm = keras.layers.LSTM(2 * U, go_backwards=go_backwards, **kwargs)
    lstm.build((B, T, F))
    lstm.set_weights([_tied(weight) for weight in layer.get_weights()])
    x, (h, short, long) = _inputs("float64"), _states(layer, "float64")
    mask = _masks()[0]
    run = _compiled(layer) if traced else lambda *given: _all(layer, *given)
    ours = run(x, [h, short, long], mask)
    theirs = _all(lstm, x, [h, np.concatenate([short, long], axis=1)], mask)
    (sequence, h, c), (dx, dh, dc), weights = theirs[:3], theirs[3:6], theirs[6:]
    memories, dmemories = np.split(c, 2, axis=1), np.split(dc, 2, axis=1)
    _close(ours[:4], [sequence, h, *memories], 1e-12)
    _close(ours[4:8], [dx, dh, *dmemories], 1e-12)
    _close(ours[8:], map(_untied, weights), 1e-12)


# The compiled loop.


@every_mode
@pytest.mark.parametrize("training, go_backwards", [(True, False), (False, True)])
def test_the_compiled_loop_equals_the_cell(
    combine, output_gates, training, go_backwards, scans
):
    fused, plain = _twins(combine, output_gates, go_backwards=go_backwards)
    x, states = _inputs(), _states(fused)
    run = _compiled(fused)
    for mask in _masks():
        found = run(x, states, tf.constant(mask), training)
        _close(found, _all(plain, x, states, mask))
    assert len(scans) == 1, "the compiled loop was not taken, or traced again"


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_compiled_loop_needs_no_mask(return_sequences, training, scans):
    fused, plain = _twins("weighted", "separate", return_sequences=return_sequences)
    x, states = _inputs(), _states(fused)
    _close(_compiled(fused)(x, states, None, training), _all(plain, x, states))
    assert len(scans) == 1


@both_directions
def test_the_compiled_loop_may_output_zeros_for_masked_steps(go_backwards, scans):
    for return_sequences in (False, True):
        fused, plain = _twins(
            "sum",
            zero_output_for_mask=True,
            go_backwards=go_backwards,
            return_sequences=return_sequences,
        )
        x, states, mask = _inputs(), _states(fused), _masks()[0]
        found = _compiled(fused)(x, states, tf.constant(mask))
        _close(found, _all(plain, x, states, mask))
        seen = mask[:, ::-1] if go_backwards else mask
        seen = seen if return_sequences else seen[:, -1]
        np.testing.assert_array_equal(np.any(found[0], axis=-1), seen)
    assert len(scans) == 2


@pytest.mark.parametrize(
    "combine, output_gates", [("concat", "shared"), ("sum", "separate")]
)
@pytest.mark.parametrize("use_bias", [True, False])
def test_the_compiled_loop_drops_what_the_cell_drops(
    combine, output_gates, use_bias, scans
):
    fused, plain = _twins(
        combine, output_gates, use_bias=use_bias, dropout=0.3, recurrent_dropout=0.4
    )
    x, states, mask = _inputs(), _states(fused), _masks()[0]
    run = _compiled(fused)
    first, second = (run(x, states, mask, True) for _ in range(2))
    for found in (first, second):
        _close(found, _all(plain, x, states, mask, True))
    assert np.abs(first[0] - second[0]).max() > 0.01  # another draw
    assert len(scans) == 1
    without, _ = _twins(combine, output_gates, use_bias=use_bias)
    _close(fused(x, mask=mask), without(x, mask=mask), 1e-6)


@pytest.mark.parametrize(
    "policy, tolerance", [("mixed_float16", 1), ("mixed_bfloat16", 8)]
)
@every_mode
def test_the_compiled_loop_equals_the_cell_under_a_mixed_policy(
    policy, tolerance, combine, output_gates, scans
):
    fused, plain = _twins(combine, output_gates, dtype=policy)
    x, states, mask = _inputs(), _states(fused), _masks()[0]
    found = _float(_compiled(fused)(x, states, tf.constant(mask), True))
    wanted = _float(_all(plain, x, states, mask))
    for one, other in zip(found, wanted, strict=True):
        # A product in half precision is off by some 2^-11 of its factors' size (bfloat16:
        # 2^-8), and a gradient sums up B T of them.
        scale = max(1, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=0.004 * tolerance * scale)
    assert len(scans) == 1


@pytest.mark.parametrize(
    "combine, output_gates", [("concat", "separate"), ("weighted", "shared")]
)
def test_the_compiled_loop_works_inside_a_compiled_model(combine, output_gates, scans):
    fused, plain = _twins(combine, output_gates)
    x, states, mask = _inputs(), _states(fused), _masks()[0]
    found = _compiled(fused, jit_compile=True)(x, states, tf.constant(mask), True)
    _close(found, _all(plain, x, states, mask))
    assert len(scans) == 1


@pytest.mark.parametrize(
    "kwargs, traced, steps",
    [({}, False, T), ({"unroll": True}, True, T), ({"fused": False}, True, T)]
    + [({}, True, None)],
)
def test_the_cell_is_taken_where_nothing_can_be_compiled(kwargs, traced, steps, scans):
    layer = _layer("sum", **kwargs)
    wanted = _layer("sum", fused=False)(_inputs())
    spec = tf.TensorSpec((None, steps, F))
    run = tf.function(layer, input_signature=[spec]) if traced else layer
    np.testing.assert_allclose(run(_inputs()), wanted, rtol=0, atol=1e-6)
    assert not scans


def test_the_compiled_loop_has_the_jacobian_of_the_cell():
    def jacobian(layer, x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            h = layer(x)
        return tape.jacobian(h, x, experimental_use_pfor=False)

    fused, plain = _twins(return_sequences=False, return_state=False)
    x = tf.constant(_inputs())
    found = tf.function(jacobian)(fused, x)
    assert found.shape == (B, 2 * U, B, T, F)
    np.testing.assert_allclose(found, jacobian(plain, x), rtol=0, atol=1e-5)


def test_unfused_it_is_differentiated_twice():
    def twice(layer, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = ops.sum(ops.square(layer(x)))
            size = ops.sum(ops.square(inner.gradient(loss, x)))
        return size, outer.gradient(size, x)

    _, plain = _twins("weighted", return_state=False, dtype="float64")
    x = tf.constant(_inputs("float64"))
    size, found = tf.function(twice)(plain, x)
    nudge = np.random.default_rng(5).normal(size=x.shape)
    ahead, back = (twice(plain, x + sign * 1e-5 * nudge)[0] for sign in (1, -1))
    slope = float(ahead - back) / 2e-5
    assert np.sum(found * nudge) == pytest.approx(slope, rel=1e-6)


# cuDNN.


@pytest.fixture
def cudnn(monkeypatch):
    """A stand-in for cuDNN's LSTM; a list that grows by one whenever it is taken."""
    taken = []

    def lstm(inputs, h, c, mask, *, kernel, recurrent_kernel, bias, **options):
        if mask is not None or bias is None or options["unroll"]:
            raise NotImplementedError
        assert options["activation"] is keras.activations.tanh
        assert options["recurrent_activation"] is keras.activations.sigmoid
        taken.append(inputs)

        def step(x, states):
            z = ops.matmul(x, kernel) + ops.matmul(states[0], recurrent_kernel) + bias
            i, f, g, o = ops.split(z, 4, axis=-1)
            c = ops.sigmoid(f) * states[1] + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
            return h, [h, c]

        back = options["go_backwards"]
        last, outputs, states = backend.rnn(
            step,
            inputs,
            [h, c],
            go_backwards=back,
            return_all_outputs=options["return_sequences"],
        )
        # Keras' JAX backend turns the outputs back; its loop over a cell does not.
        return last, ops.flip(outputs, 1) if back else outputs, states

    monkeypatch.setattr(stlm.backend, "lstm", lstm)
    return taken


@pytest.mark.parametrize("output_gates", equations.OUTPUT_GATES)
@both_directions
@pytest.mark.parametrize("return_sequences", [False, True])
def test_cudnn_gets_weights_and_states_that_make_it_equal_the_cell(
    output_gates, go_backwards, return_sequences, cudnn
):
    fused, plain = _twins(
        "concat",
        output_gates,
        go_backwards=go_backwards,
        return_sequences=return_sequences,
        dropout=0.3,
    )
    x, states = _inputs(), _states(fused)
    for training in (False, True):
        found = _all(fused, x, states, None, training)
        _close(found, _all(plain, x, states, None, training))
        plain.cell.seed_generator.state.assign(fused.cell.seed_generator.state)
    assert len(cudnn) == 2
    assert not fused.supports_jit  # XLA cannot compile cuDNN's LSTM


def test_cudnn_runs_in_float32_under_a_mixed_policy(cudnn):
    fused, plain = _twins(dtype="mixed_float16")
    x, states = _inputs(), _states(fused)
    output, *last = fused(x, initial_state=states)
    wanted, *wanted_last = plain(x, initial_state=states)
    assert cudnn[0].dtype == "float32" and output.dtype == "float16"
    assert {state.dtype for state in last} == {tf.float32}
    _close(_float([output, *last]), _float([wanted, *wanted_last]), 0.004)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"combine": "sum"},
        {"combine": "weighted"},
        {"use_bias": False},
        {"recurrent_dropout": 0.5},
        {"unroll": True},
        {"fused": False},
        {"mask": True},
    ],
)
def test_what_cudnn_cannot_take_goes_another_way(kwargs, cudnn):
    mask = _masks()[0] if kwargs.pop("mask", False) else None
    layer = _layer(**kwargs, seed=3)
    plain = _layer(**{**kwargs, "fused": False}, seed=3)
    found = layer(_inputs(), mask=mask, training=True)
    wanted = plain(_inputs(), mask=mask, training=True)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert not cudnn
    assert layer.supports_jit


def test_recurrent_dropout_leaves_cudnn_to_predict(cudnn):
    layer = _layer(recurrent_dropout=0.5)
    found = layer(_inputs())
    assert len(cudnn) == 1
    np.testing.assert_allclose(found, _layer(fused=False)(_inputs()), rtol=0, atol=1e-6)


# Where an LSTM would stand.


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("traced", [False, True])
def test_bidirectional_reads_masked_sequences_both_ways(return_sequences, traced):
    one = STLM(U, return_sequences=return_sequences)
    both = keras.layers.Bidirectional(one)
    both.build((B, T, F))
    equations.draw_weights(both)
    x, mask = _inputs(), _masks()[0]
    run = tf.function(both) if traced else both
    found = run(x, mask=mask)
    ahead = both.forward_layer(x, mask=mask)
    back = both.backward_layer(x, mask=mask)
    assert both.backward_layer.go_backwards
    if return_sequences:
        back = back[:, ::-1]
    wanted = ops.concatenate([ahead, back], axis=-1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_a_stateful_layer_reads_a_sequence_in_two_halves(traced):
    whole = _layer("weighted", return_sequences=True)
    layer = _layer("weighted", return_sequences=True, stateful=True)
    x = _inputs(steps=6)
    run = tf.function(layer) if traced else layer
    wanted = whole(x)
    for _ in range(2):
        halves = [run(half) for half in np.split(x, 2, axis=1)]
        found = np.concatenate(halves, axis=1)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
        layer.reset_state()
    assert not any(np.any(state) for state in layer.states)


def test_layers_stack_with_a_mask():
    lower, upper = STLM(U, return_sequences=True), STLM(3, combine="sum")
    model = keras.Sequential([keras.layers.Masking(-9.0), lower, upper])
    x = _inputs()
    gap = np.insert(x, [0, 3, T], -9, axis=1)  # before, amid and after
    wanted = model(x)
    np.testing.assert_allclose(upper(lower(x)), wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model(gap), wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.predict(gap, verbose=0), wanted, rtol=0, atol=1e-6)
    assert np.abs(upper(lower(gap)) - wanted).max() > 1e-3  # without a mask it matters


def test_stacked_cells_equal_layers_on_top_of_each_other():
    lower, upper = _layer(return_sequences=True), STLM(3, combine="sum")
    wanted = upper(lower(_inputs()))
    cells = keras.layers.StackedRNNCells([lower.cell, upper.cell])
    assert all(isinstance(cell, STLMCell) for cell in cells.cells)
    stacked = keras.layers.RNN(cells)
    np.testing.assert_allclose(stacked(_inputs()), wanted, rtol=0, atol=1e-6)


def test_a_decoder_starts_from_the_states_of_an_encoder():
    encoder, decoder = _layer(return_state=True), _layer(return_sequences=True)
    given, to_come = keras.Input((T, F)), keras.Input((T, F))
    _, *states = encoder(given)
    model = keras.Model([given, to_come], decoder(to_come, initial_state=states))
    whole = _layer(return_sequences=True)
    x = _inputs(steps=2 * T)
    found = model.predict([x[:, :T], x[:, T:]], verbose=0)
    np.testing.assert_allclose(found, whole(x)[:, T:], rtol=0, atol=1e-6)


def test_time_distributed_treats_every_sequence_alone():
    layer = _layer()
    x = np.stack([_inputs(), _inputs()[:, ::-1]], axis=1)  # (B, 2, T, F)
    found = keras.layers.TimeDistributed(layer)(x)
    for k in range(2):
        np.testing.assert_allclose(found[:, k], layer(x[:, k]), rtol=0, atol=1e-6)


def test_batch_and_time_may_be_unknown():
    inputs = keras.Input(batch_shape=(None, None, F))
    layer = STLM(U)
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, 2 * U)
    for batch, steps in ((3, 5), (1, 2)):
        x = _inputs()[:batch, :steps]
        found = model.predict(x, verbose=0)
        np.testing.assert_allclose(found, layer(x), rtol=0, atol=1e-6)


def test_the_config_keeps_every_argument():
    layer = STLM(
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
        return_sequences=True,
        return_state=True,
        go_backwards=True,
        stateful=True,
        unroll=True,
        fused=False,
        zero_output_for_mask=True,
        dtype="mixed_bfloat16",
        trainable=False,
        name="memory",
    )
    layer_checks.check_config(layer)
    copy = STLM.from_config(layer.get_config())
    assert copy.zero_output_for_mask and copy.name == "memory"
    for one in (copy, copy.cell):
        assert one.dtype_policy.name == "mixed_bfloat16"
        assert not one.trainable


def test_a_fresh_process_reloads_every_mode(tmp_path):
    inputs = keras.Input((T, F))
    layers = [_layer(*mode) for mode in equations.MODES]
    both = keras.layers.Bidirectional(STLM(U, dropout=0.1, recurrent_dropout=0.1))
    outputs = keras.layers.Concatenate()([one(inputs) for one in (*layers, both)])
    model = keras.Model(inputs, outputs)
    module = "engram.layers.stlm.stlm"
    layer_checks.check_reload(model, _inputs(), tmp_path, module)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("traced", [False, True])
def test_states_stay_in_float32_under_a_mixed_policy(policy, traced):
    layer = _layer(return_state=True, stateful=True, dtype=policy)
    output, *states = tf.function(layer)(_inputs()) if traced else layer(_inputs())
    assert output.dtype == keras.dtype_policies.get(policy).compute_dtype
    assert {state.dtype for state in states} == {tf.float32}
    for kept, state in zip(layer.states, states, strict=True):
        assert kept.dtype == "float32"
        np.testing.assert_array_equal(kept, state)


@every_mode
def test_mixed_precision_outputs_the_compute_dtype(combine, output_gates):
    def make(policy):
        return _layer(combine, output_gates, dtype=policy)

    layer_checks.check_policies(make, _inputs(), tolerance=0.01)


@pytest.mark.parametrize(
    "policy, traced",
    [("mixed_float16", True), ("mixed_bfloat16", True), ("mixed_bfloat16", False)],
)
def test_the_long_memory_adds_up_under_a_mixed_policy(policy, traced):
    def remembered(dtype, traced):
        layer = STLM(
            64, "sum", long_horizon=500.0, return_state=True, seed=1, dtype=dtype
        )
        layer.build((1, 500, 1))
        layer.cell.kernel.assign(ops.ones_like(layer.cell.kernel))
        zeros = ops.zeros_like(layer.cell.recurrent_kernel)  # each unit sums up alone
        layer.cell.recurrent_kernel.assign(zeros)
        x = np.full((1, 500, 1), 0.3, "float32")
        return ops.convert_to_numpy((tf.function(layer) if traced else layer)(x)[3])

    expected = remembered("float32", True)
    difference = np.abs(remembered(policy, traced) - expected).max() / expected.max()
    # The gates of bfloat16 are off by some 1%, so the time scales are. A memory in half
    # precision would round small additions away and be wrong by far more.
    assert difference < 0.05


@pytest.mark.parametrize("combine", equations.COMBINATIONS)
def test_gradients_over_200_steps_are_finite(combine):
    model = keras.Sequential([keras.Input((200, F)), _layer(combine)])
    layer_checks.check_gradients(model, _inputs(steps=200))


def _model(**kwargs):
    return keras.Sequential([keras.Input((T, F)), _layer(**kwargs)])


@pytest.mark.parametrize(
    "combine, output_gates", [("concat", "shared"), ("weighted", "separate")]
)
def test_a_compiled_training_step_equals_the_plain_one(combine, output_gates):
    width = 2 * U if combine == "concat" else U
    target = np.random.default_rng(4).normal(size=(B, width))
    layer_checks.check_compiled_step(
        lambda: _model(combine=combine, output_gates=output_gates), _inputs(), target
    )


# Without `jit_compile`: XLA takes no variables of a second CPU, of any Keras layer.
def test_two_devices_train_one_step_as_one_device_does(two_devices):
    target = np.random.default_rng(4).normal(size=(B, 2 * U))
    after = []
    for strategy in (distribution.strategy("mirrored"), tf.distribute.get_strategy()):
        with strategy.scope():
            model = _model()
            model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        before = model.get_weights()
        data = tf.data.Dataset.from_tensors((_inputs(), target)).unbatch().batch(B)
        model.fit(data, shuffle=False, verbose=0)
        after.append(model.get_weights())
        assert all(np.any(a != b) for a, b in zip(before, after[-1], strict=True))
    _close(*after, 1e-6)


DETERMINISTIC = """
import keras, numpy as np, tensorflow as tf
from engram.layers import STLM

tf.config.experimental.enable_op_determinism()

def trained():
    keras.utils.set_random_seed(1)
    layers = [keras.Input((5, 3)), STLM(2, dropout=0.2, recurrent_dropout=0.2)]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(16, 5, 3)), draw.normal(size=(16, 1))
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    return model.get_weights()

for one, again in zip(trained(), trained(), strict=True):
    np.testing.assert_array_equal(one, again)
"""


def test_with_deterministic_ops_it_trains_the_same_twice():
    run = [sys.executable, "-c", DETERMINISTIC]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_regularizers_add_to_the_loss_and_constraints_act_after_a_step():
    regular = {
        f"{name}_regularizer": keras.regularizers.L2(factor)
        for name, factor in (("kernel", 0.1), ("recurrent", 0.2), ("bias", 0.3))
    }
    layer = _layer(**regular)
    kernel, recurrent, bias = (np.square(w).sum() for w in layer.get_weights())
    found = [float(loss) for loss in layer.losses]
    np.testing.assert_allclose(
        sorted(found), sorted([0.1 * kernel, 0.2 * recurrent, 0.3 * bias]), rtol=1e-5
    )
    limits = {f"{name}_constraint": "non_neg" for name in ("kernel", "recurrent", "bias")}
    model = _model(**limits)
    assert all((weight < 0).any() for weight in model.get_weights())
    model.compile("sgd", "mse", jit_compile=False)
    model.train_on_batch(_inputs(), np.zeros((B, 2 * U)))
    assert all((weight >= 0).all() for weight in model.get_weights())


# What the memories hold.


@every_mode
@both_directions
def test_the_memories_are_told_step_by_step(combine, output_gates, go_backwards):
    layer = _layer(combine, output_gates, go_backwards=go_backwards, dtype="float64")
    x, states = _inputs("float64"), _states(layer, "float64")
    zeros = [np.zeros_like(state) for state in states]
    for mask in (None, *_masks()):
        for first in (None, states):
            found = layer.memories(x, initial_state=first, mask=mask)
            _, after, _ = equations.all_steps(
                lambda x_t, now: equations.one_step(layer, x_t, now),
                x,
                first or zeros,
                mask,
                go_backwards,
            )
            _close(found, after[1:], 1e-12)


def test_to_tell_the_memories_changes_no_state():
    layer = _layer("sum", stateful=True)
    layer(_inputs())
    before = [np.array(state) for state in layer.states]
    short, long = layer.memories(_inputs())
    _close(layer.states, before, 0)
    layer(_inputs())
    _close(layer.states[1:], [short[:, -1], long[:, -1]], 1e-6)


def test_the_memories_of_a_layer_not_yet_called_are_told():
    layer = STLM(U, "weighted", return_state=True)
    short, long = layer.memories(_inputs())
    _close(layer(_inputs())[2:], [short[:, -1], long[:, -1]], 1e-6)


# What is refused.


@pytest.mark.parametrize(
    "argument, value",
    [
        ("units", 0),
        ("combine", "mean"),
        ("output_gates", "both"),
        ("short_horizon", 0.5),
        ("long_horizon", 0.5),
        ("long_horizon", float("nan")),
        ("dropout", 1.0),
        ("recurrent_dropout", 1.0),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, value):
    def make(units=U, **arguments):
        return STLM(units, **arguments)

    layer_checks.check_refused(make, argument, value)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("shape", [(B, T + 1), (B + 1, T), (B,), (B, T, F)])
def test_a_mask_of_another_shape_is_refused(shape, traced):
    layer = _layer()
    run = tf.function(layer, autograph=False) if traced else layer
    with pytest.raises(ValueError) as raised:
        run(_inputs(), mask=np.ones(shape, bool))
    assert f"`mask` must have the shape (batch, time) = {(B, T)}" in str(raised.value)
    assert f"Received: {shape}" in str(raised.value)


def test_another_number_of_states_is_refused():
    with pytest.raises(ValueError, match=r"`initial_state` .* Received: 2 state"):
        _layer()(_inputs(), initial_state=[np.zeros((B, 2 * U)), np.zeros((B, 2 * U))])


@pytest.mark.parametrize("k, name", [(0, "h"), (1, "C_s"), (2, "C_l")])
@pytest.mark.parametrize("shape", [(B, U + 7), (B + 1, U), (U,)])
def test_a_state_of_another_shape_is_refused_by_name(k, name, shape):
    layer = _layer("sum")
    states = _states(layer)
    states[k] = np.zeros(shape, "float32")
    with pytest.raises(ValueError) as raised:
        layer(_inputs(), initial_state=states)
    assert f"`initial_state`: {name} must have the shape {(B, U)}" in str(raised.value)
    assert f"Received: {shape}" in str(raised.value)
