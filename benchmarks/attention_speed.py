"""Attention against KerasHub's layers with the same weights: training, greedy, beam.

A Transformer-Tiny: 4 + 4 blocks, 128 wide, 10,000 pieces with one embedding, 2.6 million
weights. The peer is the same model of KerasHub's encoder, decoder, sines and embedding,
with its caches, and has our weights: that both give the same logits and write the same
pieces is asserted first.

Each runs as it is best: with XLA or without; the peer's texts by its own sampler, which
has no length penalty, or by our loop around its layers, whichever is faster. Best stands
against best. A training step is forward, loss and the gradients of all weights. All texts
have as many pieces: no end ever comes. All run in one process, interleaved, after
warm-up; the table has medians.

KerasHub's layers drop attention weights as well. Ours then do, too; the rows without that
take it from the peer's, which also makes them faster.

    python benchmarks/attention_speed.py  # writes benchmarks/results/attention_speed.json
"""

import json
import math
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import keras
import keras_hub  # type: ignore[import-not-found, import-untyped, unused-ignore]
import numpy as np
import tensorflow as tf
from keras import ops, tree

from engram import repository
from engram.layers.attention import decoding
from engram.models.transformer import Transformer
from engram.models.translation import PAD, SmoothedCrossEntropy

DEPTH, WIDTH, HEADS, FEEDFORWARD, PIECES = 4, 128, 4, 256, 10_000
START, NO_END = 1, -1
SOURCE, LENGTH, BEAM = 18, 23, 5  # pieces read, pieces written, hypotheses
CHECKED = 6  # pieces, step by step
BATCHES = (1, 64)  # sentences at once
TRAINING = ((64, 18, 20), (256, 16, 16))  # batch, source pieces, target pieces
DROPOUT = 0.3
SPREAD = 0.1  # standard deviation of what is added to all weights of the blocks
ROUNDS, WARM_UP = 9, 2
XLA = {"XLA off": False, "XLA on": True}
OURS, PEER, NO_CACHE = "ours", "KerasHub", "no cache"

Calls = dict[str, Callable]  # how it runs -> what runs


class Peer:
    """KerasHub's layers, put together as our `Transformer`, with its methods.

    Args:
        dropout: float, of all that its layers drop.
        of_weights: bool, whether attention weights are dropped, as its layers do.
    """

    def __init__(self, dropout: float = 0.0, of_weights: bool = True) -> None:
        layers, form = keras_hub.layers, {"dropout": dropout}
        self.embedding = layers.ReversibleEmbedding(PIECES, WIDTH)
        self.positions = layers.SinePositionEncoding()
        self.drop = keras.layers.Dropout(dropout)
        kinds = layers.TransformerEncoder, layers.TransformerDecoder
        self.encoder, self.decoder = (
            [kind(FEEDFORWARD, HEADS, **form) for _ in range(DEPTH)] for kind in kinds
        )
        self((ids(1, SOURCE), ids(1, LENGTH)))  # builds
        for layer in self.decoder if not of_weights else ():
            layer._cross_attention_layer._dropout = 0.0
        for layer in self.encoder + self.decoder if not of_weights else ():
            layer._self_attention_layer._dropout = 0.0

    def __call__(self, inputs, training=False):
        """Returns logits `(B, T, V)`."""
        source, shifted = inputs
        h, seen = self.encoded(source, training)
        y = self.entered(shifted, training=training)
        for layer in self.decoder:
            y = layer(y, h, encoder_padding_mask=seen, training=training)
        return self.embedding(y, reverse=True)

    @property
    def trainable_weights(self) -> list:
        layers = [self.embedding, *self.encoder, *self.decoder]
        return [weight for layer in layers for weight in layer.trainable_weights]

    def encode(self, source):
        """Returns the memory: what each step needs to know of the source."""
        h, seen = self.encoded(source)
        heads = [layer._cross_attention_layer for layer in self.decoder]
        caches = [ops.stack([a.key_dense(h), a.value_dense(h)], axis=1) for a in heads]
        return {"h": h, "seen": seen, "projected": caches}

    def first(self, memory, length):
        """Returns empty caches."""
        shape = (memory["h"].shape[0], 2, length, HEADS, WIDTH // HEADS)
        return [ops.zeros(shape) for _ in self.decoder]

    def step(self, tokens, state, memory, index):
        """Returns logits `(B, V)` and the caches."""
        y, caches = self.entered(tokens[:, None], index), []
        for layer, cache, projected in zip(
            self.decoder, state, memory["projected"], strict=True
        ):
            y, cache, _ = layer(
                y,
                memory["h"],
                encoder_padding_mask=memory["seen"],
                self_attention_cache=cache,
                self_attention_cache_update_index=index,
                cross_attention_cache=projected,
            )
            caches.append(cache)
        return self.embedding(y, reverse=True)[:, 0], caches

    def encoded(self, source, training=False):
        """Returns the encoder's output and which of it counts."""
        seen = ops.not_equal(source, PAD)
        h = self.entered(source, training=training)
        for layer in self.encoder:
            h = layer(h, padding_mask=seen, training=training)
        return h, seen

    def entered(self, tokens, start=0, training=False):
        """Returns embedded tokens at their positions."""
        x = self.embedding(tokens) * math.sqrt(WIDTH)
        return self.drop(x + self.positions(x, start_index=start), training=training)


def main() -> None:
    """Measures, prints the table and writes the results file."""
    rows = []
    for of_weights in (True, False):
        ours, peer = models(DROPOUT, of_weights)
        check(ours, peer)
        rows += [training(ours, peer, shape, of_weights) for shape in TRAINING]
    ours, peer = models()
    check(ours, peer)
    for batch in BATCHES:
        rows.append(written(ours, peer, batch, 1))
    for batch in BATCHES:
        rows.append(written(ours, peer, batch, BEAM))
    write(rows + without_cache(ours, max(BATCHES)))


def models(dropout: float = 0.0, of_weights: bool = False) -> tuple[Transformer, Peer]:
    """Returns our model and the peer, with equal weights."""
    keras.utils.set_random_seed(1)
    ours = Transformer(
        DEPTH,
        HEADS,
        FEEDFORWARD,
        dropout=dropout,
        source_pieces=PIECES,
        target_pieces=PIECES,
        shared=True,
        start=START,
        end=NO_END,
        width=WIDTH,
    )
    ours.build()
    draw = np.random.default_rng(1)
    for block in ours.encoder + ours.decoder:  # biases as well, which are 0
        for weight in block.weights:
            weight.assign(weight + SPREAD * draw.standard_normal(weight.shape))
    peer = Peer(dropout, of_weights)
    peer.embedding.set_weights(ours.target_embedding.get_weights())
    for block, layer in zip(
        ours.encoder + ours.decoder, peer.encoder + peer.decoder, strict=True
    ):
        block.self_attention.dropout = dropout if of_weights else 0.0
        for part, its in parts(block, layer):
            its.set_weights(part.get_weights())
    for block in ours.decoder:
        block.cross_attention.dropout = dropout if of_weights else 0.0
    return ours, peer


def parts(block, layer) -> list[tuple[keras.Layer, keras.Layer]]:
    """Returns the layers of one of our blocks beside those of the peer's."""
    pairs = [
        (block.self_attention, layer._self_attention_layer),
        (block.self_norm, layer._self_attention_layer_norm),
        (block.inner, layer._feedforward_intermediate_dense),
        (block.outer, layer._feedforward_output_dense),
        (block.feedforward_norm, layer._feedforward_layer_norm),
    ]
    if block.causal:
        pairs += [
            (block.cross_attention, layer._cross_attention_layer),
            (block.cross_norm, layer._cross_attention_layer_norm),
        ]
    return pairs


def check(ours: Transformer, peer: Peer) -> None:
    """Asserts that both have as many weights and give the same logits, with caches too.

    Texts of random weights repeat a piece: here the steps are given random ones.
    """
    source, shifted = inputs = ids(8, SOURCE), ids(8, CHECKED)
    expected = ours(inputs).numpy()
    sizes = []
    for model in (ours, peer):
        memory = model.encode(source)
        state, steps = model.first(memory, CHECKED), []
        for index in range(CHECKED):
            logits, state = model.step(shifted[:, index], state, memory, index)
            steps.append(logits)
        for found in (model(inputs).numpy(), np.stack(steps, axis=1)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        sizes.append(sum(math.prod(one.shape) for one in model.trainable_weights))
    assert sizes[0] == sizes[1], sizes


def training(ours, peer, shape: tuple[int, int, int], of_weights: bool) -> dict:
    """Returns the line of the table for training steps of this shape."""
    batch, source, target = shape
    inputs = ids(batch, source), ids(batch, target + 1)
    calls = {
        f"{name}, {how}": training_step(model, inputs, jit_compile)
        for name, model in ((OURS, ours), (PEER, peer))
        for how, jit_compile in XLA.items()
    }
    dropped = "attention weights too" if of_weights else "no attention weights"
    case = f"training step, {batch} x ({source}, {target}), drops {dropped}"
    return told(case, "training step against KerasHub", calls, PEER, 1, "steps/s")


def training_step(model, inputs: tuple, jit_compile: bool) -> Callable:
    """Returns a function that gives the loss and the gradients of all weights."""
    weights = [weight.value for weight in model.trainable_weights]
    loss_of = SmoothedCrossEntropy()

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(source, target):
        with tf.GradientTape() as tape:
            logits = model((source, target[:, :-1]), training=True)
            loss = loss_of(target[:, 1:], logits)
        return [loss, *map(tf.convert_to_tensor, tape.gradient(loss, weights))]

    return lambda: step(*inputs)


def written(ours, peer, batch: int, width: int) -> dict:
    """Returns the line of the table for texts written by greedy (width 1) or beam."""
    source = ids(batch, SOURCE)
    forms = {
        OURS: lambda source: by_our_loop(ours, source, width),
        f"{PEER}, our loop": lambda source: by_our_loop(peer, source, width),
        f"{PEER}, its sampler": lambda source: by_sampler(peer, source, width),
    }
    calls = {
        f"{name}, {how}": compiled(form, source, jit_compile)
        for name, form in forms.items()
        for how, jit_compile in XLA.items()
    }
    check_written(calls, width)
    what = f"beam {width}" if width > 1 else "greedy"
    case = f"{what}, batch {batch}, {LENGTH} pieces"
    return told(case, f"{what} against KerasHub", calls, PEER, batch)


def by_our_loop(model, source, width: int):
    """Returns pieces `(B, L)`, and their log probabilities, as our loops find them."""
    memory = model.encode(source)
    first = ops.full((source.shape[0],), START, dtype="int32")
    given = model.step, model.first(memory, LENGTH), memory, first, LENGTH, NO_END
    if width == 1:
        return decoding.greedy(*given)
    tokens, scores = decoding.beam(*given, width, length_penalty=0.0)
    return tokens[:, 0], scores[:, 0]


def by_sampler(peer: Peer, source, width: int):
    """Returns what KerasHub's sampler finds; its greedy one tells no probabilities."""
    memory = peer.encode(source)
    cache = peer.first(memory, LENGTH)
    memory = tree.map_structure(lambda one: ops.repeat(one, width, axis=0), memory)
    first = ops.full((source.shape[0], 1), START, dtype="int32")
    prompt = ops.pad(first, ((0, 0), (0, LENGTH)))

    def step(prompt, cache, index):
        token = ops.take(prompt, index - 1, axis=1)
        logits, cache = peer.step(token, cache, memory, index - 1)
        return logits, None, cache

    if width == 1:
        sampler = keras_hub.samplers.GreedySampler()
        return [sampler(step, prompt, cache, index=1)[:, 1:]]
    sampler = keras_hub.samplers.BeamSampler(width, return_all_beams=True)
    prompts, scores = sampler(step, prompt, cache, index=1)
    return prompts[:, 0, 1:], scores[:, 0]


def without_cache(ours: Transformer, batch: int) -> list[dict]:
    """Returns lines of the table for greedy with a cache and without, ours both."""
    source, rows = ids(batch, SOURCE), []
    for what, again in (
        ("the model again", whole),
        ("the decoder again, its last logits alone", last_alone),
    ):
        calls = {
            f"{name}, {how}": compiled(form, source, jit_compile)
            for name, form in (
                (OURS, lambda source: by_our_loop(ours, source, 1)),
                (f"{NO_CACHE}, padded", padded(ours, again)),
                (f"{NO_CACHE}, growing", growing(ours, again)),
            )
            for how, jit_compile in XLA.items()
            if not (jit_compile and name.endswith("growing"))  # XLA wants fixed shapes
        }
        check_written(calls)
        case = f"greedy, batch {batch}, {LENGTH} pieces, against {what} at each step"
        rows.append(told(case, f"greedy against {what}", calls, NO_CACHE, batch))
    return rows


def whole(model, source):
    """Returns a function from pieces to the logits of all, as tutorials have it."""

    def logits(shifted, index):
        return model((source, shifted))[:, index]

    return logits


def last_alone(model, source):
    """Returns a function that reads the source once, and gives the logits of one."""
    h, seen = model._encoded(source)

    def logits(shifted, index):
        y = model._entered(model.target_embedding, shifted)
        for block in model.decoder:
            y = block(y, h, memory_mask=seen)
        return model._told(y[:, index])

    return logits


def padded(model, again: Callable) -> Callable:
    """Returns greedy without a cache on texts padded to their last length."""

    def write(source):
        logits = again(model, source)

        def step(tokens, state, memory, index):
            here = ops.arange(LENGTH) == index
            state = ops.where(here, tokens[:, None], state)
            return logits(state, index), state

        first = ops.full((source.shape[0],), START, dtype="int32")
        shifted = ops.zeros((source.shape[0], LENGTH), dtype="int32")
        return decoding.greedy(step, shifted, (), first, LENGTH, NO_END)

    return write


def growing(model, again: Callable) -> Callable:
    """Returns greedy without a cache on texts as long as they are."""

    def write(source):
        logits = again(model, source)

        def advance(index, shifted):
            token = tf.argmax(logits(shifted, index), -1, output_type=tf.int32)
            return index + 1, tf.concat([shifted, token[:, None]], axis=1)

        batch = source.shape[0]
        _, found = tf.while_loop(
            lambda index, _: index < LENGTH,
            advance,
            (tf.constant(0), tf.fill((batch, 1), START)),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([batch, None])),
        )
        return [found[:, 1:]]

    return write


def compiled(form: Callable, source: tf.Tensor, jit_compile: bool) -> Callable:
    """Returns a function that writes texts for the source."""
    run = tf.function(form, jit_compile=jit_compile, autograph=False)
    return lambda: run(source)


def check_written(calls: Calls, width: int = 1) -> None:
    """Asserts that all write the same pieces, with the same scores where they tell them.

    Of two texts that are as probable a beam may find either: its scores are compared.
    """
    (expected, scores), *others = [call() for call in calls.values()]
    for found, *its in others:
        if width == 1:
            np.testing.assert_array_equal(found, expected)
        if its:
            np.testing.assert_allclose(its[0], scores, rtol=0, atol=1e-3)


def told(
    case: str,
    pair: str,
    calls: Calls,
    peer: str,
    of_a_call: int,
    unit: str = "sentences/s",
) -> dict:
    """Returns, and prints, a line of the table, after measuring all calls."""
    took = medians(calls, (OURS, peer))
    fast, slow = (
        min((key for key in took if key.startswith(name)), key=took.__getitem__)
        for name in (OURS, peer)
    )
    row = {
        "case": case,
        "pair": pair,
        "ours": of_a_call / took[fast],
        "peer": of_a_call / took[slow],
        "ratio": took[slow] / took[fast],
        "unit": unit,
        "ours_as": fast,
        "peer_as": slow,
        "milliseconds": {key: 1000 * value for key, value in took.items()},
    }
    print(
        f"{case:78}{row['ours']:9.2f}{row['peer']:9.2f} {unit:12}{row['ratio']:6.2f}"
        f"   ({fast}; {slow})",
        flush=True,
    )
    return row


def medians(calls: Calls, sides: tuple[str, str]) -> dict[str, float]:
    """Returns the median seconds of each call; rounds are interleaved.

    What takes over thrice as long in the warm-up as the best of its side is left out.
    """
    rounds = [{key: seconds(call) for key, call in calls.items()} for _ in range(WARM_UP)]
    least = {key: min(one[key] for one in rounds) for key in calls}
    kept = []
    for side in sides:
        mine = {key: took for key, took in least.items() if key.startswith(side)}
        kept += [key for key, took in mine.items() if took <= 3 * min(mine.values())]
    rounds = [{key: seconds(calls[key]) for key in kept} for _ in range(ROUNDS)]
    return {key: statistics.median(one[key] for one in rounds) for key in kept}


def seconds(call: Callable) -> float:
    """Returns how long a call takes until its results are there."""
    began = time.perf_counter()
    [result.numpy() for result in call()]
    return time.perf_counter() - began


def ids(batch: int, steps: int) -> tf.Tensor:
    """Returns random pieces; every other row ends two steps early, with padding."""
    found = np.random.default_rng(batch).integers(3, PIECES, (batch, steps))
    found[1::2, -2:] = PAD
    return tf.constant(found, tf.int32)


def write(rows: list[dict]) -> None:
    """Writes the results file, with the machine and the versions."""
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    geomeans = {
        pair: statistics.geometric_mean(r["ratio"] for r in rows if r["pair"] == pair)
        for pair in pairs
    }
    names = ("keras", "keras-hub", "tensorflow", "numpy")
    content = {
        "rows": rows,
        "geomean": geomeans["greedy against KerasHub"],
        "geomeans": geomeans,
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "rounds": ROUNDS,
        "versions": {name: version(name) for name in names},
    }
    out = Path(__file__).parent / "results" / "attention_speed.json"
    out.write_text(json.dumps(content, indent=2) + "\n")
    for pair, ratio in geomeans.items():
        print(f"{pair}: {ratio:.2f}")


if __name__ == "__main__":
    main()
