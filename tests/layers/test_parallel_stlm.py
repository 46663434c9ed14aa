"""ParallelSTLM computes its equation over whole sequences, as a loop would."""

import keras
import layer_checks
import numpy as np
import pytest
import stlm_equations as equations
import tensorflow as tf
from keras import ops

from engram import distribution
from engram.layers import ParallelSTLM
from engram.layers.stlm import parallel_stlm

B, T, F, U = 4, 5, 3, 2
every_mode = pytest.mark.parametrize("combine, output_gates", equations.MODES)
both_directions = pytest.mark.parametrize("go_backwards", [False, True])
traced_or_not = pytest.mark.parametrize("traced", [False, True])
MASK = np.array(
    [[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 1, 1], [0, 0, 0, 0, 0]], bool
)


def _layer(combine="concat", output_gates="shared", **kwargs):
    """Returns a built layer whose weights are all drawn, none is zero."""
    layer = ParallelSTLM(U, combine=combine, output_gates=output_gates, **kwargs)
    layer.build((None, None, F))
    return equations.draw_weights(layer)


def _inputs(dtype="float32", steps=T):
    return np.random.default_rng(2).normal(size=(B, steps, F)).astype(dtype)


def _memories(dtype="float64"):
    draw = np.random.default_rng(3)
    return [draw.normal(size=(B, U)).astype(dtype) for _ in range(2)]


def _equation(layer, x, memories, mask=None):
    """Returns the outputs in the order of computing, the last one, `C_s` and `C_l`."""
    short, long = memories
    w = equations.weights(layer)
    outputs, last = [], 0
    for t in range(T)[::-1] if layer.go_backwards else range(T):
        z = x[:, t] @ w["kernel"] + w.get("bias", 0)
        g, i_s, i_l, f_s, f_l, *o = equations.gates(z, layer.output_gates)
        counts = np.ones((B, 1), bool) if mask is None else mask[:, t, None]
        short = np.where(counts, f_s * short + i_s * g, short)
        long = np.where(counts, f_l * long + i_l * g, long)
        mode = layer.combine, layer.output_gates
        h = equations.output(*o, short, long, w.get("mix"), *mode)
        outputs.append(np.where(counts, h, 0))
        last = np.where(counts, h, last)
    return np.stack(outputs, axis=1), last, short, long


@every_mode
@both_directions
@traced_or_not
def test_every_mode_equals_the_equation(combine, output_gates, go_backwards, traced):
    kwargs = {"go_backwards": go_backwards, "return_state": True, "dtype": "float64"}
    x, zeros = _inputs("float64"), [np.zeros((B, U))] * 2
    everything = np.ones((B, T), bool) if traced else None  # needs no trace of its own
    for return_sequences in (False, True):
        layer = _layer(combine, output_gates, return_sequences=return_sequences, **kwargs)
        run = tf.function(layer) if traced else layer
        for mask in (everything, MASK):
            for first in (zeros, _memories()):
                found = run(x, initial_state=first, mask=mask)
                every, last, *states = _equation(layer, x, first, mask)
                wanted = [every if return_sequences else last, *states]
                for one, other in zip(found, wanted, strict=True):
                    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@traced_or_not
def test_without_a_bias_the_gates_read_the_input_alone(traced):
    layer = _layer("sum", use_bias=False, return_sequences=True, dtype="float64")
    assert [weight.name for weight in layer.weights] == ["kernel"]
    x = _inputs("float64")
    found = tf.function(layer)(x) if traced else layer(x)
    wanted, *_ = _equation(layer, x, [np.zeros((B, U))] * 2)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def _all(layer, x, states, mask):
    """Returns the outputs, and the gradients of inputs, states and weights."""
    x, *states = map(tf.convert_to_tensor, (x, *states))
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        found = layer(x, initial_state=states, mask=mask)
        wide = [ops.cast(one, "float32") if one.dtype.size < 4 else one for one in found]
        loss = sum(ops.sum(ops.square(one - 0.3)) for one in wide)
    weights = [weight.value for weight in layer.trainable_weights]
    return [*found, *tape.gradient(loss, [x, *states, *weights])]


@every_mode
def test_the_compiled_steps_have_the_gradients_of_plain_ones(
    combine, output_gates, monkeypatch
):
    compiled = []
    real = parallel_stlm._compiled
    counted = lambda: compiled.append(1) or real()  # noqa: E731
    monkeypatch.setattr(parallel_stlm, "_compiled", counted)
    kwargs = {"return_sequences": True, "return_state": True, "go_backwards": True}
    layer = _layer(combine, output_gates, **kwargs)
    given = _inputs(), _memories("float32")
    run = tf.function(lambda *given: _all(layer, *given))
    for mask in (None, MASK) if output_gates == "shared" else (MASK,):
        wanted = _all(layer, *given, mask)
        assert not compiled
        for one, other in zip(run(*given, mask), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
        assert compiled.pop()


@pytest.mark.parametrize(
    "policy, tolerance", [("mixed_float16", 1), ("mixed_bfloat16", 8)]
)
@every_mode
def test_the_compiled_steps_equal_plain_ones_under_a_mixed_policy(
    policy, tolerance, combine, output_gates
):
    kwargs = {"return_sequences": True, "return_state": True, "dtype": policy}
    layer = _layer(combine, output_gates, **kwargs)
    given = _inputs(), _memories("float32"), MASK
    found = tf.function(lambda *given: _all(layer, *given))(*given)
    for one, other in zip(found, _all(layer, *given), strict=True):
        one, other = (np.asarray(ops.cast(value, "float32")) for value in (one, other))
        # A product in half precision is off by some 2^-11 of its factors' size (bfloat16:
        # 2^-8), and a gradient sums up B T of them.
        scale = max(1, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=0.004 * tolerance * scale)


def test_gradients_equal_finite_differences():
    layer = _layer("weighted", "separate", return_state=True, dtype="float64")
    x, states = _inputs("float64"), _memories()
    *_, dx, dshort, dlong, dkernel, dbias, dmix = _all(layer, x, states, MASK)

    def loss(nudge):
        """Returns the loss after a step from all given values and weights."""
        layer.set_weights([w + nudge * d for w, d in zip(weights, ways[3:], strict=True)])
        short, long = (s + nudge * d for s, d in zip(states, ways[1:3], strict=True))
        found = layer(x + nudge * ways[0], initial_state=[short, long], mask=MASK)
        return float(sum(np.sum(np.square(one - 0.3)) for one in found))

    weights = layer.get_weights()
    draw = np.random.default_rng(4)
    slopes = [dx, dshort, dlong, dkernel, dbias, dmix]
    ways = [draw.normal(size=slope.shape) for slope in slopes]
    wanted = (loss(1e-5) - loss(-1e-5)) / 2e-5
    found = sum(np.sum(s * d) for s, d in zip(slopes, ways, strict=True))
    assert found == pytest.approx(wanted, rel=1e-7)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_bidirectional_reads_masked_sequences_both_ways(return_sequences):
    both = keras.layers.Bidirectional(ParallelSTLM(U, return_sequences=return_sequences))
    x = _inputs()
    found = both(x, mask=MASK)
    ahead, back = (one(x, mask=MASK) for one in (both.forward_layer, both.backward_layer))
    assert both.backward_layer.go_backwards
    back = back[:, ::-1] if return_sequences else back
    wanted = ops.concatenate([ahead, back], axis=-1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_a_masked_step_changes_nothing_in_a_stack():
    lower, upper = _layer(return_sequences=True), ParallelSTLM(3, combine="sum")
    model = keras.Sequential([keras.layers.Masking(-9.0), lower, upper])
    x = _inputs()
    gap = np.insert(x, [0, 3, T], -9, axis=1)  # before, amid and after
    wanted = model(x)
    np.testing.assert_allclose(upper(lower(x)), wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model(gap), wanted, rtol=0, atol=1e-6)
    assert np.abs(upper(lower(gap)) - wanted).max() > 1e-3  # without a mask it matters


def test_a_decoder_starts_from_the_memories_of_an_encoder():
    encoder, decoder = _layer(return_state=True), _layer(return_sequences=True)
    given, to_come = keras.Input((T, F)), keras.Input((T, F))
    _, *memories = encoder(given)
    model = keras.Model([given, to_come], decoder(to_come, initial_state=memories))
    x = _inputs(steps=2 * T)
    found = model.predict([x[:, :T], x[:, T:]], verbose=0)
    whole = _layer(return_sequences=True)(x)
    np.testing.assert_allclose(found, whole[:, T:], rtol=0, atol=1e-6)


def test_batch_and_time_may_be_unknown():
    inputs = keras.Input(batch_shape=(None, None, F))
    layer = _layer(return_sequences=True)
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, None, 2 * U)
    for batch, steps in ((3, 5), (1, 2)):
        x = _inputs()[:batch, :steps]
        found = model.predict(x, verbose=0)
        np.testing.assert_allclose(found, layer(x), rtol=0, atol=1e-6)


def test_sequences_of_an_unknown_length_train():
    model = keras.Sequential([keras.Input((None, F)), _layer("weighted")])
    before = model.get_weights()
    model.compile("sgd", "mse", jit_compile=False)
    unknown = tf.TensorSpec((None, None, F)), tf.TensorSpec((None, U))
    batches = [(_inputs(steps=steps), np.zeros((B, U))) for steps in (3, 4)]
    data = tf.data.Dataset.from_generator(lambda: batches, output_signature=unknown)
    data = data.apply(tf.data.experimental.assert_cardinality(2))
    model.fit(data, shuffle=False, verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_the_config_keeps_every_argument():
    layer = ParallelSTLM(
        U,
        combine="weighted",
        output_gates="separate",
        short_horizon=3.0,
        long_horizon=24.0,
        use_bias=False,
        kernel_initializer="he_normal",
        bias_initializer="ones",
        kernel_regularizer="l2",
        bias_regularizer=keras.regularizers.L2(0.3),
        kernel_constraint="non_neg",
        bias_constraint=keras.constraints.MaxNorm(2),
        seed=7,
        return_sequences=True,
        return_state=True,
        go_backwards=True,
    )
    layer_checks.check_config(layer)


def test_a_fresh_process_reloads_every_mode(tmp_path):
    inputs = keras.Input((T, F))
    layers = [_layer(*mode) for mode in equations.MODES]
    layers += [keras.layers.Bidirectional(ParallelSTLM(U))]
    outputs = keras.layers.Concatenate()([one(inputs) for one in layers])
    model = keras.Model(inputs, outputs)
    module = "engram.layers.stlm.parallel_stlm"
    layer_checks.check_reload(model, _inputs(), tmp_path, module)


@every_mode
def test_mixed_precision_outputs_the_compute_dtype(combine, output_gates):
    def make(policy):
        return _layer(combine, output_gates, dtype=policy)

    layer_checks.check_policies(make, _inputs(), tolerance=0.01)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_long_memory_adds_up_under_a_mixed_policy(policy):
    def remembered(dtype):
        layer = ParallelSTLM(
            64, "sum", long_horizon=500.0, return_state=True, seed=1, dtype=dtype
        )
        layer.build((1, 500, 1))
        layer.kernel.assign(ops.ones_like(layer.kernel))
        x = np.full((1, 500, 1), 0.3, "float32")
        return tf.function(layer)(x)[2]

    expected, found = remembered("float32"), remembered(policy)
    assert found.dtype == "float32"
    # The gates of bfloat16 are off by some 1%, so the time scales are. A memory in half
    # precision would round small additions away and be wrong by far more.
    assert np.abs(found - expected).max() / np.max(expected) < 0.05


@pytest.mark.parametrize("combine", equations.COMBINATIONS)
def test_gradients_over_500_steps_are_finite(combine):
    model = keras.Sequential([keras.Input((500, F)), _layer(combine)])
    layer_checks.check_gradients(model, _inputs(steps=500))


def test_a_compiled_training_step_equals_the_plain_one():
    def make():
        return keras.Sequential([keras.Input((T, F)), _layer("weighted")])

    target = np.random.default_rng(4).normal(size=(B, U))
    layer_checks.check_compiled_step(make, _inputs(), target)


def test_two_devices_train_one_step_as_one_device_does(two_devices):
    target = np.random.default_rng(4).normal(size=(B, U))
    after = []
    for strategy in (distribution.strategy("mirrored"), tf.distribute.get_strategy()):
        with strategy.scope():
            model = keras.Sequential([keras.Input((T, F)), _layer("weighted")])
            model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        before = model.get_weights()
        data = tf.data.Dataset.from_tensors((_inputs(), target)).unbatch().batch(B)
        model.fit(data, shuffle=False, verbose=0)
        after.append(model.get_weights())
        assert all(np.any(a != b) for a, b in zip(before, after[-1], strict=True))
    for one, other in zip(*after, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_each_memory_starts_with_time_scales_up_to_its_horizon():
    layer = ParallelSTLM(1000, short_horizon=6.0, long_horizon=50.0, seed=1)
    layer.build((None, None, F))
    g, i_s, i_l, f_s, f_l, o = np.split(layer.get_weights()[1], 6)
    for f, i, horizon in ((f_s, i_s, 6), (f_l, i_l, 50)):
        scales = np.exp(f)  # steps
        assert 1 <= scales.min() < 1 + horizon / 100
        assert horizon * 0.99 < scales.max() <= horizon * (1 + 1e-6)
        np.testing.assert_array_equal(i, -f)
    np.testing.assert_array_equal([g, o], np.zeros((2, 1000)))


@pytest.mark.parametrize(
    "argument, value",
    [
        ("units", 0),
        ("combine", "mean"),
        ("output_gates", "both"),
        ("short_horizon", 0.5),
        ("long_horizon", 0.5),
        ("long_horizon", float("nan")),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, value):
    def make(units=U, **arguments):
        return ParallelSTLM(units, **arguments)

    layer_checks.check_refused(make, argument, value)


def test_another_number_of_states_is_refused():
    with pytest.raises(ValueError, match=r"`initial_state` .* Received: 3 state"):
        _layer()(_inputs(), initial_state=[np.zeros((B, U))] * 3)


@pytest.mark.parametrize("shape", [(B, 1), (B, T + 1), (B + 1, T), (B, T, 1), (B,)])
def test_a_mask_of_another_shape_is_refused(shape):
    """One of `(B, 1)` was spread over all steps, and the last output was their sum."""
    with pytest.raises(ValueError, match=r"`mask` must have the shape \(batch, time\)"):
        _layer()(_inputs(), mask=np.ones(shape, bool))
