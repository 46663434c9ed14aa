"""CrossAttention computes its equation, with a memory projected once or at each call."""

import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
from attention_equations import FORMS, cross_attention
from keras import ops
from stlm_equations import draw_weights

from engram.layers.attention.cross_attention import CrossAttention

B, T, S, F, M, H = 3, 4, 6, 8, 5, 4
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], bool)
CROSS_FORMS = {
    name: form
    for name, form in FORMS.items()
    if not {"causal", "rotary", "relative"} & set(form)
}
every_form = pytest.mark.parametrize("form", CROSS_FORMS.values(), ids=CROSS_FORMS)


def _layer(**form):
    """Returns a built layer whose weights are all drawn, none is zero."""
    layer = CrossAttention(**{"heads": H, **form})
    layer.build((None, T, F), (None, S, M))
    return draw_weights(layer)


def _inputs(dtype="float32"):
    """Returns `x` and a memory."""
    draw = np.random.default_rng(2)
    return [draw.normal(size=shape).astype(dtype) for shape in ((B, T, F), (B, S, M))]


def _masks():
    """Yields `memory_mask` and `attention_mask`, alone and together."""
    draw = np.random.default_rng(3)
    for_all, for_each = draw.random((T, S)) < 0.6, draw.random((B, T, S)) < 0.6
    yield from ((None, None), (MASK, None), (None, for_all), (None, for_each))
    yield from ((MASK, for_all), (MASK, for_each))


def _close(found, wanted, tolerance=1e-5):
    found = ops.convert_to_numpy(found)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@every_form
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
def test_a_call_equals_the_equation_under_every_mask(form, dtype, tolerance):
    layer, inputs = _layer(**form, dtype=dtype), _inputs(dtype)
    for memory_mask, attention_mask in _masks():
        given = {"memory_mask": memory_mask, "attention_mask": attention_mask}
        y, alpha = layer(*inputs, **given, return_attention_scores=True)
        wide = [one.astype("float64") for one in inputs]
        wanted_y, wanted_alpha = cross_attention(layer, *wide, **given)
        _close(y, wanted_y, tolerance)
        _close(alpha, wanted_alpha, tolerance)
        np.testing.assert_array_equal(layer(*inputs, **given), y)  # scores cost nothing


def test_a_plain_layer_is_the_layer_of_keras_with_the_same_weights():
    layer, (x, memory) = _layer(), _inputs()
    other = keras.layers.MultiHeadAttention(H, F // H)
    other.build(x.shape, memory.shape)
    other.set_weights(layer.get_weights())
    counts = np.roll(MASK, 1, axis=1) | MASK[:1]  # of a row that sees nothing: a fault
    _close(layer(x, memory, memory_mask=counts), other(x, memory, value_mask=counts))


@every_form
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_memory_projected_once_serves_every_step(form, policy):
    layer, (x, memory) = _layer(**form, dtype=policy), _inputs()
    given = {"memory_mask": MASK, "return_attention_scores": True}
    y, alpha = layer(x, memory, **given)
    projected = layer.project(memory)
    assert {one.shape for one in projected} == {(B, layer.kv_heads, S, layer.size)}
    assert {one.dtype for one in projected} == {y.dtype}
    tolerance = 1e-5 if policy == "float32" else 0.1
    for rows in (slice(0, 1), slice(1, 2), slice(2, T)):
        found, seen = layer.step(x[:, rows], projected, **given)
        assert (found.dtype, seen.dtype) == (y.dtype, "float32")
        _close(ops.cast(found, "float32"), ops.cast(y[:, rows], "float32"), tolerance)
        _close(seen, alpha[:, :, rows], tolerance)
        np.testing.assert_array_equal(layer.step(x[:, rows], projected, MASK), found)


@every_form
def test_what_is_hidden_has_a_weight_of_exactly_zero_in_every_way(form):
    layer, (x, memory) = _layer(**form), _inputs()

    def call(x, memory, mask):
        return layer(30 * x, memory, memory_mask=mask, return_attention_scores=True)

    for way in (call, tf.function(call), tf.function(call, jit_compile=True)):
        y, alpha = map(ops.convert_to_numpy, way(x, memory, MASK))
        hidden = np.broadcast_to(~MASK[:, None, None], alpha.shape)
        np.testing.assert_array_equal(alpha[hidden], 0)
        _close(alpha.sum(-1), ~hidden.all(-1), 1e-6)
        nothing = layer.get_weights()[-1] if layer.use_bias else np.zeros(F)
        np.testing.assert_array_equal(y[1], np.tile(nothing, (T, 1)))


@every_form
def test_steps_of_the_memory_that_do_not_count_influence_nothing(form):
    layer, (x, memory) = _layer(**form), _inputs()
    other = np.where(MASK[..., None], memory, 7)
    found = layer(x, memory, memory_mask=MASK)
    np.testing.assert_array_equal(layer(x, other, memory_mask=MASK), found)
    _close(found[:1], layer(x[:1], memory[:1, :4]))  # the same without its padding


def test_moving_all_keys_by_one_vector_changes_no_weight():
    layer, inputs = _layer(), _inputs()
    _, before = layer(*inputs, return_attention_scores=True)
    layer.key_bias.assign(layer.key_bias + 1)
    _, after = layer(*inputs, return_attention_scores=True)
    _close(after, before)


def test_the_mask_of_the_memory_hides_and_the_mask_of_x_is_passed_on():
    source, target = np.array([[3, 1, 2, 0, 0, 0]]), np.array([[1, 2, 3, 0]])
    embedding = keras.layers.Embedding(5, F, mask_zero=True)
    layer = CrossAttention(H)
    inputs = [keras.Input((None,), dtype="int32") for _ in range(2)]
    x, memory = map(embedding, inputs)
    model = keras.Model(inputs, layer(x, memory, return_attention_scores=True))
    given = embedding(target), embedding(source)
    for y, alpha in (
        layer(*given, return_attention_scores=True),
        model([target, source]),
    ):
        found = ops.convert_to_numpy(alpha) > 0
        np.testing.assert_array_equal(found, np.broadcast_to(source != 0, found.shape))
        np.testing.assert_array_equal(y._keras_mask, target != 0)
    other = np.array([[False, True, True, True, False, False]])  # one that is given wins
    _, alpha = layer(*given, memory_mask=other, return_attention_scores=True)
    found = ops.convert_to_numpy(alpha) > 0
    np.testing.assert_array_equal(found, np.broadcast_to(other, found.shape))


def test_shapes_are_known_where_the_inputs_are():
    for steps, source in ((T, S), (None, None), (T, None), (None, S)):
        x, memory = keras.Input((steps, F)), keras.Input((source, M))
        assert _layer()(x, memory).shape == (None, steps, F)
        y, alpha = _layer(kv_heads=2)(x, memory, return_attention_scores=True)
        assert (y.shape, alpha.shape) == ((None, steps, F), (None, H, steps, source))
    assert _layer().compute_output_shape((2, T, F), (2, S, M)) == (2, T, F)


@every_form
def test_batch_and_both_times_may_be_unknown(form):
    layer = _layer(**form)
    inputs = [keras.Input((None, F)), keras.Input((None, M))]
    model = keras.Model(inputs, layer(*inputs, return_attention_scores=True))
    x, memory = _inputs()
    for batch, steps, source in ((3, 4, 6), (1, 2, 5)):
        given = [x[:batch, :steps], memory[:batch, :source]]
        wanted = layer(*given, return_attention_scores=True)
        for one, other in zip(model.predict(given, verbose=0), wanted, strict=True):
            _close(one, other)


def test_the_config_keeps_every_argument():
    layer = CrossAttention(
        H,
        head_dim=6,
        kv_heads=2,
        use_bias=False,
        dropout=0.1,
        kernel_initializer="he_normal",
        bias_initializer="ones",
        kernel_regularizer="l2",
        bias_regularizer=keras.regularizers.L2(0.3),
        seed=7,
    )
    layer_checks.check_config(layer)


def test_a_fresh_process_reloads_every_form_and_its_masks(tmp_path):
    inputs = [keras.Input((None, F)), keras.Input((None, M))]
    memory = keras.layers.Masking()(inputs[1])
    outputs = [_layer(**form)(inputs[0], memory) for form in CROSS_FORMS.values()]
    model = keras.Model(inputs, keras.layers.Concatenate()(outputs))
    x, memory = _inputs()
    given = [x, memory * MASK[..., None]]
    module = "engram.layers.attention.cross_attention"
    layer_checks.check_reload(model, given, tmp_path, module)


@every_form
def test_mixed_precision_outputs_the_compute_dtype(form):
    def make(policy):
        layer = _layer(**form, dtype=policy)
        inputs = [keras.Input((T, F)), keras.Input((S, M))]
        return keras.Model(inputs, layer(*inputs))

    layer_checks.check_policies(make, _inputs(), tolerance=0.01)


def test_gradients_are_finite_also_of_rows_that_see_nothing():
    layer, inputs = _layer(kv_heads=2), [keras.Input((T, F)), keras.Input((S, M))]
    mask = ops.convert_to_tensor(MASK)
    model = keras.Model(inputs, layer(*inputs, memory_mask=mask))
    found = layer_checks.gradients(model, _inputs())
    for weight, gradient in zip(model.trainable_weights, found, strict=True):
        assert np.isfinite(gradient).all(), weight.path
        if weight.name == "key_bias":  # it changes no weight, see above
            assert np.abs(gradient).max() < 1e-3
        else:
            assert np.abs(gradient).max() > 1e-3, weight.path


def test_a_compiled_training_step_equals_the_plain_one():
    def make():
        inputs = [keras.Input((T, F)), keras.Input((S, M))]
        return keras.Model(inputs, _layer(kv_heads=2)(*inputs))

    inputs = [0.3 * one for one in _inputs()]
    layer_checks.check_compiled_step(make, inputs, np.zeros((B, T, F)))


@pytest.mark.parametrize(
    "argument, value",
    [("heads", 0), ("head_dim", 0), ("kv_heads", 3), ("dropout", 1.0)],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, value):
    def make(**arguments):
        return CrossAttention(**{"heads": H, **arguments})

    layer_checks.check_refused(make, argument, value)


def test_a_layer_that_is_not_built_projects_nothing():
    with pytest.raises(ValueError, match="`project` needs a layer that is built"):
        CrossAttention(H).project(_inputs()[1])


def test_a_memory_or_a_mask_of_a_wrong_rank_is_refused():
    layer, (x, memory) = _layer(), _inputs()
    for one in (memory[0], keras.Input((M,))):
        for cross in (layer, CrossAttention(H)):  # built or not
            with pytest.raises(ValueError, match="`memory` must have 3 axes. Received:"):
                cross(x if one is memory[0] else keras.Input((T, F)), one)
    with pytest.raises(ValueError, match="`memory_mask` must have 2 axes. Received:"):
        layer(x, memory, memory_mask=np.ones((B, T, S), bool))
    with pytest.raises(ValueError, match="`attention_mask` must have 2 or 3 axes."):
        layer(x, memory, attention_mask=np.ones((B, H, T, S), bool))
