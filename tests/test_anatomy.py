"""What `engram.anatomy` counts is what layers and models compute, and have as weights."""

import keras
import numpy as np
import pytest
import toy
import translator_suite

from engram import anatomy, models
from engram.layers import (
    CrossAttention,
    SelfAttention,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
)

S, T = 5, 3
TRANSFORMER = toy.ARGUMENTS["transformer"]
SEQ2SEQ = toy.ARGUMENTS["seq2seq"]


def neurons(rows, part, block=None):
    (found,) = [r.neurons for r in rows if r.part == part and block in (None, r.block)]
    return found


def parameters(rows):
    return sum(row.parameters for row in rows)


def draw(steps, features):
    return keras.random.normal((1, steps, features))


def test_a_single_head_of_64_features_over_10_tokens():
    layer = SelfAttention(heads=1)
    layer.build((None, None, 64))
    rows = anatomy.of_attention(layer, 10)
    assert [row.neurons for row in rows] == [640, 1920, 100, 100, 640, 640]
    matrix = 64 * 64 + 64
    assert [row.parameters for row in rows] == [0, 3 * matrix, 0, 0, 0, matrix]


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (SelfAttention, {"relative": 3, "use_bias": False}),
        (CrossAttention, {}),
    ],
    ids=["self", "cross"],
)
def test_neurons_of_an_attention_are_the_values_that_it_computes(kind, how):
    layer = kind(4, head_dim=6, kv_heads=2, **how)
    x, memory = draw(T, 8), draw(S, 7)
    both = [x] if isinstance(layer, SelfAttention) else [x, memory]
    y, alpha = layer(*both, return_attention_scores=True)
    projected = [layer.project_queries(x), *layer.project(both[-1])]
    rows = anatomy.of_attention(layer, T, S if len(both) > 1 else None)
    assert neurons(rows, "input") == sum(map(np.size, both))
    assert neurons(rows, "queries, keys, values") == sum(map(np.size, projected))
    assert neurons(rows, "scores") == neurons(rows, "softmax") == np.size(alpha)
    assert neurons(rows, "weighted sum") == np.size(projected[0])
    assert neurons(rows, "output") == np.size(y)
    assert parameters(rows) == layer.count_params()


def test_neurons_of_a_block_are_the_values_that_it_computes():
    block = TransformerDecoderBlock(heads=2, feedforward=11)
    x = draw(T, 8)
    y, alpha = block(x, draw(S, 6), return_attention_scores=True)
    rows = anatomy.of_block(block, T, S)
    for kind in ("self", "cross"):
        assert neurons(rows, f"{kind}: softmax") == np.size(alpha[kind])
    assert neurons(rows, "net: inner") == np.size(block.inner(x))
    assert neurons(rows, "net: normalised") == np.size(y)
    assert parameters(rows) == block.count_params()


def test_an_encoders_block_has_no_cross_attention():
    block = TransformerEncoderBlock(heads=2, feedforward=11)
    block(draw(T, 8))
    rows = anatomy.of_block(block, T)
    assert not [row for row in rows if "cross" in row.part]
    assert parameters(rows) == block.count_params()


@pytest.mark.parametrize(
    ("word", "vocabulary", "arguments"),
    [
        ("transformer", "separate", TRANSFORMER | {"norm": "pre", "depth": 2}),
        ("transformer", "shared", TRANSFORMER),
        ("seq2seq", "separate", SEQ2SEQ | {"cell": "simple_rnn", "attention": "none"}),
        ("seq2seq", "shared", SEQ2SEQ | {"cell": "lstm", "attention": "luong"}),
        ("seq2seq", "separate", SEQ2SEQ | {"cell": "gru"}),
        ("seq2seq", "separate", SEQ2SEQ | {"cell": "stlm"}),
    ],
)
def test_a_model_is_counted_whole(word, vocabulary, arguments):
    sizes = {"vocabulary": vocabulary, "source_pieces": 10}
    model = models.build(word, translator_suite.SPEC | sizes, 0.1, **arguments)
    rows = anatomy.of_model(model, T, S)
    assert parameters(rows) == model.count_params()

    source = np.array([[4, 5, 6, 7, 2]])
    shifted = np.array([[1, 4, 5]])
    assert neurons(rows, "", "logits") == np.size(model((source, shifted)))
    for name, alpha in model.alignments(source, shifted).items():
        part = "cross: softmax" if word == "transformer" else "softmax"
        block = name if word == "transformer" else "attention"
        assert neurons(rows, part, block) == np.size(alpha)
    if word == "seq2seq":
        memory = model.encode(source)
        states, _ = model.first(memory, T)
        count = sum(np.size(one) for one in keras.tree.flatten(states))
        assert neurons(rows, "", "starts") == count
        assert neurons(rows, "states", "decoder") == T * count
        assert neurons(rows, "states", "encoder") == 2 * S * count
        if "keys" in memory:
            assert neurons(rows, "keys") == np.size(memory["keys"])
            assert neurons(rows, "weighted sum") == T * np.size(memory["memory"]) / S


def test_a_layer_without_weights_is_refused():
    with pytest.raises(ValueError, match="needs a layer that is built"):
        anatomy.of_attention(SelfAttention(heads=1), T)


def test_the_table_is_aligned_and_ends_with_the_sums(translator_suite, capsys):
    arguments = ["--source", str(S), "--target", str(T)]
    anatomy.main([str(translator_suite / "runs/trained"), *arguments])
    *lines, last, empty, sizes = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in [*lines, last]}) == 1
    assert lines[0].split() == ["block", "part", "shape", "neurons", "parameters"]
    name, total, weights = last.split()
    run = translator_suite / "runs/trained/models/seed-10.keras"
    model = models.load("seq2seq", "translation", run)
    assert (name, weights) == ("all", f"{model.count_params():,}")
    assert total == f"{sum(r.neurons for r in anatomy.of_model(model, T, S)):,}"
    assert {f"S {S}", f"T {T}"} <= set(sizes.split(", "))
    assert empty == ""


def test_a_sentence_without_tokens_is_refused(capsys):
    with pytest.raises(SystemExit):
        anatomy.main(["runs/x", "--source", "0"])
    assert "--source and --target must be at least 1" in capsys.readouterr().err
