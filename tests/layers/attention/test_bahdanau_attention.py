"""BahdanauAttention is additive attention over the source steps that may be seen."""

import keras
import layer_checks
import numpy as np
import pytest
import recurrent_attention_equations as equations
import tensorflow as tf
from keras import ops

from engram.layers.attention.bahdanau_attention import BahdanauAttention

B, S, F, M, U = 4, 5, 3, 2, 6
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 1, 0, 0], [1] * 5], bool)


def _layer(**kwargs):
    """Returns a built layer whose weights are all drawn, none is zero."""
    layer = BahdanauAttention(U, **kwargs)
    layer.build((B, F), (B, S, M))
    return equations.draw_weights(layer)


def _inputs(dtype="float32"):
    draw = np.random.default_rng(2)
    return [draw.normal(size=shape).astype(dtype) for shape in ((B, F), (B, S, M))]


def _model():
    """Returns a model of a query and a memory whose sizes are unknown."""
    query, memory = keras.Input((F,)), keras.Input((None, M))
    return keras.Model([query, memory], BahdanauAttention(U)(query, memory)[0])


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("traced", [False, True])
def test_it_equals_the_equation(use_bias, mask, traced):
    layer = _layer(use_bias=use_bias, dtype="float64")
    query, memory = _inputs("float64")
    run = tf.function(layer) if traced else layer
    context, alpha = run(query, memory, memory_mask=mask)
    energies = equations.energies(layer, query, memory)
    wanted, wanted_alpha = equations.look(energies, memory, mask)
    np.testing.assert_allclose(context, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(alpha, wanted_alpha, rtol=0, atol=1e-12)


def test_keys_that_are_given_change_nothing():
    layer, (query, memory) = _layer(), _inputs()
    keys = layer.project(memory)
    assert tuple(keys.shape) == (B, S, U)
    for one, other in zip(
        layer(query, memory), layer(query, memory, keys=keys), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_hidden_step_has_alpha_zero_and_cannot_be_noticed():
    layer, (query, memory) = _layer(), _inputs()
    context, alpha = layer(query, memory, memory_mask=MASK)
    assert not np.any(np.asarray(alpha)[~MASK])
    np.testing.assert_allclose(ops.sum(alpha, axis=-1), 1, rtol=0, atol=1e-6)
    memory[~MASK] = 1e6
    again, alpha_again = layer(query, memory, memory_mask=MASK)
    np.testing.assert_array_equal(again, context)
    np.testing.assert_array_equal(alpha_again, alpha)


def test_a_row_that_may_see_nothing_gets_zeros_and_finite_gradients():
    layer, (query, memory) = _layer(), map(tf.constant, _inputs())
    with tf.GradientTape() as tape:
        tape.watch(memory)
        context, alpha = layer(query, memory, memory_mask=np.zeros((B, S), bool))
        loss = ops.sum(context) + ops.sum(alpha)
    assert not np.any(context) and not np.any(alpha)
    for gradient in tape.gradient(loss, [memory, layer.energy_kernel.value]):
        assert np.isfinite(gradient).all()


def test_the_mask_that_memory_carries_is_used_unless_one_is_given():
    tokens = np.array([[3, 1, 0], [2, 0, 0]])
    memory = keras.layers.Embedding(4, M, mask_zero=True)(tokens)
    layer, query = BahdanauAttention(U), np.ones((2, F), "float32")
    _, alpha = layer(query, memory)
    np.testing.assert_array_equal(np.asarray(alpha) > 0, tokens > 0)
    _, alpha = layer(query, memory, memory_mask=tokens == 0)
    np.testing.assert_array_equal(np.asarray(alpha) > 0, tokens == 0)


def test_every_weight_learns():
    layer_checks.check_gradients(_model(), _inputs())


def test_mixed_precision_keeps_alpha_in_float32():
    query, memory = _inputs()

    for policy in ("mixed_float16", "mixed_bfloat16"):
        layer = BahdanauAttention(U, dtype=policy)
        context, alpha = layer(query, memory, memory_mask=MASK)
        assert keras.backend.standardize_dtype(context.dtype) == layer.compute_dtype
        assert keras.backend.standardize_dtype(alpha.dtype) == "float32"
        wide = BahdanauAttention(U)
        wide.build(query.shape, memory.shape)
        wide.set_weights(layer.get_weights())
        _, wanted = wide(query, memory, memory_mask=MASK)
        np.testing.assert_allclose(alpha, wanted, rtol=0, atol=0.02)


def test_a_graph_of_unknown_sizes_equals_the_call():
    layer, (query, memory) = _layer(), _inputs()
    run = tf.function(
        lambda *given: layer(*given[:2], memory_mask=given[2]),
        input_signature=[
            tf.TensorSpec((None, F)),
            tf.TensorSpec((None, None, M)),
            tf.TensorSpec((None, None), "bool"),
        ],
    )
    for rows, steps in ((B, S), (2, 3)):
        given = query[:rows], memory[:rows, :steps], MASK[:rows, :steps]
        found, wanted = run(*given), layer(*given[:2], memory_mask=given[2])
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_the_config_is_complete():
    layer_checks.check_config(
        BahdanauAttention(
            U,
            use_bias=False,
            kernel_initializer="he_normal",
            bias_initializer="ones",
            kernel_regularizer="l2",
        )
    )


@pytest.mark.parametrize("units", [0, -1, 2.5, None])
def test_units_that_are_no_positive_integer_are_refused(units):
    layer_checks.check_refused(BahdanauAttention, "units", units)


@pytest.mark.parametrize("built", [False, True])
def test_tensors_of_another_rank_are_refused(built):
    query, memory = _inputs()
    for name, wrong in (
        ("query", {"query": query[:, None]}),
        ("memory", {"memory": memory[0]}),
    ):
        layer = _layer() if built else BahdanauAttention(U)
        given = {"query": query, "memory": memory, **wrong}
        with pytest.raises(ValueError, match=f"`{name}` .*Received: "):
            layer(**given)


@pytest.mark.parametrize("shape", [(B,), (B, S + 1), (B, 1, S)])
def test_a_mask_of_another_shape_is_refused(shape):
    query, memory = _inputs()
    with pytest.raises(ValueError, match="`memory_mask` .*Received: "):
        _layer()(query, memory, memory_mask=np.ones(shape, bool))
