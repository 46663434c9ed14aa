"""AttentionRNN computes its equations, step by step as in one pass, with every cell."""

import keras
import layer_checks
import numpy as np
import pytest
import recurrent_attention_equations as equations
import tensorflow as tf
from keras import ops, tree

from engram.layers.attention.attention_rnn import AttentionRNN
from engram.layers.attention.bahdanau_attention import BahdanauAttention
from engram.layers.attention.luong_attention import LuongAttention
from engram.layers.stlm.stlm_cell import STLMCell

B, T, S, F, M, U = 4, 5, 6, 3, 2, 4
MASK = np.array(
    [[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool
)
MEMORY_MASK = np.array([[1] * 6, [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1], [0] * 6], bool)
CELLS = {
    "GRU": lambda **kwargs: keras.layers.GRUCell(U, **kwargs),
    "LSTM": lambda **kwargs: keras.layers.LSTMCell(U, **kwargs),
    "SimpleRNN": lambda **kwargs: keras.layers.SimpleRNNCell(U, **kwargs),
    "STLM": lambda **kwargs: STLMCell(U, **kwargs),
    "stacked": lambda dtype=None, **kwargs: keras.layers.StackedRNNCells(
        [
            keras.layers.LSTMCell(3, dtype=dtype, **kwargs),
            keras.layers.GRUCell(U, dtype=dtype, **kwargs),
        ],
        dtype=dtype,
    ),
}
ATTENTIONS = {
    "Bahdanau": lambda **kwargs: BahdanauAttention(5, **kwargs),
    "dot": lambda **kwargs: LuongAttention("dot", **kwargs),
    "general": lambda **kwargs: LuongAttention("general", **kwargs),
    "concat": lambda **kwargs: LuongAttention("concat", 5, **kwargs),
}
every_cell = pytest.mark.parametrize("cell", CELLS)
every_attention = pytest.mark.parametrize("attention", ATTENTIONS)
both_kinds = pytest.mark.parametrize("attention", ["Bahdanau", "general"])


def _new(cell="GRU", attention="Bahdanau", dtype=None, dropout=0.0, **kwargs):
    cell = CELLS[cell](dtype=dtype, dropout=dropout, recurrent_dropout=dropout)
    attention = ATTENTIONS[attention](dtype=dtype) if attention else None
    return AttentionRNN(cell, attention, dtype=dtype, **kwargs)


def _layer(cell="GRU", attention="Bahdanau", **kwargs):
    """Returns a built layer whose weights are all drawn, none is zero."""
    layer = _new(cell, attention, **kwargs)
    layer.build((B, T, F), attention and (B, S, _depth(layer)))
    return equations.draw_weights(layer)


def _depth(layer):
    """Returns the width of the memory: another than the cell's where it may be."""
    return layer.width if getattr(layer.attention, "score", None) == "dot" else M


def _inputs(layer=None, dtype="float32"):
    draw = np.random.default_rng(2)
    depth = M if layer is None else _depth(layer)
    return [draw.normal(size=size).astype(dtype) for size in ((B, T, F), (B, S, depth))]


def _states(layer, dtype="float32"):
    draw = np.random.default_rng(3)
    zeros = layer.initial(B)[0]
    return tree.map_structure(
        lambda one: draw.normal(size=one.shape).astype(dtype), zeros
    )


def _close(found, wanted, tolerance=1e-5):
    found, wanted = tree.flatten(found), tree.flatten(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


# The equations.


@every_cell
@every_attention
def test_it_equals_the_equations(cell, attention):
    kwargs = {"dtype": "float64", "return_state": True}
    layer = _layer(cell, attention, **kwargs)
    x, memory = _inputs(layer, "float64")
    masks = {"memory_mask": MEMORY_MASK, "mask": MASK}
    for given in ({}, masks):
        for states in (None, _states(layer, "float64")):
            found = layer(
                x, memory, initial_state=states, return_attention_scores=True, **given
            )
            y, (last, fed), alpha = found
            wanted = equations.decode(layer, x, memory, states=states, **given)
            _close([y, alpha, last], wanted, 1e-12)
            np.testing.assert_array_equal(fed, y[:, -1])


@both_kinds
def test_without_input_feeding_the_cell_reads_x_alone(attention):
    layer = _layer("GRU", attention, input_feeding=False, dtype="float64")
    assert layer.cell.kernel.shape[0] == F
    x, memory = _inputs(dtype="float64")
    wanted, *_ = equations.decode(layer, x, memory, MEMORY_MASK, MASK)
    _close(layer(x, memory, memory_mask=MEMORY_MASK, mask=MASK), wanted, 1e-12)


@every_cell
@pytest.mark.parametrize("mask", [None, MASK])
def test_without_an_attention_it_is_keras_rnn(cell, mask):
    layer = _layer(cell, None, return_state=True)
    plain = keras.layers.RNN(layer.cell, return_sequences=True, return_state=True)
    x, _ = _inputs()
    y, (states, _) = layer(x, mask=mask)
    wanted, *last = plain(x, mask=mask)
    _close([y, states], [wanted, last], 1e-6)
    assert layer.step(x[:, 0], layer.initial(B))[2] is None


# Step by step.


@every_cell
@every_attention
def test_steps_equal_the_pass(cell, attention):
    layer = _layer(cell, attention)
    x, memory = _inputs(layer)
    first = _states(layer)
    whole, alphas = layer(
        x,
        memory,
        memory_mask=MEMORY_MASK,
        initial_state=first,
        return_attention_scores=True,
    )
    keys = layer.attention.project(memory)
    state = layer.initial(B, first)
    for t in range(T):
        y, state, alpha = layer.step(x[:, t], state, memory, keys, MEMORY_MASK)
        _close([y, alpha], [whole[:, t], alphas[:, t]])


@every_cell
@both_kinds
def test_steps_go_on_where_a_pass_ended(cell, attention):
    layer = _layer(cell, attention, return_state=True)
    x, memory = _inputs()
    whole, last = layer(x, memory, memory_mask=MEMORY_MASK)
    _, state = layer(x[:, :2], memory, memory_mask=MEMORY_MASK)
    for t in range(2, T):
        y, state, _ = layer.step(x[:, t], state, memory, memory_mask=MEMORY_MASK)
        _close(y, whole[:, t])
    _close(state, last)


def test_a_compiled_step_takes_the_state_it_returns():
    layer = _layer("stacked", "general")
    x, memory = _inputs()
    step = tf.function(layer.step, jit_compile=True)
    whole, state = layer(x, memory), layer.initial(B)
    for t in range(T):
        y, state, _ = step(x[:, t], state, memory)
        _close(y, whole[:, t])
    assert step.experimental_get_tracing_count() == 1


# Scores and masks.


@both_kinds
@pytest.mark.parametrize("mask", [None, MASK])
def test_scores_change_nothing_and_sum_to_one(attention, mask):
    layer = _layer("LSTM", attention)
    x, memory = _inputs()
    given = {"memory_mask": MEMORY_MASK, "mask": mask}
    y, alpha = layer(x, memory, return_attention_scores=True, **given)
    np.testing.assert_array_equal(layer(x, memory, **given), y)
    steps = np.ones((B, T), bool) if mask is None else mask
    seen = steps[:, :, None] & MEMORY_MASK[:, None]
    assert not np.any(np.asarray(alpha)[~seen])
    np.testing.assert_allclose(ops.sum(alpha, -1), seen.any(-1), rtol=0, atol=1e-6)


@both_kinds
def test_hidden_memory_and_masked_steps_cannot_be_noticed(attention):
    layer = _layer("GRU", attention, return_state=True)
    x, memory = _inputs()
    given = {"memory_mask": MEMORY_MASK, "mask": MASK, "return_attention_scores": True}
    wanted = layer(x, memory, **given)
    x[~MASK], memory[~MEMORY_MASK] = 1e6, 1e6
    _close(layer(x, memory, **given), wanted, 0)


@both_kinds
def test_a_masked_step_repeats_the_output_before_it(attention):
    layer = _layer("GRU", attention)
    x, memory = _inputs()
    y = np.asarray(layer(x, memory, mask=MASK))
    before = np.concatenate([np.zeros_like(y[:, :1]), y[:, :-1]], axis=1)
    np.testing.assert_array_equal(y[~MASK], before[~MASK])
    shorter = layer(x[:1, :3], memory[:1])
    _close(y[:1, :3], shorter, 1e-6)


@both_kinds
def test_blind_rows_have_finite_gradients(attention):
    layer = _layer("GRU", attention)
    x, memory = map(tf.constant, _inputs())
    with tf.GradientTape() as tape:
        tape.watch([x, memory])
        y = layer(x, memory, memory_mask=MEMORY_MASK, mask=MASK)
        loss = ops.sum(ops.square(y))
    weights = [weight.value for weight in layer.trainable_weights]
    for gradient in tape.gradient(loss, [x, memory, *weights]):
        assert np.isfinite(gradient).all()


@both_kinds
def test_masks_that_tensors_carry_are_used_and_passed_on(attention):
    source, target = np.array([[3, 1, 0], [2, 0, 0]]), np.array([[1, 2], [3, 0]])
    embed = keras.layers.Embedding(4, M, mask_zero=True)
    layer = _new("GRU", attention)
    inputs = keras.Input((None,)), keras.Input((None,))
    y, alpha = layer(embed(inputs[0]), embed(inputs[1]), return_attention_scores=True)
    model = keras.Model(inputs, [y, alpha])
    for outputs in (
        model([target, source]),
        layer(embed(target), embed(source), return_attention_scores=True),
    ):
        seen = (target > 0)[:, :, None] & (source > 0)[:, None]
        np.testing.assert_array_equal(np.asarray(outputs[1]) > 0, seen)
    np.testing.assert_array_equal(outputs[0]._keras_mask, target > 0)
    explicit = layer(
        *(np.asarray(embed(tokens)) for tokens in (target, source)),
        memory_mask=source > 0,
        mask=target > 0,
    )
    _close(explicit, outputs[0], 1e-6)


# Shapes known and unknown.


@both_kinds
@pytest.mark.parametrize("masked", [False, True])
def test_known_and_unknown_sizes_give_the_same_output_and_gradients(attention, masked):
    layer = _layer("stacked", attention, return_state=True)
    first = _states(layer)
    weights = [weight.value for weight in layer.trainable_weights]

    def run(x, memory, memory_mask, mask):
        masks = {"memory_mask": memory_mask, "mask": mask} if masked else {}
        with tf.GradientTape() as tape:
            tape.watch([x, memory])
            found = tree.flatten(
                layer(
                    x, memory, initial_state=first, return_attention_scores=True, **masks
                )
            )
            loss = sum(ops.sum(ops.square(one - 0.3)) for one in found)
        return found, tape.gradient(loss, [x, memory, *weights])

    given = list(map(tf.constant, (*_inputs(), MEMORY_MASK, MASK)))
    wanted = run(*given)
    for known in ((1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 0, 0)):
        signature = [
            tf.TensorSpec(one.shape if k else (None, None, *one.shape[2:]), one.dtype)
            for one, k in zip(given, known, strict=True)
        ]
        _close(tf.function(run, input_signature=signature)(*given), wanted)


def test_sizes_stay_known_where_they_are():
    x, memory = keras.Input((T, F)), keras.Input((S, M))
    y, alpha = _new()(x, memory, return_attention_scores=True)
    assert y.shape == (None, T, U) and alpha.shape == (None, T, S)
    x, memory = keras.Input((None, F)), keras.Input((None, M))
    y, alpha = _new()(x, memory, return_attention_scores=True)
    assert y.shape == (None, None, U) and alpha.shape == (None, None, None)
    layer, shapes = _layer(), []

    @tf.function
    def run(x, memory):
        shapes.extend(one.shape for one in layer(x, memory, return_attention_scores=True))

    run(*_inputs())
    assert shapes == [(B, T, U), (B, T, S)]


# Training.


def _model(cell="GRU", attention="Bahdanau", **kwargs):
    """Returns a decoder over `x` that looks at what an encoder makes of the same `x`."""
    x = keras.Input((None, F))
    memory, state = keras.layers.GRU(U, return_sequences=True, return_state=True)(x)
    states = {"initial_state": [state]} if cell == "GRU" else {}
    y = _new(cell, attention, **kwargs)(x, memory, **states)
    return keras.Model(x, y)


@every_cell
@both_kinds
def test_every_weight_learns(cell, attention):
    layer_checks.check_gradients(_model(cell, attention), _inputs()[0])


def test_a_compiled_training_step_equals_a_plain_one():
    def make():
        keras.utils.set_random_seed(1)
        x = keras.layers.Masking()(inputs := keras.Input((None, F)))
        y = _new("GRU", "general")(_new("stacked", "Bahdanau")(x, x), x)
        return keras.Model(inputs, y)

    x = np.where(MASK[:, :, None], _inputs()[0], 0)
    layer_checks.check_compiled_step(make, x, np.ones((B, T, U), "float32"))


@pytest.mark.parametrize("cell", ["LSTM", "STLM"])
@both_kinds
def test_mixed_precision_is_near_to_float32(cell, attention):
    x, memory = _inputs()

    def make(policy):
        layer = _new(cell, attention, dtype=policy)
        return keras.Sequential([_Remembering(layer, memory, dtype=policy)])

    layer_checks.check_policies(make, x, tolerance=0.02)
    layer = _new(cell, attention, dtype="mixed_float16", return_state=True)
    _, (states, y), alpha = layer(x, memory, return_attention_scores=True)
    kept = "float32" if cell == "STLM" else "float16"
    assert {one.dtype.name for one in states} == {kept}
    assert (y.dtype.name, alpha.dtype.name) == ("float16", "float32")


class _Remembering(keras.layers.Layer):
    """An AttentionRNN as a layer of `x` alone."""

    def __init__(self, layer, memory, **kwargs):
        super().__init__(**kwargs)
        self.layer, self.memory = layer, memory

    def build(self, x_shape):
        self.layer.build(x_shape, self.memory.shape)

    def call(self, x):
        return self.layer(x, self.memory)


@pytest.mark.parametrize("cell", ["GRU", "STLM", "stacked"])
def test_dropout_is_drawn_anew_for_each_call_and_never_at_inference(cell):
    layer, (x, memory) = _new(cell, dropout=0.4), _inputs()
    _close(layer(x, memory), layer(x, memory), 0)
    traced = tf.function(lambda *given: layer(*given, training=True))
    for train in (lambda *given: layer(*given, training=True), traced):
        one, other = train(x, memory), train(x, memory)
        assert np.abs(one - other).max() > 0.01
        assert train(x[:2], memory[:2]).shape == (2, T, layer.width)


def test_one_dropout_mask_serves_all_steps():
    cell = keras.layers.SimpleRNNCell(
        U, activation="linear", recurrent_initializer="zeros", dropout=0.5
    )
    layer = AttentionRNN(cell, None)
    y = np.asarray(layer(np.ones((B, T, F), "float32"), training=True))
    np.testing.assert_allclose(y, np.repeat(y[:, :1], T, axis=1), rtol=0, atol=1e-6)
    assert np.ptp(y[:, 0], axis=0).max() > 0.01  # rows draw masks of their own


@both_kinds
def test_it_learns_to_reverse_and_looks_where_it_reads(attention):
    symbols, length, rows = 5, 4, 256
    tokens = np.random.default_rng(4).integers(0, symbols, (rows, length))
    places = np.broadcast_to(np.eye(length), (rows, length, length)).astype("float32")
    source = np.concatenate([np.eye(symbols)[tokens], places], axis=-1)
    x, memory = keras.Input((length, length)), keras.Input(source.shape[1:])
    look = {"Bahdanau": BahdanauAttention(12), "general": LuongAttention("general")}
    decoder = AttentionRNN(keras.layers.GRUCell(12), look[attention])
    y, alpha = decoder(x, memory, return_attention_scores=True)
    model = keras.Model([x, memory], keras.layers.Dense(symbols)(y))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.03), loss, metrics=["accuracy"])
    given, target = [places, source], tokens[:, ::-1]
    model.fit(given, target, epochs=15, verbose=0)
    assert model.evaluate(given, target, verbose=0)[1] > 0.95
    scores = keras.Model([x, memory], alpha)([one[:64] for one in given])
    assert np.mean(np.argmax(scores, -1) == np.arange(length)[::-1]) > 0.9


# Saving.


def test_the_config_is_complete():
    layer_checks.check_config(
        AttentionRNN(
            STLMCell(U, combine="sum"),
            LuongAttention("concat", 3),
            input_feeding=False,
            return_state=True,
            kernel_initializer="he_normal",
            kernel_regularizer="l2",
        )
    )
    assert AttentionRNN.from_config(_new(attention=None).get_config()).attention is None


def test_it_comes_back_in_a_fresh_process(tmp_path):
    x = keras.Input((None, F))
    h = _new("stacked", "Bahdanau", input_feeding=False)(x, x)
    h = _new("STLM", "general")(h, x)
    context, _ = LuongAttention("concat", 5)(h[:, -1], x)
    model = keras.Model(x, context)
    modules = ["engram.layers.attention.attention_rnn", "engram.layers.stlm.stlm_cell"]
    layer_checks.check_reload(model, _inputs()[0], tmp_path, *modules)


# What is refused.


@pytest.mark.parametrize("cell", [None, 8])
def test_a_cell_that_is_none_is_refused(cell):
    def make(cell):
        return AttentionRNN(cell, None)

    layer_checks.check_refused(make, "cell", cell)


def test_another_attention_is_refused():
    def make(attention):
        return AttentionRNN(keras.layers.GRUCell(U), attention)

    layer_checks.check_refused(make, "attention", "dot")


@pytest.mark.parametrize("built", [False, True])
def test_memory_is_refused_without_an_attention_and_demanded_with_one(built):
    make, (x, memory) = _layer if built else _new, _inputs()
    with pytest.raises(ValueError, match="`memory` .*Received: None"):
        make()(x)
    with pytest.raises(ValueError, match="`memory` .*Received: "):
        make(attention=None)(x, memory)


def test_scores_are_refused_without_an_attention():
    with pytest.raises(ValueError, match="`return_attention_scores` .*Received: True"):
        _new(attention=None)(_inputs()[0], return_attention_scores=True)


@pytest.mark.parametrize("built", [False, True])
def test_tensors_of_another_shape_are_refused(built):
    x, memory = _inputs()
    for name, wrong in {
        "x": x[:, 0],
        "memory": memory[0],
        "mask": MASK[:, :-1],
        "memory_mask": MEMORY_MASK[:, 0],
    }.items():
        given = {"x": x, "memory": memory, name: wrong}
        with pytest.raises(ValueError, match=f"`{name}` .*Received: "):
            (_layer() if built else _new())(**given)


def test_states_that_do_not_fit_the_cell_are_refused():
    layer, (x, memory) = _layer("LSTM"), _inputs()
    h = np.zeros((B, U), "float32")
    for wrong in ([h], [h, h, h], [h, h[:, 1:]], [h, h[0]]):
        with pytest.raises(ValueError, match="`initial_state` .*Received: "):
            layer(x, memory, initial_state=wrong)
