"""ConvSTLM computes its equation at every place, in one, two and three dimensions."""

import inspect
import itertools

import keras
import layer_checks
import numpy as np
import pytest
import scipy.signal
import stlm_equations as equations
import tensorflow as tf
from keras import ops

from engram.layers import ConvSTLM1D, ConvSTLM2D, ConvSTLM3D
from engram.layers.stlm import conv_stlm

B, T, C, U = 3, 4, 2, 2
CLASSES = {1: ConvSTLM1D, 2: ConvSTLM2D, 3: ConvSTLM3D}
SIZES = {1: (7,), 2: (5, 4), 3: (3, 4, 3)}
every_mode = pytest.mark.parametrize("combine, output_gates", equations.MODES)
every_rank = pytest.mark.parametrize("rank", [1, 2, 3])
MASK = np.array([[0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]], bool)


@pytest.fixture(params=[16, 0], ids=["unrolled", "loop"])
def either_way(request, monkeypatch):
    """Steps one after the other, or a loop over them."""
    monkeypatch.setattr(conv_stlm, "UNROLLED", request.param)


def _layer(rank=2, kernel_size=3, **kwargs):
    """Returns a built layer whose weights are all drawn, none is zero."""
    layer = CLASSES[rank](U, kernel_size, **kwargs)
    layer.build(_inputs(rank, layer.data_format).shape)
    return equations.draw_weights(layer)


def _inputs(rank=2, data_format="channels_last", steps=T, dtype="float64"):
    x = np.random.default_rng(2).normal(size=(B, steps, *SIZES[rank], C)).astype(dtype)
    return np.moveaxis(x, -1, 2) if data_format == "channels_first" else x


def _states(layer, dtype="float64"):
    """Returns `h, C_s, C_l`, channels last."""
    draw = np.random.default_rng(3)
    shapes = layer.state_shapes((B, T))
    return [draw.normal(size=shape).astype(dtype) for shape in shapes]


def _convolve(x, kernel, strides=1, padding="same", dilation=1):
    """Returns `x` `(B, *sizes, C)` times `kernel` `(*kernel sizes, C, O)`, float64."""
    rank = x.ndim - 2
    strides, dilation = (np.broadcast_to(value, rank) for value in (strides, dilation))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel.shape, dilation, strict=False)]
    wide = np.zeros((*reach, *kernel.shape[-2:]))
    wide[tuple(slice(None, None, d) for d in dilation)] = kernel
    if padding == "same":
        more = [
            max((-(-size // step) - 1) * step + r - size, 0)
            for size, step, r in zip(x.shape[1:-1], strides, reach, strict=True)
        ]
        around = [(m // 2, m - m // 2) for m in more]
        x = np.pad(x, [(0, 0), *around, (0, 0)])
    found = [
        [scipy.signal.correlate(one, wide[..., o], "valid")[..., 0] for one in x]
        for o in range(kernel.shape[-1])
    ]
    found = np.moveaxis(np.array(found), 0, -1)
    return found[:, *(slice(None, None, step) for step in strides)]


def _advance(layer):
    """Returns the equation of one step."""
    w = equations.weights(layer)

    def advance(x, states):
        z = _convolve(
            x, w["kernel"], layer.strides, layer.padding, layer.dilation_rate
        ) + w.get("bias", 0)
        z = z + _convolve(states[0], w["recurrent_kernel"])
        return equations.step(layer, z, *states[1:])

    return advance


def _check(layer, x, first=None, mask=None):
    """Asserts that outputs and states equal the equation's."""
    zeros = [np.zeros_like(state) for state in _states(layer)]
    every, _, last = equations.all_steps(
        _advance(layer), x, first or zeros, mask, layer.go_backwards
    )
    output, *states = layer(x, initial_state=first, mask=mask)
    wanted = every if layer.return_sequences else every[:, -1]
    for one, other in zip([output, *states], [wanted, *last], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@every_mode
@every_rank
def test_every_mode_equals_the_equation(combine, output_gates, rank, either_way):
    mode = {"combine": combine, "output_gates": output_gates}
    layer = _layer(
        rank, **mode, return_sequences=True, return_state=True, dtype="float64"
    )
    _check(layer, _inputs(rank)[:, :1])  # one step
    _check(layer, _inputs(rank), _states(layer))


@every_rank
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "kernel_size, strides, dilation_rate",
    [(1, 1, 1), (2, 1, 1), (3, 2, 1), (2, 1, 2), (2, 3, 1)],
)
def test_each_geometry_equals_the_equation(
    rank, padding, kernel_size, strides, dilation_rate
):
    kwargs = {"strides": strides, "padding": padding, "dilation_rate": dilation_rate}
    layer = _layer(rank, kernel_size, **kwargs, return_state=True, dtype="float64")
    x = _inputs(rank, steps=2)
    _check(layer, x, _states(layer))
    shapes = layer.compute_output_shape(x.shape)
    assert shapes == tuple(one.shape for one in layer(x))


def test_sizes_and_strides_may_differ_between_the_axes():
    layer = _layer(
        2, (3, 1), strides=(1, 2), use_bias=False, return_state=True, dtype="float64"
    )
    assert [weight.name for weight in layer.weights] == ["kernel", "recurrent_kernel"]
    _check(layer, _inputs(), _states(layer))


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_masked_steps_change_nothing(go_backwards, return_sequences, either_way):
    layer = _layer(
        go_backwards=go_backwards,
        return_sequences=return_sequences,
        return_state=True,
        dtype="float64",
    )
    for first in (None, _states(layer)):
        _check(layer, _inputs(), first, MASK)


def _all(layer, x, states, mask):
    """Returns outputs, and the gradients of inputs, states and weights."""
    x, *states = map(tf.convert_to_tensor, (x, *states))
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        found = layer(x, initial_state=states, mask=mask, training=True)
        wide = [ops.cast(one, "float32") if one.dtype.size < 4 else one for one in found]
        loss = sum(ops.sum(ops.square(one - 0.3)) for one in wide)
    weights = [weight.value for weight in layer.trainable_weights]
    return [*found, *tape.gradient(loss, [x, *states, *weights])]


@pytest.mark.parametrize("kwargs", [{}, {"dropout": 0.3, "recurrent_dropout": 0.4}])
def test_a_loop_has_the_gradients_of_its_steps_one_after_the_other(kwargs, monkeypatch):
    found = []
    for unrolled in (16, 0):
        monkeypatch.setattr(conv_stlm, "UNROLLED", unrolled)
        layer = _layer(1, **kwargs, seed=3, return_state=True, dtype="float64")
        found.append(_all(layer, _inputs(1), _states(layer), MASK))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "policy, tolerance", [("mixed_float16", 1), ("mixed_bfloat16", 8)]
)
def test_a_loop_has_these_gradients_under_a_mixed_policy(policy, tolerance, monkeypatch):
    found = []
    for unrolled in (16, 0):
        monkeypatch.setattr(conv_stlm, "UNROLLED", unrolled)
        layer = _layer(1, return_state=True, dtype=policy)
        x = _inputs(1, dtype="float32")
        all_of_it = _all(layer, x, _states(layer), MASK)
        found.append([np.asarray(ops.cast(one, "float32")) for one in all_of_it])
    for one, other in zip(*found, strict=True):
        scale = max(1, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=0.004 * tolerance * scale)


@every_rank
def test_channels_may_come_first(rank):
    kwargs = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    last = _layer(rank, **kwargs)
    first = _layer(rank, data_format="channels_first", **kwargs)
    x, states = _inputs(rank), _states(last)
    moved = [np.moveaxis(state, -1, 1) for state in states]
    given = np.moveaxis(x, -1, 2)
    output, *found = first(given, initial_state=moved, mask=MASK)
    wanted, *wanted_states = last(x, initial_state=states, mask=MASK)
    np.testing.assert_array_equal(np.moveaxis(output, 2, -1), wanted)
    for one, other in zip(found, wanted_states, strict=True):
        np.testing.assert_array_equal(np.moveaxis(one, 1, -1), other)
    shapes = first.compute_output_shape(given.shape)
    assert shapes == tuple(one.shape for one in (output, *found))


def test_dropout_acts_in_training_alone_and_is_the_same_at_all_steps():
    plain = _layer(dropout=0.0)
    x = _inputs(dtype="float32")
    for kwargs in ({"dropout": 0.5}, {"recurrent_dropout": 0.5}):
        layer = _layer(**kwargs, seed=3)
        np.testing.assert_array_equal(layer(x), plain(x))
        first, second = layer(x, training=True), layer(x, training=True)
        assert np.abs(first - plain(x)).max() > 0.01
        assert np.abs(first - second).max() > 0.01  # another draw
    layer = _layer(dropout=0.5, seed=3)
    drop = keras.random.dropout(
        np.ones((B, *SIZES[2], C), "float32"), 0.5, seed=keras.random.SeedGenerator(3)
    )
    found = layer(x, training=True)
    wanted = plain(x * np.asarray(drop)[:, None])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_a_stateful_layer_reads_a_sequence_in_two_halves(traced):
    whole = _layer(padding="same", return_sequences=True)
    layer = _layer(padding="same", return_sequences=True, stateful=True)
    x = _inputs(dtype="float32")
    run = tf.function(layer) if traced else layer
    wanted = whole(x)
    for _ in range(2):
        halves = [run(half) for half in np.split(x, 2, axis=1)]
        found = np.concatenate(halves, axis=1)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
        layer.reset_state()
    assert not any(np.any(state) for state in layer.states)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_the_memories_are_told_step_by_step(data_format, go_backwards):
    kwargs = {"data_format": data_format, "go_backwards": go_backwards}
    layer = _layer(**kwargs, dtype="float64")
    states = _states(layer)
    _, after, _ = equations.all_steps(
        _advance(layer), _inputs(), states, MASK, go_backwards
    )
    x = _inputs(data_format=data_format)
    if data_format == "channels_first":
        states = [np.moveaxis(state, -1, 1) for state in states]
    for found, wanted in zip(
        layer.memories(x, initial_state=states, mask=MASK), after[1:], strict=True
    ):
        if data_format == "channels_first":
            found = np.moveaxis(found, 2, -1)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_layers_stack_and_read_both_ways():
    lower = _layer(padding="same", return_sequences=True)
    both = keras.layers.Bidirectional(ConvSTLM2D(U, 2, combine="sum"))
    x = _inputs(dtype="float32")
    found = both(lower(x), mask=MASK)
    one, other = both.forward_layer, both.backward_layer
    assert other.go_backwards
    wanted = [layer(lower(x), mask=MASK) for layer in (one, other)]
    np.testing.assert_allclose(found, np.concatenate(wanted, -1), rtol=0, atol=1e-6)


def test_batch_and_time_may_be_unknown():
    inputs = keras.Input((None, *SIZES[2], C))
    layer = _layer(return_sequences=True)
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, None, 3, 2, 2 * U)
    for batch, steps in ((3, 4), (1, 2)):
        x = _inputs(dtype="float32")[:batch, :steps]
        found = model.predict(x, verbose=0)
        np.testing.assert_allclose(found, layer(x), rtol=0, atol=1e-6)


@every_rank
def test_the_config_keeps_every_argument(rank):
    layer = CLASSES[rank](
        U,
        (2,) * rank,
        strides=2,
        padding="same",
        data_format="channels_first",
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
    )
    config = layer.get_config()
    arguments = dict(inspect.signature(conv_stlm.ConvSTLM.__init__).parameters)
    for name in set(arguments) - {"self", "rank", "kwargs", "dilation_rate"}:
        assert config[name] != arguments[name].default, name
    assert config["strides"] == (2,) * rank
    dilated = CLASSES[rank](U, 2, dilation_rate=3).get_config()
    assert dilated["dilation_rate"] == (3,) * rank
    layer_checks.check_config(layer)


def test_a_fresh_process_reloads_every_rank(tmp_path):
    def model(rank, **kwargs):
        inputs = keras.Input((T, *SIZES[rank], C))
        outputs = keras.layers.Flatten()(_layer(rank, 2, **kwargs)(inputs))
        return inputs, outputs

    kwargs = {"padding": "same", "combine": "weighted", "dropout": 0.1}
    inputs, outputs = zip(*(model(rank, **kwargs) for rank in CLASSES), strict=True)
    whole = keras.Model(inputs, keras.layers.Concatenate()(outputs))
    given = [_inputs(rank, dtype="float32") for rank in CLASSES]
    layer_checks.check_reload(whole, given, tmp_path, "engram.layers.stlm.conv_stlm")


@every_mode
def test_mixed_precision_outputs_the_compute_dtype(combine, output_gates):
    def make(policy):
        return _layer(1, combine=combine, output_gates=output_gates, dtype=policy)

    layer_checks.check_policies(make, _inputs(1, dtype="float32"), tolerance=0.01)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_states_stay_in_float32_under_a_mixed_policy(policy):
    layer = _layer(1, return_state=True, stateful=True, dtype=policy)
    output, *states = layer(_inputs(1))
    assert output.dtype == keras.dtype_policies.get(policy).compute_dtype
    for kept, state in zip(layer.states, states, strict=True):
        assert state.dtype == "float32"
        np.testing.assert_array_equal(kept, state)


@every_rank
def test_every_weight_has_a_gradient(rank):
    layer = _layer(rank, combine="weighted", output_gates="separate")
    layer_checks.check_gradients(layer, _inputs(rank, dtype="float32"))


@pytest.mark.parametrize("steps", [4, 20])  # one after the other, and a loop
def test_a_compiled_training_step_equals_the_plain_one(steps):
    x = _inputs(1, steps=steps, dtype="float32")

    def make():
        return keras.Sequential([keras.Input(x.shape[1:]), _layer(1)])

    target = np.random.default_rng(4).normal(size=(B, 5, 2 * U))
    layer_checks.check_compiled_step(make, x, target)


def test_each_gate_draws_an_orthogonal_block_of_its_own():
    layer = ConvSTLM1D(4, 3, combine="sum", seed=1)
    layer.build((None, None, 7, C))
    blocks = np.split(layer.get_weights()[1], 6, axis=-1)  # (3, 4, 4) each
    for block in blocks:
        flat = block.reshape(-1, 4)
        np.testing.assert_allclose(flat.T @ flat, np.eye(4), rtol=0, atol=1e-5)
    for one, other in itertools.combinations(blocks, 2):
        assert np.abs(one - other).max() > 0.01, "two gates start as one"


@pytest.mark.parametrize(
    "argument, value",
    [
        ("filters", 0),
        ("kernel_size", 0),
        ("kernel_size", (3, 3, 3)),
        ("strides", 0),
        ("dilation_rate", (1, 0)),
        ("padding", "causal"),
        ("data_format", "channels_middle"),
        ("combine", "mean"),
        ("output_gates", "both"),
        ("short_horizon", 0.5),
        ("long_horizon", float("nan")),
        ("dropout", 1.0),
        ("recurrent_dropout", 1.0),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, value):
    def make(filters=U, kernel_size=3, **arguments):
        return ConvSTLM2D(filters, kernel_size, **arguments)

    layer_checks.check_refused(make, argument, value)


def test_strides_with_dilation_are_refused():
    with pytest.raises(ValueError, match="`strides` .* `dilation_rate`.*strides=2"):
        ConvSTLM2D(U, 3, strides=2, dilation_rate=2)


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"`kernel_size` \(6, 6\) .* \(5, 4\)"):
        ConvSTLM2D(U, 6)(_inputs())
    with pytest.raises(ValueError, match="`kernel_size`"):
        ConvSTLM2D(U, 3, dilation_rate=2)(_inputs())
    ConvSTLM2D(U, 6, padding="same")(_inputs())


@pytest.mark.parametrize("shape", [(T, None, 4, C), (T, 5, 4, None)])
def test_unknown_places_or_channels_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be known\. Received"):
        ConvSTLM2D(U, 3)(keras.Input(shape))


def test_a_mask_and_states_that_do_not_fit_are_refused():
    layer = _layer()
    states = _states(layer)
    with pytest.raises(ValueError, match=r"`mask` must have the shape .* Received: \(3"):
        layer(_inputs(), mask=np.ones((B, T + 1), bool))
    with pytest.raises(ValueError, match=r"`initial_state` .* Received: 2 state"):
        layer(_inputs(), initial_state=states[:2])
    with pytest.raises(ValueError, match="`initial_state`: C_l must have the shape"):
        layer(_inputs(), initial_state=[*states[:2], states[2][:, :-1]])
