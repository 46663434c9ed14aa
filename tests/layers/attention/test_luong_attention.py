"""LuongAttention is attention by products, of three kinds."""

import keras
import layer_checks
import numpy as np
import pytest
import recurrent_attention_equations as equations
import tensorflow as tf
from keras import ops

from engram.layers.attention.bahdanau_attention import BahdanauAttention
from engram.layers.attention.luong_attention import SCORES, LuongAttention

B, S, F, U = 4, 5, 3, 6
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 1, 0, 0], [0] * 5], bool)
every_score = pytest.mark.parametrize("score", SCORES)


def _width(score):
    """Returns the width of the memory: another than the query's where it may be."""
    return F if score == "dot" else 2


def _new(score, **kwargs):
    return LuongAttention(score, U if score == "concat" else None, **kwargs)


def _layer(score, **kwargs):
    """Returns a built layer whose weights are all drawn, none is zero."""
    layer = _new(score, **kwargs)
    layer.build((B, F), (B, S, _width(score)))
    return equations.draw_weights(layer)


def _inputs(score, dtype="float32"):
    draw = np.random.default_rng(2)
    shapes = (B, F), (B, S, _width(score))
    return [draw.normal(size=shape).astype(dtype) for shape in shapes]


@every_score
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("traced", [False, True])
def test_every_score_equals_its_equation(score, mask, traced):
    layer = _layer(score, dtype="float64")
    query, memory = _inputs(score, "float64")
    run = tf.function(layer) if traced else layer
    context, alpha = run(query, memory, memory_mask=mask)
    energies = equations.energies(layer, query, memory)
    wanted, wanted_alpha = equations.look(energies, memory, mask)
    np.testing.assert_allclose(context, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(alpha, wanted_alpha, rtol=0, atol=1e-12)


def test_general_with_the_identity_is_dot():
    query, memory = _inputs("dot")
    general, dot = _new("general"), _new("dot")
    general.build(query.shape, memory.shape)
    general.set_weights([np.eye(F)])
    for one, other in zip(general(query, memory), dot(query, memory), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_concat_is_bahdanau_attention_without_a_bias():
    query, memory = _inputs("concat")
    concat, additive = _layer("concat"), BahdanauAttention(U, use_bias=False)
    additive.build(query.shape, memory.shape)
    additive.set_weights(concat.get_weights())
    for one, other in zip(concat(query, memory), additive(query, memory), strict=True):
        np.testing.assert_array_equal(one, other)


@every_score
def test_keys_that_are_given_change_nothing(score):
    layer, (query, memory) = _layer(score), _inputs(score)
    keys = layer.project(memory)
    assert tuple(keys.shape) == (B, S, U if score == "concat" else F)
    for one, other in zip(
        layer(query, memory), layer(query, memory, keys=keys), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@every_score
def test_hidden_steps_have_alpha_zero_and_a_blind_row_gets_zeros(score):
    layer, (query, memory) = _layer(score), _inputs(score)
    context, alpha = layer(query, memory, memory_mask=MASK)
    assert not np.any(np.asarray(alpha)[~MASK])
    np.testing.assert_allclose(ops.sum(alpha, -1), MASK.any(-1), rtol=0, atol=1e-6)
    assert not np.any(context[3])


@every_score
def test_every_weight_learns_where_sizes_are_unknown(score):
    query, memory = keras.Input((F,)), keras.Input((None, _width(score)))
    model = keras.Model([query, memory], _new(score)(query, memory)[0])
    assert model.output.shape == (None, _width(score))
    layer_checks.check_gradients(model, _inputs(score))


@every_score
def test_mixed_precision_keeps_alpha_in_float32(score):
    query, memory = _inputs(score)
    wide = _layer(score)
    _, wanted = wide(query, memory, memory_mask=MASK)
    for policy in ("mixed_float16", "mixed_bfloat16"):
        layer = _layer(score, dtype=policy)
        context, alpha = layer(query, memory, memory_mask=MASK)
        assert keras.backend.standardize_dtype(context.dtype) == layer.compute_dtype
        assert keras.backend.standardize_dtype(alpha.dtype) == "float32"
        np.testing.assert_allclose(alpha, wanted, rtol=0, atol=0.02)


def test_the_config_is_complete():
    layer_checks.check_config(
        LuongAttention(
            "concat", U, kernel_initializer="he_normal", kernel_regularizer="l2"
        )
    )


def test_an_unknown_score_is_refused():
    layer_checks.check_refused(LuongAttention, "score", "cosine")


@pytest.mark.parametrize(
    "score, units", [("concat", None), ("concat", 0), ("dot", 4), ("general", 4)]
)
def test_units_belong_to_concat_alone(score, units):
    def make(units):
        return LuongAttention(score, units)

    layer_checks.check_refused(make, "units", units)


def test_dot_of_unequal_widths_is_refused():
    query, memory = _inputs("general")
    with pytest.raises(ValueError, match="`memory` .*Received: 2"):
        LuongAttention("dot")(query, memory)


@pytest.mark.parametrize("built", [False, True])
def test_tensors_of_another_rank_are_refused(built):
    query, memory = _inputs("general")
    for name, wrong in (
        ("query", {"query": query[0]}),
        ("memory", {"memory": memory[:, :, None]}),
    ):
        layer = _layer("general") if built else _new("general")
        given = {"query": query, "memory": memory, **wrong}
        with pytest.raises(ValueError, match=f"`{name}` .*Received: "):
            layer(**given)
