"""Translators tell the same step by step as all at once, and learn to translate."""

import inspect

import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from engram import distribution, models
from engram.models import translation
from engram.models.seq2seq import CELLS, Seq2Seq
from engram.models.transformer import Transformer

SPEC = {
    "task": "translation",
    "source_pieces": 12,
    "target_pieces": 14,
    "vocabulary": "separate",
    "start": 1,
    "end": 2,
}
FORM = {"width": 16, "dropout": 0.0, "smoothing": 0.0, "beam": 1}
FORM |= {"length_penalty": 0.6}
TRANSFORMER = {"depth": 2, "heads": 2, "feedforward": 32, "norm": "post"}
SEQ2SEQ = {"cell": "gru", "attention": "bahdanau", "units": 8, "own_words": 0.0}
ATTENTIONS = ("none", "bahdanau", "luong")
KINDS = [("transformer", {**TRANSFORMER, "norm": norm}) for norm in ("post", "pre")]
KINDS += [("seq2seq", {**SEQ2SEQ, "cell": cell}) for cell in CELLS]
KINDS += [("seq2seq", {**SEQ2SEQ, "attention": kind}) for kind in ("none", "luong")]
SOURCE = np.array([[5, 6, 7, 2, 0], [7, 8, 2, 0, 0], [9, 4, 10, 11, 2]], np.int32)
SHIFTED = np.array([[1, 4, 5, 9], [1, 6, 0, 0], [1, 13, 12, 0]], np.int32)


def built(word, args, learning_rate=0.01, spec=SPEC, **form):
    keras.utils.set_random_seed(3)
    return models.build(word, spec, learning_rate, **FORM | form, **args)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def reversals(count, seed):
    """Sentences of 2 to 6 pieces, each with the same pieces backwards."""
    draw = np.random.default_rng(seed)
    source, shifted = np.zeros((count, 7), np.int32), np.zeros((count, 7), np.int32)
    target = np.zeros((count, 7), np.int32)
    for n, size in enumerate(draw.integers(2, 7, count)):
        pieces = draw.integers(3, 12, size)
        source[n, : size + 1] = [*pieces, 2]
        target[n, : size + 1] = [*pieces[::-1], 2]
        shifted[n, : size + 1] = [1, *pieces[::-1]]
    return source, shifted, target


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: str([*kind[1].values()]))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return built(*kind)


def test_step_by_step_it_tells_what_it_tells_all_at_once(model):
    expected = numpy(model((SOURCE, SHIFTED)))  # (B, T, V)
    assert expected.std() > 0.01
    memory = model.encode(SOURCE)
    state, seen = model.first(memory, SHIFTED.shape[1]), SHIFTED != 0
    for index in range(SHIFTED.shape[1]):
        logits, state = model.step(SHIFTED[:, index], state, memory, index)
        told, wanted = numpy(logits), expected[:, index]
        np.testing.assert_allclose(
            told[seen[:, index]], wanted[seen[:, index]], rtol=0, atol=1e-5
        )


def test_padding_behind_a_sentence_changes_nothing(model):
    expected = numpy(model((SOURCE, SHIFTED)))
    longer = [np.pad(one, ((0, 0), (0, 3))) for one in (SOURCE, SHIFTED)]
    found = numpy(model(longer))[:, : SHIFTED.shape[1]]
    seen = SHIFTED != 0
    np.testing.assert_allclose(found[seen], expected[seen], rtol=0, atol=1e-5)


def test_a_translation_is_the_likeliest_piece_at_each_step(model):
    found = model.translate(SOURCE, 6)
    assert found.shape == (3, 6)
    written = np.pad(found, ((0, 0), (1, 0)))[:, :-1]
    written[:, 0] = SPEC["start"]
    best = numpy(model((SOURCE, written))).argmax(-1)
    for row, wanted in zip(found, best, strict=True):
        end = [*row, 2].index(2) + 1
        np.testing.assert_array_equal(row[:end], wanted[:end])
        assert not row[end:].any()
    shorter = model.translate(SOURCE, 3)
    np.testing.assert_array_equal(shorter, found[:, :3])


def test_a_search_as_wide_as_the_vocabulary_finds_the_likeliest_pair(kind):
    spec = {**SPEC, "end": -1}  # no text ends before its second piece
    model = built(*kind, spec=spec, beam=14, length_penalty=0.0)
    firsts = np.tile(np.arange(14), len(SOURCE))  # every first piece of each source
    shifted = np.stack([np.ones_like(firsts), firsts], axis=1)
    told = model((np.repeat(SOURCE, 14, axis=0), shifted))
    log_p = numpy(ops.log_softmax(told, axis=-1)).reshape(len(SOURCE), 14, 2, 14)
    pairs = log_p[:, 0, 0][:, :, None] + log_p[:, :, 1]  # (B, first, second)
    best = pairs.reshape(len(SOURCE), -1).argmax(1)
    np.testing.assert_array_equal(
        model.translate(SOURCE, 2), np.stack([best // 14, best % 14], axis=1)
    )


def test_alignments_are_shares_of_the_source_and_none_of_its_padding(model, kind):
    found = model.alignments(SOURCE, SHIFTED)
    if kind[1].get("attention") == "none":
        assert found == {}
        return
    assert list(found) == (
        ["decoder_1", "decoder_2"] if "depth" in kind[1] else ["decoder"]
    )
    for alpha in map(numpy, found.values()):
        assert alpha.shape == (3, kind[1].get("heads", 1), 4, 5)
        hidden = np.broadcast_to((SOURCE == 0)[:, None, None], alpha.shape)
        assert (alpha[hidden] == 0).all()
        seen = np.broadcast_to((SHIFTED != 0)[:, None], alpha.shape[:3])
        np.testing.assert_allclose(alpha.sum(-1)[seen], 1, atol=1e-6)


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[5]], ids=["transformer", "stlm"])
def test_saved_it_comes_back_in_a_fresh_process(kind, tmp_path):
    model, inputs = built(*kind), [SOURCE, SHIFTED]
    layer_checks.check_reload(model, inputs, tmp_path, f"engram.models.{kind[0]}")
    again = models.load(kind[0], "translation", tmp_path / "model.keras")
    np.testing.assert_array_equal(again.translate(SOURCE, 6), model.translate(SOURCE, 6))


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=["transformer", "gru"])
def test_it_learns_to_read_backwards(kind):
    source, shifted, target = reversals(2000, seed=1)
    # Falling, so that rounding does not decide how far the last steps miss.
    rate = keras.optimizers.schedules.CosineDecay(0.005, decay_steps=480)
    model = built(*kind, learning_rate=rate, width=32, beam=3)
    model.fit(
        (source, shifted),
        target,
        sample_weight=(target != 0).astype("float32"),
        batch_size=50,
        epochs=12,
        verbose=0,
    )
    source, _, target = reversals(100, seed=2)
    right = (model.translate(source, 7) == target).all(1)
    assert right.mean() > 0.9


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=["transformer", "gru"])
def test_two_replicas_train_as_one(two_devices, kind):
    draw = np.random.default_rng(1)
    target = np.pad(draw.integers(3, 12, (12, 4)), ((0, 0), (0, 1)), constant_values=2)
    shifted = np.concatenate([np.ones((12, 1), int), target[:, :-1]], axis=1)
    after = []
    for word in ("one_device", "mirrored"):
        every = np.ones((12, 5), np.float32)
        data = tf.data.Dataset.from_tensors(((target, shifted), target, every))
        with distribution.scope(word) as strategy:
            model = built(*kind)
            # Adam's first step is a gradient's sign, and some gradients are rounding.
            model.compile("sgd", translation.SmoothedCrossEntropy(), jit_compile=False)
            model.fit(data.unbatch().batch(12), shuffle=False, verbose=0)
        after.append(model.get_weights())
    assert strategy.num_replicas_in_sync == 2
    for one, two in zip(*after, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-6)


def test_one_vocabulary_is_one_embedding():
    spec = {**SPEC, "vocabulary": "shared", "target_pieces": 12}
    one, two = (
        built("transformer", TRANSFORMER, spec=spec),
        built("transformer", TRANSFORMER),
    )
    assert one.source_embedding is one.target_embedding
    assert two.count_params() - one.count_params() == 14 * FORM["width"]


def test_the_published_size_is_reached_to_the_last_parameter():
    # Transformer-Tiny of Wu et al. 2021, English to French: 9,533 pieces and 4 others
    spec = {**SPEC, "vocabulary": "shared"}
    spec |= {"source_pieces": 9537, "target_pieces": 9537}
    tiny = {"depth": 4, "heads": 4, "feedforward": 256, "norm": "post"}
    model = built("transformer", tiny, spec=spec, width=128)
    assert model.count_params() == 2_545_792


def test_own_words_take_the_place_of_true_ones_in_training_alone():
    model = built("seq2seq", {**SEQ2SEQ, "own_words": 0.5})
    guesses = np.array([[3, 4, 5, 6]] * 3)
    logits = np.eye(14, dtype="float32")[guesses]  # (B, T, V)
    mixed = numpy(model._mixed(np.tile(SHIFTED, (50, 1)), np.tile(logits, (50, 1, 1))))
    np.testing.assert_array_equal(mixed[:, 0], np.tile(SHIFTED[:, 0], 50))
    before, own = np.tile(SHIFTED[:, 1:], (50, 1)), np.tile(guesses[:, :-1], (50, 1))
    assert ((mixed[:, 1:] == before) | (mixed[:, 1:] == own)).all()
    differ = before != own
    assert 0.4 < (mixed[:, 1:] == own)[differ].mean() < 0.6
    plain = built("seq2seq", SEQ2SEQ)
    plain.set_weights(model.get_weights()[: len(plain.get_weights())])
    np.testing.assert_array_equal(
        numpy(model((SOURCE, SHIFTED))), numpy(plain((SOURCE, SHIFTED)))
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_with_the_smoothed_target(smoothing):
    draw = np.random.default_rng(1)
    z, y = draw.normal(size=(2, 3, 5)), draw.integers(0, 5, (2, 3))
    weight = np.array([[1, 1, 0], [1, 0, 0]], float)
    q = (1 - smoothing) * np.eye(5)[y] + smoothing / 5
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    expected = (-(q * log_p).sum(-1) * weight).sum() / weight.sum()
    found = translation.SmoothedCrossEntropy(smoothing)(y, z, sample_weight=weight)
    np.testing.assert_allclose(float(found), expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_of_the_loss_is_what_is_told_less_what_is_wanted(smoothing):
    draw = np.random.default_rng(1)
    z, y = draw.normal(size=(2, 3, 5)), draw.integers(0, 5, (2, 3))
    weight = np.array([[1, 1, 0], [1, 0, 0]], float)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    q = (1 - smoothing) * np.eye(5)[y] + smoothing / 5
    given = tf.constant(z, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = translation.SmoothedCrossEntropy(smoothing)(y, given, sample_weight=weight)
    expected = weight[..., None] * (p - q) / weight.sum()
    np.testing.assert_allclose(tape.gradient(loss, given), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [Transformer, Seq2Seq])
def test_every_argument_is_in_the_config(kind):
    word = {Transformer: KINDS[0], Seq2Seq: KINDS[2]}[kind]
    config = built(*word).get_config()
    for one in (kind, translation.Translator):
        wanted = set(inspect.signature(one.__init__).parameters) - {"self", "kwargs"}
        assert wanted <= set(config)
    assert kind.from_config(config).get_config() == config


@pytest.mark.parametrize(
    ("make", "argument", "value"),
    [
        (lambda **own: built("seq2seq", SEQ2SEQ | own), "cell", "'gruu'"),
        (lambda **own: built("seq2seq", SEQ2SEQ | own), "attention", "'dot'"),
        (translation.SmoothedCrossEntropy, "smoothing", 1.0),
    ],
)
def test_a_wrong_argument_is_named(make, argument, value):
    given = value.strip("'") if isinstance(value, str) else value
    with pytest.raises(ValueError, match=f"`{argument}`.*Received: {value}"):
        make(**{argument: given})


def test_one_vocabulary_of_two_sizes_is_refused():
    with pytest.raises(ValueError, match="`shared` needs .* Received: 12 and 14"):
        built("transformer", TRANSFORMER, spec={**SPEC, "vocabulary": "shared"})
