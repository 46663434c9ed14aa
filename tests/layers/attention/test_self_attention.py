"""SelfAttention computes its equation, whole or step by step, and hides what it must."""

import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
from attention_equations import FORMS, self_attention
from keras import ops
from stlm_equations import draw_weights

from engram.layers.attention.self_attention import SelfAttention

B, T, F, H = 3, 5, 8, 4
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1]], bool)
NOTHING = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 1]], bool)
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
every_causal_form = pytest.mark.parametrize(
    "form",
    [{**form, "causal": True} for name, form in FORMS.items() if name != "causal"],
    ids=[name for name in FORMS if name != "causal"],
)


def _layer(cls=SelfAttention, steps=T, **form):
    """Returns a built layer whose weights are all drawn, none is zero."""
    layer = cls(**{"heads": H, **form})
    layer.build((None, steps, F))
    return draw_weights(layer)


def _inputs(dtype="float32", steps=T, batch=B):
    return np.random.default_rng(2).normal(size=(batch, steps, F)).astype(dtype)


def _masks():
    """Yields `mask` and `attention_mask`, alone and together."""
    draw = np.random.default_rng(3)
    for_all, for_each = draw.random((T, T)) < 0.6, draw.random((B, T, T)) < 0.6
    yield from ((None, None), (MASK, None), (NOTHING, None))
    yield from ((None, for_all), (None, for_each), (MASK, for_all), (NOTHING, for_each))


def _close(found, wanted, tolerance=1e-5):
    found = ops.convert_to_numpy(found)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def _ways(layer):
    """Returns the ways to run a layer: at once, as a graph, and compiled by XLA."""

    def call(x, mask):
        return layer(x, mask=mask, return_attention_scores=True)

    return call, tf.function(call), tf.function(call, jit_compile=True)


@every_form
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
def test_a_call_equals_the_equation_under_every_mask(form, dtype, tolerance):
    layer, x = _layer(**form, dtype=dtype), _inputs(dtype)
    names = {"query", "key", "value", "output"}
    kinds = ("kernel", "bias") if form.get("use_bias", True) else ("kernel",)
    wanted = {f"{name}_{kind}" for name in names for kind in kinds}
    wanted |= {"relative_bias"} if "relative" in form else set()
    assert {weight.name for weight in layer.weights} == wanted
    for mask, attention_mask in _masks():
        given = {"mask": mask, "attention_mask": attention_mask}
        y, alpha = layer(x, **given, return_attention_scores=True)
        wanted_y, wanted_alpha = self_attention(layer, x.astype("float64"), **given)
        _close(y, wanted_y, tolerance)
        _close(alpha, wanted_alpha, tolerance)
        np.testing.assert_array_equal(layer(x, **given), y)  # scores cost nothing


def test_a_plain_layer_is_the_layer_of_keras_with_the_same_weights():
    layer, x = _layer(), _inputs()
    other = keras.layers.MultiHeadAttention(H, F // H)
    other.build(x.shape, x.shape)
    other.set_weights(layer.get_weights())
    _close(layer(x, mask=MASK), other(x, x, value_mask=MASK))
    layer, other = _layer(kv_heads=2), keras.layers.GroupQueryAttention(F // H, H, 2)
    other.build(x.shape, x.shape)
    other.set_weights(layer.get_weights())
    _close(layer(x), other(x, x))


def test_a_head_of_keys_serves_neighbouring_heads_of_queries():
    layer, x = _layer(kv_heads=2, rotary=True, relative=2), _inputs()
    full = _layer(rotary=True, relative=2)
    full.set_weights(
        [
            np.repeat(w, 2, axis=-2) if w.shape[-2:] == (2, F // H) else w
            for w in layer.get_weights()
        ]
    )
    _close(layer(x, mask=MASK), full(x, mask=MASK))
    assert layer.count_params() < full.count_params()
    assert layer.new_cache(B, 9)[0].shape == (B, 2, 9, F // H)


@every_form
def test_what_is_hidden_has_a_weight_of_exactly_zero_in_every_way(form):
    layer, x = _layer(**form), 30 * _inputs()  # logits of hundreds
    rows = np.arange(T)
    hidden = ~NOTHING[:, None, None] | (rows[:, None] < rows) * layer.causal
    hidden = np.broadcast_to(hidden, (B, H, T, T))
    for call in _ways(layer):
        y, alpha = map(ops.convert_to_numpy, call(x, NOTHING))
        np.testing.assert_array_equal(alpha[hidden], 0)
        _close(alpha.sum(-1), ~hidden.all(-1), 1e-6)
        nothing = layer.get_weights()[-1 - ("relative" in form)]  # of the output
        if layer.use_bias:
            np.testing.assert_array_equal(y[1], np.tile(nothing, (T, 1)))
        else:
            np.testing.assert_array_equal(y[1], 0)


@every_form
def test_steps_that_do_not_count_influence_nothing(form):
    layer, x = _layer(**form), _inputs()
    other = np.where(MASK[..., None], x, 7)
    found, again = layer(x, mask=MASK), layer(other, mask=MASK)
    np.testing.assert_array_equal(found[MASK], again[MASK])
    short = layer(x[1:2, :3])  # the same without its padding
    _close(found[1:2, :3], short)


def test_a_causal_layer_never_looks_ahead():
    layer, x = _layer(causal=True), _inputs()
    found = layer(x)
    for t in range(T - 1):
        later = x.copy()
        later[:, t + 1 :] = -3
        np.testing.assert_array_equal(layer(later)[:, : t + 1], found[:, : t + 1])


def test_padding_of_an_embedding_is_hidden_and_the_mask_is_passed_on():
    words = np.array([[3, 1, 2, 0, 0], [4, 0, 0, 0, 0]])
    embedding = keras.layers.Embedding(5, F, mask_zero=True)
    layer = _layer()
    inputs = keras.Input((None,), dtype="int32")
    outputs = layer(embedding(inputs), return_attention_scores=True)
    model = keras.Model(inputs, outputs)
    allowed = np.tril(np.ones((T, T), bool))
    counts = words[:, None, None] != 0
    for y, alpha, wanted in (
        (*layer(embedding(words), return_attention_scores=True), counts),
        (*model(words), counts),
        (
            *layer(
                embedding(words), attention_mask=allowed, return_attention_scores=True
            ),
            counts & allowed,
        ),
    ):
        found = ops.convert_to_numpy(alpha) > 0
        np.testing.assert_array_equal(found, np.broadcast_to(wanted, found.shape))
        np.testing.assert_array_equal(y._keras_mask, words != 0)


def test_a_mask_that_is_given_wins_over_the_one_that_comes_along():
    words = np.array([[3, 1, 2, 0, 0]])
    x = keras.layers.Embedding(5, F, mask_zero=True)(words)
    mask = np.array([[False, True, True, True, False]])
    y, alpha = _layer()(x, mask=mask, return_attention_scores=True)
    found = ops.convert_to_numpy(alpha) > 0
    np.testing.assert_array_equal(found, np.broadcast_to(mask, found.shape))
    np.testing.assert_array_equal(y._keras_mask, mask)


def test_a_mask_of_numbers_counts_as_true_and_false():
    layer, x = _layer(), _inputs()
    for kind in ("float32", "int32"):
        allowed = np.tril(np.ones((T, T), kind))
        found = layer(x, mask=MASK.astype(kind), attention_mask=allowed)
        wanted = layer(x, mask=MASK, attention_mask=allowed.astype(bool))
        np.testing.assert_array_equal(found, wanted)


@every_causal_form
@pytest.mark.parametrize("parts", [[1] * T, [2, 3], [T]], ids=["1", "2 and 3", "all"])
def test_steps_with_a_cache_equal_the_rows_of_a_full_call(form, parts):
    layer, x, length = _layer(**form), _inputs(), T + 2
    y, alpha = layer(x, mask=MASK, return_attention_scores=True)
    room = np.pad(MASK, [(0, 0), (0, 2)], constant_values=True)
    cache, index = layer.new_cache(B, length), 0
    for steps in parts:
        rows = slice(index, index + steps)
        found, cache, seen = layer.step(
            x[:, rows], cache, index, mask=room, return_attention_scores=True
        )
        _close(found, y[:, rows])
        assert seen.shape == (B, H, steps, length)
        _close(seen[..., :T], alpha[:, :, rows])
        np.testing.assert_array_equal(seen[..., T:], 0)
        index += steps


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_loop_may_count_its_steps_in_a_tensor(jit_compile):
    form = {"kv_heads": 2, "rotary": True, "relative": 2, "causal": True}
    layer, x = _layer(**form), _inputs()

    @tf.function(jit_compile=jit_compile)
    def loop(x):
        def body(index, rows, keys, values):
            now = ops.slice(x, (0, index, 0), (B, 1, F))
            y, cache = layer.step(now, [keys, values], index)
            return index + 1, ops.slice_update(rows, (0, index, 0), y), *cache

        start = (ops.convert_to_tensor(0), ops.zeros_like(x), *layer.new_cache(B, T))
        return ops.while_loop(lambda index, *_: index < T, body, start)[1]

    _close(loop(x), layer(x))


def test_a_step_knows_its_place_in_a_longer_text():
    layer, x = _layer(causal=True, rotary=True, relative=2), _inputs()
    later = np.concatenate([x, x], axis=1)
    mask = np.repeat([[False] * T + [True] * T], B, axis=0)
    _close(layer(later, mask=mask)[:, T:], layer(x))  # distances alone count
    cache = layer.new_cache(B, 2 * T)
    _, cache = layer.step(x, cache, 0)
    found, _ = layer.step(x, cache, T, mask=mask)
    _close(found, layer(x))


def test_what_does_not_fit_into_the_cache_is_refused():
    layer, x = _layer(causal=True), _inputs()
    for index in (-1, 3):
        with pytest.raises(ValueError, match=f"`index` must leave.*Received: {index}"):
            layer.step(x, layer.new_cache(B, 7), index)


def test_only_a_causal_layer_that_is_built_goes_step_by_step():
    layer, x = _layer(), _inputs()
    with pytest.raises(ValueError, match="`causal` must be true.*Received: False"):
        layer.step(x, layer.new_cache(B, T), 0)
    with pytest.raises(ValueError, match="`new_cache` needs a layer that is built"):
        SelfAttention(H, causal=True).new_cache(B, T)


def test_the_config_keeps_every_argument():
    layer = SelfAttention(
        H,
        head_dim=6,
        kv_heads=2,
        causal=True,
        rotary=True,
        relative=3,
        use_bias=False,
        dropout=0.1,
        kernel_initializer="he_normal",
        bias_initializer="ones",
        kernel_regularizer="l2",
        bias_regularizer=keras.regularizers.L2(0.3),
        seed=7,
    )
    layer_checks.check_config(layer)


def test_a_fresh_process_reloads_every_form(tmp_path):
    inputs = keras.Input((None, F))
    mask = keras.layers.Masking()(inputs)
    outputs = [_layer(**form)(mask) for form in FORMS.values()]
    model = keras.Model(inputs, keras.layers.Concatenate()(outputs))
    x = _inputs() * MASK[..., None]
    layer_checks.check_reload(
        model, x, tmp_path, "engram.layers.attention.self_attention"
    )


@every_form
def test_batch_and_time_may_be_unknown(form):
    layer = _layer(**form)
    x = keras.Input(batch_shape=(None, None, F))
    mask = keras.Input(batch_shape=(None, None), dtype="bool")
    outputs = layer(x, mask=mask, return_attention_scores=True)
    assert [one.shape for one in outputs] == [(None, None, F), (None, H, None, None)]
    model = keras.Model([x, mask], outputs)
    for batch, steps in ((3, 5), (1, 2)):
        given = [_inputs()[:batch, :steps], MASK[:batch, :steps]]
        wanted = layer(given[0], mask=given[1], return_attention_scores=True)
        for one, other in zip(model.predict(given, verbose=0), wanted, strict=True):
            _close(one, other)


def test_shapes_are_known_where_the_inputs_are():
    x = keras.Input((T, F))
    assert _layer()(x).shape == (None, T, F)
    y, alpha = _layer(kv_heads=2)(x, return_attention_scores=True)
    assert (y.shape, alpha.shape) == ((None, T, F), (None, H, T, T))
    assert _layer().compute_output_shape((2, T, F)) == (2, T, F)


@every_form
def test_mixed_precision_outputs_the_compute_dtype(form):
    def make(policy):
        return _layer(**form, dtype=policy)

    layer_checks.check_policies(make, _inputs(), tolerance=0.01)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_policy_leaves_the_softmax_in_float32(policy):
    layer, x = _layer(causal=True, dtype=policy), _inputs()
    y, alpha = layer(x, return_attention_scores=True)
    assert alpha.dtype == "float32"
    _close(ops.sum(alpha, axis=-1), np.ones((B, H, T)), 1e-6)
    spec = layer(keras.Input((T, F)), return_attention_scores=True)
    assert [one.dtype for one in spec] == [y.dtype, alpha.dtype]
    cache = layer.new_cache(B, T)
    assert {one.dtype for one in cache} == {y.dtype}
    found, cache = layer.step(x, cache, 0)
    assert {found.dtype, *(one.dtype for one in cache)} == {y.dtype}
    _close(ops.cast(found, "float32"), ops.cast(y, "float32"), 0.02)


def _masked_model(layer):
    """Returns a model that masks some steps of its inputs, and a whole sequence."""
    inputs = keras.Input((T, F))
    mask = ops.convert_to_tensor(NOTHING)
    return keras.Model(inputs, layer(inputs, mask=mask))


def test_gradients_are_finite_also_of_rows_that_see_nothing():
    layer = _layer(kv_heads=2, rotary=True, relative=2, causal=True)
    layer_checks.check_gradients(_masked_model(layer), _inputs())


def test_a_compiled_training_step_equals_the_plain_one():
    def make():
        layer = _layer(kv_heads=2, rotary=True, relative=2, causal=True)
        return keras.Sequential([keras.Input((T, F)), layer])

    layer_checks.check_compiled_step(make, 0.3 * _inputs(), np.zeros((B, T, F)))


def test_dropout_scales_what_it_keeps_and_acts_in_training_alone():
    layer = SelfAttention(1, dropout=0.5, use_bias=False, seed=3)
    x = np.eye(F, dtype="float32")[None]
    layer.build(x.shape)
    whole = np.eye(F, dtype="float32")
    layer.value_kernel.assign(whole[:, None])
    layer.output_kernel.assign(whole[None])  # y = alpha
    y, alpha = layer(x, return_attention_scores=True)
    _close(y, alpha[:, 0], 1e-7)
    y, alpha = layer(x, training=True, return_attention_scores=True)
    kept = ops.convert_to_numpy(y / alpha[:, 0])
    assert set(np.unique(np.round(kept, 5))) == {0, 2}
    _close(ops.sum(alpha, axis=-1), np.ones((1, 1, F)), 1e-6)  # before dropout


@pytest.mark.parametrize("seed", [None, 1])
def test_each_kernel_starts_as_a_glorot_matrix_of_its_own(seed):
    initializer = keras.initializers.GlorotUniform(seed=seed)
    layer = SelfAttention(8, kernel_initializer=initializer)
    layer.build((None, None, 64))
    kernels = [w for w in layer.get_weights() if w.ndim == 3]
    limit = np.sqrt(6 / (64 + 64))
    for k, kernel in enumerate(kernels):
        assert 0.99 * limit < np.abs(kernel).max() <= limit
        for other in kernels[:k]:
            assert np.abs(kernel.ravel() - other.ravel()).max() > 0.1 * limit


@pytest.mark.parametrize(
    "argument, value",
    [
        ("heads", 0),
        ("heads", 2.5),
        ("head_dim", 0),
        ("kv_heads", 0),
        ("kv_heads", 3),
        ("relative", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, value):
    def make(**arguments):
        return SelfAttention(**{"heads": H, **arguments})

    layer_checks.check_refused(make, argument, value)


def test_widths_that_do_not_fit_are_refused_by_name_and_value():
    def built(heads=1, head_dim=None, **form):
        SelfAttention(heads, head_dim=head_dim, **form).build((None, None, 7))

    layer_checks.check_refused(built, "heads", 2)
    layer_checks.check_refused(
        lambda head_dim: built(1, head_dim, rotary=True), "head_dim", 3
    )
    with pytest.raises(ValueError, match="`head_dim` must be even.*Received: 7"):
        built(rotary=True)


@pytest.mark.parametrize("x", [_inputs(), keras.Input((T, F))], ids=["array", "symbol"])
def test_masks_of_a_wrong_rank_are_refused(x):
    for shape in ((T,), (B, H, T, T)):
        with pytest.raises(ValueError) as raised:
            _layer()(x, attention_mask=np.ones(shape, bool))
        assert "`attention_mask` must have 2 or 3 axes" in str(raised.value)
        assert f"Received: shape {shape}" in str(raised.value)
    with pytest.raises(ValueError, match="`mask` must have 2 axes. Received: shape"):
        _layer()(_inputs(), mask=np.ones((B, T, T), bool))


def test_a_single_step_sees_itself_and_nobody_is_warned():
    # Warnings are errors here, and `ops.softmax` warns of an axis of size 1.
    layer = SelfAttention(2)
    _, alpha = layer(np.ones((3, 1, 4), "float32"), return_attention_scores=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(alpha), np.ones((3, 2, 1, 1)))
