"""The blocks compute their equations, at once or step by step, and fit in any model."""

import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
import transformer_equations as equations
from keras import ops
from stlm_equations import draw_weights

from engram.layers.attention import decoding
from engram.layers.attention.transformer_decoder_block import TransformerDecoderBlock
from engram.layers.attention.transformer_encoder_block import TransformerEncoderBlock

B, T, S, F, M, H = 3, 5, 4, 8, 6, 4
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], bool)
MEMORY_MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1]], bool)
MODULES = [
    f"engram.layers.attention.transformer_{kind}_block" for kind in ("encoder", "decoder")
]
OWN = {  # another value than the default for every argument
    "heads": 4,
    "feedforward": 7,
    "norm": "pre",
    "activation": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.2,
    "rotary": True,
    "relative": 3,
    "head_dim": 2,
    "kv_heads": 2,
    "layer_norm_epsilon": 1e-6,
    "kernel_initializer": "he_normal",
    "bias_initializer": "ones",
    "seed": 5,
}
every_form = pytest.mark.parametrize("form", equations.FORMS)
both_kinds = pytest.mark.parametrize(
    "kind", [TransformerEncoderBlock, TransformerDecoderBlock]
)
both_norms = pytest.mark.parametrize("norm", ["post", "pre"])


def _x(dtype="float32", seed=1):
    return np.random.default_rng(seed).normal(size=(B, T, F)).astype(dtype)


def _memory(dtype="float32"):
    return np.random.default_rng(2).normal(size=(B, S, M)).astype(dtype)


def _given(kind, dtype="float32"):
    """Returns the inputs of a block of a kind."""
    both = _x(dtype), _memory(dtype)
    return both if kind is TransformerDecoderBlock else both[:1]


def _block(kind, form="post", **kwargs):
    """Returns a built block whose weights are all drawn, none is zero."""
    block = kind(H, 7, **{**equations.FORMS[form], **kwargs})
    block.build(*(one.shape for one in _given(kind)))
    return draw_weights(block)


def _model(kind, **kwargs):
    """Returns a model of embedded tokens, whose zeros are masked, and a block."""
    tokens = keras.Input((None,))
    embed = keras.layers.Embedding(9, F, mask_zero=True)
    if kind is TransformerEncoderBlock:
        return keras.Model(tokens, kind(2, 7, **kwargs)(embed(tokens)))
    source = keras.Input((None,))
    memory = keras.layers.Embedding(9, M, mask_zero=True)(source)
    return keras.Model(
        [tokens, source], kind(2, 7, **kwargs)(embed(tokens), memory=memory)
    )


def _tokens(kind):
    x = np.array([[1, 2, 3, 4, 5], [1, 6, 0, 0, 0]])
    source = np.array([[1, 2, 0], [8, 7, 6]])
    return [x, source] if kind is TransformerDecoderBlock else [x]


def _close(found, wanted, tolerance=1e-5):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


# The equations.


@every_form
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_an_encoder_block_equals_the_equation(form, masked):
    block, x = _block(TransformerEncoderBlock, form, dtype="float64"), _x("float64")
    mask = MASK if masked else None
    y, alpha = block(x, mask=mask, return_attention_scores=True)
    wanted_y, wanted_alpha = equations.encoder_block(block, x, mask)
    _close(y, wanted_y, 1e-7)  # Keras' gelu is not exact to float64
    _close(alpha, wanted_alpha, 1e-7)
    _close(block(x, mask=mask), y, 1e-12)


@every_form
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_a_decoder_block_equals_the_equation(form, masked):
    block = _block(TransformerDecoderBlock, form, dtype="float64")
    x, memory = _x("float64"), _memory("float64")
    masks = {"memory_mask": MEMORY_MASK, "mask": MASK} if masked else {}
    y, alpha = block(x, memory, **masks, return_attention_scores=True)
    wanted = equations.decoder_block(block, x, memory, **masks)
    assert set(alpha) == {"self", "cross"}
    for found, one in zip((y, alpha["self"], alpha["cross"]), wanted, strict=True):
        _close(found, one, 1e-7)
    _close(block(x, memory, **masks), y, 1e-12)


@both_kinds
@pytest.mark.parametrize("form", ["post", "pre, all at once"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_traced_or_compiled_the_output_is_the_same(kind, form, jit_compile):
    block, given = _block(kind, form), _given(kind)
    unknown = [tf.TensorSpec([None, None, one.shape[-1]]) for one in given]

    @tf.function(jit_compile=jit_compile, input_signature=unknown)
    def run(*given):
        return block(*given, mask=MASK, return_attention_scores=True)

    found = run(*given)
    wanted = block(*given, mask=MASK, return_attention_scores=True)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(wanted), strict=True):
        _close(one, other)


@both_norms
def test_a_decoder_block_sees_nothing_to_come(norm):
    block, x, memory = _block(TransformerDecoderBlock, norm), _x(), _memory()
    changed = x.copy()
    changed[:, 3:] += 1
    before, after = block(x, memory), block(changed, memory)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.all(np.any(before[:, 3:] != after[:, 3:], axis=-1))


# Step by step.


@every_form
@pytest.mark.parametrize("memory_mask", [None, MEMORY_MASK], ids=["", "masked"])
def test_steps_with_a_cache_equal_the_full_call(form, memory_mask):
    block, x, memory = _block(TransformerDecoderBlock, form), _x(), _memory()
    y, alpha = block(x, memory, memory_mask=memory_mask, return_attention_scores=True)
    cache, projected = block.new_cache(B, T + 2), block.project(memory)
    for start, end in ((0, 2), (2, 3), (3, 5)):
        now = x[:, start:end]
        plain, _ = block.step(now, cache, start, projected, memory_mask)
        found, cache, scores = block.step(
            now, cache, start, projected, memory_mask, return_attention_scores=True
        )
        _close(found, y[:, start:end])
        _close(plain, found, 0)
        _close(scores["self"][..., :T], alpha["self"][:, :, start:end])
        assert not np.any(scores["self"][..., T:])
        _close(scores["cross"], alpha["cross"][:, :, start:end])


@both_norms
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_step_takes_its_index_as_a_tensor(norm, jit_compile):
    block, x, memory = _block(TransformerDecoderBlock, norm), _x(), _memory()
    step = tf.function(block.step, jit_compile=jit_compile)
    cache, projected = block.new_cache(B, T), block.project(memory)
    found = []
    for t in range(T):
        y, cache = step(tf.constant(x[:, t : t + 1]), cache, tf.constant(t), projected)
        found.append(y)
    _close(ops.concatenate(found, axis=1), block(x, memory))


@both_norms
def test_a_step_of_half_precision_equals_the_full_call(norm):
    block = _block(TransformerDecoderBlock, norm, dtype="mixed_float16")
    x, memory = _x(), _memory()
    cache, projected = block.new_cache(B, T), block.project(memory)
    y, _ = block.step(x, cache, 0, projected)
    wanted = block(x, memory)
    assert y.dtype == wanted.dtype == cache[0].dtype == tf.float16
    _close(y, wanted, 5e-3)


@both_norms
@pytest.mark.parametrize("width", [1, 3])
def test_a_beam_over_blocks_finds_what_full_calls_say(norm, width):
    """The caches of the texts are reordered with them."""
    size, length, end = 6, 7, 1
    embed, logits = (np.random.default_rng(k).normal(size=(size, F)) for k in (3, 4))
    embed, logits = embed.astype("float32"), logits.astype("float32") / 4
    blocks = [_block(TransformerDecoderBlock, norm, name=f"b{k}") for k in range(2)]
    memory = _memory()

    def step(tokens, caches, memory, index):
        x, new = ops.take(embed, tokens, axis=0)[:, None], []
        for block, cache, projected in zip(blocks, caches, memory[0], strict=True):
            x, cache = block.step(x, cache, index, projected, memory[1])
            new.append(cache)
        return ops.matmul(x[:, 0], logits.T), new

    @tf.function(jit_compile=True)
    def texts():
        caches = [block.new_cache(B, length) for block in blocks]
        projected = [block.project(memory) for block in blocks]
        first = ops.zeros(B, dtype="int32")
        given = caches, (projected, tf.constant(MEMORY_MASK)), first, length, end
        return decoding.beam(step, *given, width=width, length_penalty=0.0)

    tokens, scores = (ops.convert_to_numpy(one) for one in texts())
    before = np.pad(tokens, ((0, 0), (0, 0), (1, 0)))[..., :-1]  # (B, width, L)
    for k in range(width):
        x = ops.take(embed, before[:, k], axis=0)
        for block in blocks:
            x = block(x, memory, memory_mask=MEMORY_MASK)
        log_p = ops.convert_to_numpy(ops.log_softmax(ops.matmul(x, logits.T)))
        log_p = np.take_along_axis(log_p, tokens[:, k, :, None], axis=-1)[..., 0]
        written = np.cumsum(before[:, k] == end, axis=1) == 0
        there = np.isfinite(scores[:, k])
        _close(scores[there, k], np.sum(log_p * written, axis=1)[there], 1e-4)
        assert k or there.all()


# As a layer.


@both_kinds
def test_every_argument_survives_a_config(kind):
    layer_checks.check_config(kind(**OWN))


@both_kinds
@both_norms
def test_masks_of_embeddings_are_used_and_passed_on(kind, norm):
    tokens = _tokens(kind)
    y = _model(kind, norm=norm)(tokens if len(tokens) > 1 else tokens[0])
    np.testing.assert_array_equal(keras.src.backend.get_keras_mask(y), tokens[0] != 0)


@both_kinds
@both_norms
def test_what_is_masked_changes_nothing(kind, norm):
    tokens, model = _tokens(kind), _model(kind, norm=norm)
    whole = model(tokens if len(tokens) > 1 else tokens[0])
    for row, (steps, source) in enumerate(((5, 2), (2, 3))):
        alone = [one[row : row + 1] for one in tokens]
        alone = [one[:, :size] for one, size in zip(alone, (steps, source), strict=False)]
        found = model(alone if len(alone) > 1 else alone[0])
        _close(found[0], whole[row, :steps], 1e-6)


@both_kinds
def test_shapes_are_known_where_they_can_be(kind):
    block = kind(2, 7)
    inputs = [keras.Input((None, F)), keras.Input((4, M))]
    inputs = inputs if kind is TransformerDecoderBlock else inputs[:1]
    y, alpha = block(*inputs, return_attention_scores=True)
    assert y.shape == (None, None, F)
    if kind is TransformerDecoderBlock:
        assert alpha["self"].shape == (None, 2, None, None)
        assert alpha["cross"].shape == (None, 2, None, 4)
    else:
        assert alpha.shape == (None, 2, None, None)
    assert block(*inputs).shape == (None, None, F)
    assert block.compute_output_shape(*(one.shape for one in inputs)) == (None, None, F)


def test_a_reloaded_model_has_the_same_output(tmp_path):
    """One of all blocks, with and without arguments of its own."""
    x, source = keras.Input((None, F)), keras.Input((None, M))
    own = {**OWN, "heads": 2, "kv_heads": 1}
    memory = TransformerEncoderBlock(2, 7)(TransformerEncoderBlock(**own)(source))
    y = TransformerDecoderBlock(2, 7)(TransformerDecoderBlock(**own)(x, memory), memory)
    model = keras.Model([x, source], y)
    layer_checks.check_reload(model, [_x(), _memory()], tmp_path, *MODULES)


@both_kinds
@both_norms
def test_every_weight_has_a_gradient(kind, norm):
    """But a bias of keys: it adds the same to all logits of a row."""
    given, probe = _given(kind), np.random.default_rng(4).normal(size=(B, T, F))
    block = _block(kind, norm=norm, relative=2)
    with tf.GradientTape() as tape:
        loss = ops.sum(block(*given) * probe.astype("float32"))
    weights = block.trainable_weights
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        assert np.isfinite(gradient).all(), weight.path
        if weight.name != "key_bias":
            assert np.abs(gradient).max() > 1e-3, weight.path


@both_kinds
@both_norms
def test_a_training_step_compiled_by_xla_is_the_same(kind, norm):
    given = _given(kind)

    def model():
        keras.utils.set_random_seed(1)
        inputs = [keras.Input(one.shape[1:]) for one in given]
        return keras.Model(inputs, kind(2, 7, norm=norm)(*inputs))

    layer_checks.check_compiled_step(model, list(given), _x(seed=3))


@both_kinds
@both_norms
def test_mixed_precision_is_near_to_float32(kind, norm):
    memory = _memory()

    class OfOneInput(keras.layers.Layer):
        def __init__(self, policy):
            super().__init__(dtype=policy)
            self.block = kind(2, 7, norm=norm, dtype=policy)

        def call(self, x):
            rest = (memory,) if kind is TransformerDecoderBlock else ()
            return self.block(x, *rest)

    layer_checks.check_policies(OfOneInput, _x(), 2e-2)


@both_kinds
def test_dropout_is_drawn_in_training_only(kind):
    given = _given(kind)
    block = _block(kind, dropout=0.5, seed=1)
    quiet = _block(kind)
    _close(block(*given), quiet(*given), 0)
    _close(block(*given, training=False), quiet(*given), 0)
    one, other = (block(*given, training=True) for _ in range(2))
    assert np.any(one != other) and np.any(one != quiet(*given))


@both_kinds
@both_norms
def test_dropout_acts_on_the_output_of_every_sublayer(kind, norm):
    """With almost everything dropped, what is left are the residuals."""
    given = _given(kind)
    block = _block(kind, norm, dropout=1 - 1e-9)
    y = block(*given, training=True)
    if norm == "pre":
        _close(y, given[0], 0)
        return
    x = given[0]
    norms = [block.self_norm, block.feedforward_norm]
    if kind is TransformerDecoderBlock:
        norms.insert(1, block.cross_norm)
    for layer in norms:
        x = layer(x)
    _close(y, x, 1e-6)


@both_kinds
def test_dropout_of_attention_changes_training_only(kind):
    given = _given(kind)
    block, quiet = _block(kind, attention_dropout=0.5, seed=1), _block(kind)
    _close(block(*given), quiet(*given), 0)
    assert np.any(block(*given, training=True) != quiet(*given))


def test_an_initializer_with_a_seed_draws_every_kernel_anew():
    block = TransformerDecoderBlock(
        2, F, kernel_initializer=keras.initializers.RandomNormal(seed=1)
    )
    block.build((B, T, F), (B, S, F))
    kernels = [np.ravel(w) for w in block.weights if "kernel" in w.name]
    assert len(kernels) == 10 and {kernel.size for kernel in kernels} == {F * F}
    for k, one in enumerate(kernels):
        assert all(np.any(one != other) for other in kernels[:k])


# Errors.


@both_kinds
@pytest.mark.parametrize(
    "argument, value",
    [
        ("heads", 0),
        ("heads", 1.5),
        ("feedforward", 0),
        ("feedforward", 2.5),
        ("norm", "both"),
        ("activation", "tanh"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("attention_dropout", 1.0),
        ("relative", 0),
        ("head_dim", 0),
        ("kv_heads", 3),
        ("layer_norm_epsilon", 0.0),
    ],
)
def test_an_argument_that_cannot_be_is_refused(kind, argument, value):
    given = {"heads": 4, "feedforward": 7}
    layer_checks.check_refused(lambda **one: kind(**{**given, **one}), argument, value)


@both_kinds
def test_features_that_the_heads_do_not_divide_are_refused(kind):
    with pytest.raises(ValueError, match="`heads` must divide the 8 features"):
        kind(3, 7)(*_given(kind))
