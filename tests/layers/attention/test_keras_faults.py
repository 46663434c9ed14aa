"""What `keras.layers.MultiHeadAttention` 3.15.1 gets wrong, and these layers do not.

Each test first asserts that ours is right, then looks at Keras. Where a version of Keras
has mended a fault, the test says so and is skipped: then the note here can go.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from stlm_equations import draw_weights

from engram.layers.attention.cross_attention import CrossAttention
from engram.layers.attention.self_attention import SelfAttention

B, T, S, F, H = 2, 5, 7, 8, 2
WORDS = np.array([[3, 1, 2, 0, 0], [4, 1, 0, 0, 0]])
COUNTS = WORDS != 0


def _ours(**form):
    layer = SelfAttention(H, **form)
    layer.build((None, T, F))
    return draw_weights(layer)


def _theirs(**form):
    layer = keras.layers.MultiHeadAttention(H, F // H, **form)
    layer.build((None, T, F), (None, T, F))
    return draw_weights(layer)


def _inputs(steps=T):
    return np.random.default_rng(2).normal(size=(B, steps, F)).astype("float32")


def _shown(alpha):
    """Returns which weights are not zero."""
    return ops.convert_to_numpy(alpha) > 0


def _expect(fault, still_there):
    """Skips the rest where Keras has mended the fault."""
    if not still_there:
        pytest.skip(f"Keras {keras.__version__} has mended fault {fault}")


def test_a_symbolic_cross_attention_knows_the_shape_of_its_scores():
    x, memory = keras.Input((T, F)), keras.Input((S, F))
    _, alpha = CrossAttention(H)(x, memory, return_attention_scores=True)
    assert alpha.shape == (None, H, T, S)
    assert ops.matmul(alpha, memory[:, None]).shape == (None, H, T, F)

    _, alpha = _theirs()(x, memory, return_attention_scores=True)
    _expect("a: T x T for T x S", alpha.shape != (None, H, T, S))
    assert alpha.shape == (None, H, T, T)
    with pytest.raises(ValueError):
        ops.matmul(alpha, memory[:, None])


def test_a_layer_with_dropout_goes_the_same_way_in_inference(monkeypatch):
    x = _inputs()
    plain, dropping = _ours(), _ours(dropout=0.5)
    np.testing.assert_array_equal(dropping(x), plain(x))
    np.testing.assert_array_equal(dropping(x, return_attention_scores=True)[0], plain(x))

    calls, fused = [], ops.dot_product_attention

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return fused(*args, **kwargs)

    monkeypatch.setattr(keras.src.ops, "dot_product_attention", counted)
    _theirs()(x, x)
    assert len(calls) == 1
    _theirs(dropout=0.5)(x, x)
    _expect("b: dropout bars the fused way", len(calls) == 1)


def test_the_config_keeps_every_argument_that_chooses_a_way():
    arguments = set(inspect.signature(SelfAttention).parameters) - {"kwargs"}
    assert arguments <= set(_ours().get_config())

    arguments = inspect.signature(keras.layers.MultiHeadAttention).parameters
    lost = set(arguments) - {"kwargs"} - set(_theirs().get_config())
    _expect("c: the config loses `flash_attention`", "flash_attention" in lost)
    with pytest.raises(ValueError, match="not supported"):  # and TensorFlow has none
        _theirs(flash_attention=True)(_inputs(), _inputs())


def test_an_explicit_mask_of_the_queries_is_heard():
    x = _inputs()
    y, alpha = _ours()(x, mask=COUNTS, return_attention_scores=True)
    wanted = np.broadcast_to(COUNTS[:, None, None], alpha.shape)
    np.testing.assert_array_equal(_shown(alpha), wanted)
    np.testing.assert_array_equal(y._keras_mask, COUNTS)

    with_mask, without = (
        _theirs()(x, x, query_mask=mask, return_attention_scores=True)[1]
        for mask in (tf.constant(COUNTS), None)
    )
    _expect("d: `query_mask` is overwritten", np.array_equal(with_mask, without))


def test_the_last_of_many_steps_sees_all_before_it():
    layer, x = _ours(causal=True), _inputs()
    _, cache = layer.step(x[:, :-1], layer.new_cache(B, T), 0)
    y, _, alpha = layer.step(x[:, -1:], cache, T - 1, return_attention_scores=True)
    assert _shown(alpha).all()
    np.testing.assert_allclose(y, layer(x)[:, -1:], rtol=0, atol=1e-5)

    _, alpha = _theirs()(x[:, -1:], x, use_causal_mask=True, return_attention_scores=True)
    _expect("e: causal masks start at the top left", not _shown(alpha).all())
    np.testing.assert_array_equal(alpha, np.broadcast_to([1, 0, 0, 0, 0], alpha.shape))


def test_a_row_that_sees_nothing_is_the_same_with_scores_and_without():
    x, nothing = _inputs(), np.zeros((B, T), bool)
    layer = _ours()
    y, alpha = layer(x, mask=nothing, return_attention_scores=True)
    np.testing.assert_array_equal(alpha, 0)
    np.testing.assert_array_equal(y, np.broadcast_to(layer.output_bias, y.shape))
    np.testing.assert_array_equal(layer(x, mask=nothing), y)

    other, mask = _theirs(), tf.constant(nothing)
    without = other(x, x, value_mask=mask)
    with_scores, _ = other(x, x, value_mask=mask, return_attention_scores=True)
    difference = np.abs(without - with_scores).max()
    _expect("f: scores change rows that see nothing", difference > 0.01)


def test_a_mask_lost_to_arithmetic_can_be_handed_over():
    embedding = keras.layers.Embedding(5, F, mask_zero=True)
    x = embedding(WORDS) * np.sqrt(F).astype("float32")  # Keras' mask ends here
    mask = embedding.compute_mask(WORDS)
    y, alpha = _ours()(x, mask=mask, return_attention_scores=True)
    wanted = np.broadcast_to(COUNTS[:, None, None], alpha.shape)
    np.testing.assert_array_equal(_shown(alpha), wanted)
    np.testing.assert_array_equal(y._keras_mask, COUNTS)  # and it goes on from here

    _, alpha = _theirs()(x, x, return_attention_scores=True)
    _expect("g: arithmetic loses masks", _shown(alpha).all())
    assert (
        "mask" not in inspect.signature(keras.layers.MultiHeadAttention.call).parameters
    )


def _operations(function, *arrays):
    """Returns the names of the operations that TensorFlow runs, sorted."""
    specs = [tf.TensorSpec(one.shape, one.dtype) for one in arrays]
    graph = tf.function(function).get_concrete_function(*specs).graph
    quiet = {"Const", "Identity", "NoOp", "Placeholder", "Squeeze"}
    return sorted(op.type for op in graph.get_operations() if op.type not in quiet)


def test_scores_come_out_of_the_only_way_there_is():
    layer, x = _ours(causal=True), _inputs()
    without = _operations(lambda x: layer(x, mask=COUNTS), x)
    with_scores = _operations(
        lambda x: layer(x, mask=COUNTS, return_attention_scores=True), x
    )
    assert with_scores == without
    assert without.count("Softmax") == 1
    y, _ = layer(x, mask=COUNTS, return_attention_scores=True)
    np.testing.assert_array_equal(layer(x, mask=COUNTS), y)

    heads = x.reshape(B, T, H, -1)
    fused = _operations(ops.dot_product_attention, heads, heads, heads)
    _expect("h: its fused way is a plain softmax", "Softmax" in fused)
