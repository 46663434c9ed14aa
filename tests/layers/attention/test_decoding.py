"""Decoding finds the texts that brute force finds; each keeps its own state."""

import decoding_equations as equations
import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from engram.layers.attention.decoding import beam, greedy, sample

B, L, END = 3, 4, 2
START = equations.start(B)
WAYS = {
    "eager": lambda run: run,
    "traced": tf.function,
    "compiled": lambda run: tf.function(run, jit_compile=True),
}
every_way = pytest.mark.parametrize("way", WAYS)
penalties = pytest.mark.parametrize("length_penalty", [0.0, 0.6, 3.0])


def _run(way, decode, start=START, length=L, end=END, **kwargs):
    """Returns what `decode` finds, as arrays."""

    def run(state, memory, first):
        return decode(equations.step, state, memory, first, length, end, **kwargs)

    state, memory, first = keras.tree.map_structure(
        lambda one: None if one is None else tf.convert_to_tensor(one), start
    )
    table, _ = memory
    traced = WAYS[way](lambda state, table, first: run(state, (table, None), first))
    return [ops.convert_to_numpy(one) for one in traced(state, table, first)]


def _rows(start=START):
    """Yields table and first token of every sentence."""
    _, (table, _), first = start
    return zip(table, first, strict=True)


def _fixed(distribution):
    """Returns a step function with the same distribution at every step."""
    logits = np.log(np.maximum(distribution, 1e-30)).astype("float32")

    def step(tokens, state, memory, index):
        return ops.broadcast_to(logits, (tokens.shape[0], len(distribution))), state

    return step


def _one_text(**kwargs):
    """Returns the arguments of a call on one sentence, some of them replaced."""
    state, memory, first = equations.start(1)
    given = {"step": equations.step, "state": state, "memory": memory, "first": first}
    return {**given, "length": L, "end": END, **kwargs}


# Greedy.


@every_way
def test_greedy_writes_the_most_probable_token_at_each_step(way):
    tokens, log_p = _run(way, greedy, length=7)
    assert tokens.dtype == np.int32 and log_p.dtype == np.float32
    for (table, first), row, found in zip(_rows(), tokens, log_p, strict=True):
        text = equations.most_probable(table, first, 7, END)
        np.testing.assert_array_equal(row, equations.padded(text, 7))
        wanted = equations.log_probability(table, first, text)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("decode", [greedy, beam, sample])
def test_minus_one_as_end_gives_texts_of_full_length(decode):
    step = _fixed([0.1, 0.6, 0.3])
    found = decode(step, (), (), np.zeros(2), 5, -1, **_width(decode, 2))
    tokens = ops.convert_to_numpy(found[0])
    assert tokens.shape[-1] == 5
    if decode is not sample:
        np.testing.assert_array_equal(tokens.reshape(2, -1, 5)[:, 0], np.ones((2, 5)))


def _width(decode, width):
    return {"width": width} if decode is beam else {}


@pytest.mark.parametrize("decode", [greedy, beam, sample])
def test_the_loop_ends_when_all_sentences_are_done(decode):
    """Token 1 ends a text; its probability is 1 to rounding."""
    steps = []

    def step(tokens, state, memory, index):
        steps.append(int(index))
        return ops.tile(ops.convert_to_tensor([[0.0, 40.0, 0.0]]), (len(tokens), 1)), ()

    found = decode(step, (), (), np.zeros(2), 50, 1, **_width(decode, 2))
    tokens = ops.convert_to_numpy(found[0]).reshape(2, -1, 50)[:, 0]
    np.testing.assert_array_equal(tokens, np.eye(50)[:1].repeat(2, axis=0))
    assert steps[0] == 0 and len(steps) < 12


def test_of_equal_tokens_the_lower_one_is_taken():
    step = _fixed([0.2, 0.3, 0.2, 0.3])
    (tokens,), _ = greedy(step, (), (), np.zeros(1), 3, 2)
    np.testing.assert_array_equal(tokens, [1, 1, 1])
    (tokens,), _ = beam(step, (), (), np.zeros(1), 1, -1, width=4)
    np.testing.assert_array_equal(tokens, [[1], [3], [0], [2]])
    (tokens,), _ = beam(step, (), (), np.zeros(1), 2, -1, width=4)
    np.testing.assert_array_equal(tokens, [[1, 1], [1, 3], [3, 1], [3, 3]])


def test_a_state_of_less_known_shape_than_at_the_start_is_taken_on():
    """Here a step forgets how many rows there are, as a layer may."""

    @tf.function(input_signature=[tf.TensorSpec([None], "int32")])
    def forgotten(tokens):
        return tokens

    def step(tokens, state, memory, index):
        rows = tf.shape(forgotten(tokens))[:1]
        logits, state = equations.step(tokens, state, memory, index)
        trace, flags = state["more"]
        trace = tf.reshape(trace, tf.concat([rows, [2, 1]], 0))
        logits = tf.reshape(logits, tf.concat([rows, [equations.V]], 0))
        return logits, {"place": state["place"], "more": [trace, flags]}

    state, memory, first = START
    for decode, kwargs in ((greedy, {}), (beam, {"width": 2})):
        run = tf.function(
            lambda decode=decode, kwargs=kwargs: decode(
                step, state, memory, first, L, END, **kwargs
            )
        )
        for one, wanted in zip(run(), _run("traced", decode, **kwargs), strict=True):
            np.testing.assert_array_equal(one, wanted)


def test_the_number_of_sentences_may_be_unknown():
    def run(decode, table, first, **kwargs):
        zeros = tf.zeros_like(first)
        trace = tf.zeros((tf.shape(first)[0], 2, 1))
        flags = tf.zeros((tf.shape(first)[0], 3), "bool")
        state = {"place": zeros, "more": [trace, (flags,)]}
        return decode(equations.step, state, (table, None), first, L, END, **kwargs)

    unknown = [
        tf.TensorSpec([None, equations.PLACES, equations.V]),
        tf.TensorSpec([None], "int32"),
    ]
    _, (table, _), first = START
    for decode, kwargs in ((greedy, {}), (beam, {"width": 3}), (sample, {"seed": 1})):
        traced = tf.function(
            lambda *given, decode=decode, kwargs=kwargs: run(decode, *given, **kwargs),
            input_signature=unknown,
        )
        wanted = _run("eager", decode, **kwargs)
        for one, other in zip(traced(table, first), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


# Beam.


@every_way
@penalties
def test_a_beam_wide_enough_finds_every_text_in_order(way, length_penalty):
    width = 3**3 * equations.V  # all texts of four tokens
    tokens, scores = _run(way, beam, width=width, length_penalty=length_penalty)
    for k, (table, first) in enumerate(_rows()):
        texts = list(equations.ended_texts(equations.V, L, END))
        wanted = [
            equations.score(
                equations.log_probability(table, first, text), len(text), length_penalty
            )
            for text in texts
        ]
        order = np.argsort(wanted)[::-1]
        count = len(texts)  # 40
        np.testing.assert_allclose(
            scores[k, :count], np.array(wanted)[order], rtol=0, atol=1e-5
        )
        for place, text in enumerate(order):
            np.testing.assert_array_equal(
                tokens[k, place], equations.padded(texts[text], L)
            )
        assert np.all(scores[k, count:] == -np.inf) and not np.any(tokens[k, count:])


@penalties
@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_narrow_beam_finds_what_a_search_that_never_stops_early_finds(
    width, length_penalty
):
    start, length = equations.start(8, seed=width), 9
    tokens, scores = _run(
        "compiled", beam, start, length, width=width, length_penalty=length_penalty
    )
    for k, (table, first) in enumerate(_rows(start)):
        wanted = equations.beam(table, first, length, END, width, length_penalty)
        for place, (score, text) in enumerate(wanted):
            np.testing.assert_allclose(scores[k, place], score, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(
                tokens[k, place], equations.padded(text, length)
            )
        assert np.all(scores[k, len(wanted) :] == -np.inf)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_where_the_search_stops_early_going_on_would_change_nothing(length_penalty):
    """Sentence by sentence: the loop goes on until all of them are done."""
    steps, length, width = [], 10, 3

    def step(tokens, state, memory, index):
        steps[-1] += 1
        return equations.step(tokens, state, memory, index)

    for seed in range(25):
        state, memory, first = start = equations.start(1, seed=seed)
        steps.append(0)
        tokens, scores = beam(
            step, state, memory, first, length, END, width, length_penalty
        )
        ((table, token),) = _rows(start)
        wanted = equations.beam(table, token, length, END, width, length_penalty)
        for place, (score, text) in enumerate(wanted):
            np.testing.assert_allclose(scores[0, place], score, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(
                tokens[0, place], equations.padded(text, length)
            )
    assert min(steps) < length


@every_way
def test_a_beam_of_one_is_greedy(way):
    start = equations.start(16, seed=4)
    wanted, log_p = _run(way, greedy, start, 8)
    tokens, scores = _run(way, beam, start, 8, width=1, length_penalty=0.7)
    np.testing.assert_array_equal(tokens, wanted[:, None])
    ended = (wanted == END).any(axis=1)
    sizes = np.where(ended, np.argmax(wanted == END, axis=1) + 1, 8)
    assert ended.any() and not ended.all()
    np.testing.assert_allclose(
        scores[:, 0], equations.score(log_p, sizes, 0.7), rtol=1e-6, atol=0
    )


def test_without_penalty_the_score_is_the_log_probability_by_teacher_forcing():
    tokens, scores = _run("traced", beam, width=3, length_penalty=0.0)
    assert np.isfinite(scores[:, 0]).all() and np.isfinite(scores).sum() > B
    state, (table, _), first = START
    for k in range(3):
        given = np.concatenate([first[:, None], tokens[:, k]], axis=1)
        total, now = np.zeros(B), state
        ended = np.zeros(B, bool)
        for t in range(L):
            logits, now = equations.step(given[:, t], now, (table, None), t)
            log_p = ops.convert_to_numpy(ops.log_softmax(logits))
            total += np.where(ended, 0, log_p[np.arange(B), given[:, t + 1]])
            ended |= given[:, t + 1] == END
        there = np.isfinite(scores[:, k])  # fewer than three texts may have ended
        np.testing.assert_allclose(scores[there, k], total[there], rtol=0, atol=1e-5)


@pytest.mark.parametrize("decode", [greedy, beam])
def test_sentences_do_not_influence_each_other(decode):
    together = _run("traced", decode, length=8, **_width(decode, 3))
    state, (table, _), first = START
    for k in range(B):
        only = keras.tree.map_structure(lambda one, k=k: one[k : k + 1], state)
        alone = only, (table[k : k + 1], None), first[k : k + 1]
        found = _run("traced", decode, alone, 8, **_width(decode, 3))
        for one, all_of_them in zip(found, together, strict=True):
            np.testing.assert_allclose(one[0], all_of_them[k], rtol=0, atol=1e-6)


def test_the_rows_of_one_sentence_stand_together_and_each_has_its_memory():
    seen = []

    def step(tokens, state, memory, index):
        seen.append(ops.convert_to_numpy(memory["row"]))
        assert memory["none"] is None
        return equations.step(tokens, state, memory["table"], index)

    state, table, first = START
    memory = {"row": np.arange(B), "none": None, "table": table}
    beam(step, state, memory, first, L, END, width=2)
    for rows in seen:
        np.testing.assert_array_equal(rows, [0, 0, 1, 1, 2, 2])


def test_living_texts_are_returned_where_none_has_ended():
    step = _fixed([0.5, 0.3, 0.0, 0.2])  # the end never comes
    tokens, scores = beam(step, (), (), np.zeros(1), 3, END, 2, length_penalty=1.0)
    np.testing.assert_array_equal(tokens, [[[0, 0, 0], [0, 0, 1]]])
    wanted = np.log([[0.125, 0.075]]) / (8 / 6)
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)


def test_a_text_that_ended_is_returned_before_better_ones_that_have_not():
    step = _fixed([0.5, 0.45, 0.05])
    tokens, scores = beam(step, (), (), np.zeros(1), 2, 2, 3, length_penalty=0.0)
    np.testing.assert_array_equal(tokens[0], [[2, 0], [0, 0], [0, 0]])
    np.testing.assert_allclose(scores, [[np.log(0.05), -np.inf, -np.inf]], rtol=1e-5)


def test_a_beam_may_be_wider_than_there_are_texts():
    tokens, scores = beam(_fixed([0.7, 0.3]), (), (), np.zeros(1), 1, -1, width=5)
    np.testing.assert_array_equal(tokens[0, :, 0], [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(np.isfinite(scores), [[True] * 2 + [False] * 3])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_logits_of_half_precision_are_summed_in_float32(dtype):
    def step(tokens, state, memory, index):
        logits, state = equations.step(tokens, state, memory, index)
        return ops.cast(logits, dtype), state

    state, memory, first = START
    for _, scores in (
        greedy(step, state, memory, first, L, END),
        beam(step, state, memory, first, L, END, width=2),
    ):
        assert keras.backend.standardize_dtype(scores.dtype) == "float32"


# Sampling.


@pytest.mark.parametrize(
    "kwargs, kept",
    [
        ({}, [0.1, 0.4, 0.05, 0.15, 0.3]),
        ({"temperature": 0.5}, [0.01, 0.16, 0.0025, 0.0225, 0.09]),
        ({"top_k": 2}, [0, 0.4, 0, 0, 0.3]),
        ({"top_k": 99}, [0.1, 0.4, 0.05, 0.15, 0.3]),
        ({"top_p": 0.6}, [0, 0.4, 0, 0, 0.3]),
        ({"top_p": 0.75}, [0, 0.4, 0, 0.15, 0.3]),
        ({"top_p": 0.01}, [0, 1, 0, 0, 0]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.05, 0.15, 0.3]),
        ({"top_k": 3, "top_p": 0.8}, [0, 0.4, 0, 0, 0.3]),  # of 0.85, 0.7 is above 0.8
        ({"temperature": 2.0, "top_k": 2}, [0, 0.4**0.5, 0, 0, 0.3**0.5]),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_the_distribution_says(kwargs, kept):
    p = np.array([0.1, 0.4, 0.05, 0.15, 0.3])
    count = 40_000
    tokens, log_p = sample(
        _fixed(p), (), (), np.zeros(200), count // 200, -1, seed=3, **kwargs
    )
    tokens = ops.convert_to_numpy(tokens)
    wanted = np.array(kept) / np.sum(kept)
    found = np.bincount(tokens.ravel(), minlength=5) / count
    deviation = np.sqrt(wanted * (1 - wanted) / count)
    assert np.all(np.abs(found - wanted) <= 4 * deviation)  # exactly 0 where it must be
    np.testing.assert_allclose(log_p, np.log(p)[tokens].sum(axis=1), rtol=1e-4)


def test_draws_of_neighbouring_steps_and_rows_do_not_depend_on_each_other():
    tokens, _ = sample(_fixed([0.5, 0.5]), (), (), np.zeros(200), 200, -1, seed=1)
    x = ops.convert_to_numpy(tokens) - 0.5  # products of independent ones: mean 0
    for one, next_one in ((x[:, :-1], x[:, 1:]), (x[:-1], x[1:])):
        assert abs(np.mean(one * next_one)) < 4 * 0.25 / np.sqrt(one.size)


@every_way
def test_the_same_seed_draws_the_same_texts(way):
    start = equations.start(16)
    one, again, other = (
        _run(way, sample, start, 8, top_p=0.9, seed=seed)[0] for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


def test_a_generator_as_seed_draws_other_texts_each_time():
    seed = keras.random.SeedGenerator(1)

    @tf.function
    def run():
        return sample(_fixed([0.5, 0.5]), (), (), np.zeros(4), 20, -1, seed=seed)[0]

    assert np.any(run() != run())


@every_way
def test_sampling_the_best_token_only_is_greedy(way):
    start = equations.start(16)
    wanted = _run(way, greedy, start, 8)
    for kwargs in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        found = _run(way, sample, start, 8, seed=1, **kwargs)
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=1e-5)


def test_of_equal_tokens_the_best_one_is_the_lower_one():
    step = _fixed([0.2, 0.3, 0.2, 0.3])
    tokens, _ = sample(step, (), (), np.zeros(50), 2, -1, top_k=1, seed=1)
    assert np.all(ops.convert_to_numpy(tokens) == 1)


def test_a_sampled_text_has_zeros_after_its_end():
    tokens, log_p = _run("eager", sample, equations.start(16), 8, seed=2)
    _, (tables, _), firsts = equations.start(16)
    sizes = []
    for row, found, table, first in zip(tokens, log_p, tables, firsts, strict=True):
        size = list(row).index(END) + 1 if END in row else 8
        assert not row[size:].any()
        wanted = equations.log_probability(table, first, row[:size])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
        sizes.append(size)
    assert min(sizes) < 8


# Errors.


@pytest.mark.parametrize("decode", [greedy, beam, sample])
@pytest.mark.parametrize("length", [0, -1, 2.5])
def test_a_length_that_cannot_be_is_refused(decode, length):
    given = {**_one_text(), **_width(decode, 2)}
    layer_checks.check_refused(lambda **one: decode(**{**given, **one}), "length", length)


@pytest.mark.parametrize("decode", [greedy, beam, sample])
def test_first_tokens_that_are_not_one_for_each_row_are_refused(decode):
    given = {**_one_text(first=np.zeros((1, 1), "int32")), **_width(decode, 2)}
    with pytest.raises(ValueError, match=r"`first` must .* Received: shape \(1, 1\)"):
        decode(**given)


@pytest.mark.parametrize(
    "argument, value",
    [("width", 0), ("width", 1.5), ("length_penalty", -0.1)]
    + [("length_penalty", float("nan")), ("length_penalty", float("inf"))],
)
def test_a_beam_that_cannot_be_is_refused(argument, value):
    given = _one_text(width=2)
    layer_checks.check_refused(lambda **one: beam(**{**given, **one}), argument, value)


@pytest.mark.parametrize(
    "argument, value",
    [("temperature", 0), ("temperature", -1.0), ("temperature", float("nan"))]
    + [("top_k", 0), ("top_k", 1.5), ("top_p", 0), ("top_p", 1.01)],
)
def test_a_restriction_that_cannot_be_is_refused(argument, value):
    given = _one_text()
    layer_checks.check_refused(lambda **one: sample(**{**given, **one}), argument, value)
