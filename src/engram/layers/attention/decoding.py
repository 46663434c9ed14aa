"""Decoding: from a step function to texts, token after token.

A text is a row of tokens. A step function tells what may come next:

    step(tokens (B,), state, memory, index) -> logits (B, V), state

It is given the token written last (at first `first`) and the `index`, an int tensor, of
the token to write, 0 for the first one. `state` is what changes from step to step
(caches, recurrent states): any nest of tensors whose first axis is B, `()` for none.
`memory` is what does not change (encoder output, projected keys and values, masks): the
same, and leaves may be None.

The loops are `keras.ops.while_loop`s. Inside a `tf.function` or `jax.jit`, compiled by
XLA or not, they run without Python; outside, on TensorFlow, each step runs eagerly.
"""

import math

import keras
import numpy as np
from keras import ops, tree

from engram.layers.attention import beam_texts
from engram.layers.attention.multi_head import check_positive


def greedy(step, state, memory, first, length, end):
    """Writes the most probable token at each step, of equals the one of lower number.

    Args:
        step: function, as told at the top of this module.
        state: nest of tensors `(B, ...)`, given to the first step.
        memory: nest of tensors `(B, ...)`, given to every step.
        first: int tensor `(B,)`, the token before the first one.
        length: int, at most so many tokens `L` are written.
        end: int, the token after which a text has ended; -1, which no token is, for
            texts of `length` tokens.

    Returns:
        tokens: `(B, L)`, int32, with `end` and without `first`; 0 after `end`.
        log_probabilities: `(B,)`, float32, in nats, of the tokens written, `end`
            included.

    Raises:
        ValueError: if an argument cannot be used; it names the argument and its value.
    """

    def most_probable(logits, index):
        # Not `ops.argmax`, which XLA makes slow on a CPU.
        size = logits.shape[-1]
        most = logits == ops.max(logits, axis=-1, keepdims=True)
        return ops.min(ops.where(most, ops.arange(size), size - 1), axis=-1)

    return _roll_out(step, state, memory, first, length, end, most_probable)


def sample(
    step,
    state,
    memory,
    first,
    length,
    end,
    temperature=1.0,
    top_k=None,
    top_p=None,
    seed=None,
):
    """Draws each token from what the step function says of it.

    A token is drawn from `softmax(logits / temperature)`, restricted to the `top_k` most
    probable tokens, and of those to the smallest set whose probability reaches `top_p`
    (the nucleus).

    Args:
        step: as in `greedy`.
        state: as in `greedy`.
        memory: as in `greedy`.
        first: as in `greedy`.
        length: as in `greedy`.
        end: as in `greedy`.
        temperature: float, positive.
        top_k: int or None for all tokens.
        top_p: float in (0, 1], or None for all tokens.
        seed: int: the same call draws the same texts. A `keras.random.SeedGenerator`:
            others each time. None: as a generator, Keras' own.

    Returns:
        tokens: as in `greedy`.
        log_probabilities: as in `greedy`: the model's own, whatever the restrictions.

    Raises:
        ValueError: if an argument cannot be used; it names the argument and its value.

    References:
        - Fan, Lewis & Dauphin 2018, Hierarchical neural story generation, section 5.4:
          top k.
        - Holtzman et al. 2020, The curious case of neural text degeneration, eq. 2 and 3:
          the nucleus.
    """
    check_positive("length", length)
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature` must be positive. Received: {temperature}")
    if top_k is not None:
        check_positive("top_k", top_k)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"`top_p` must be in (0, 1]. Received: {top_p}")
    batch = ops.shape(_checked_first(first))[0]
    # Drawn at once: a seed then says all of it, on any backend.
    chances = keras.random.uniform((batch, length), dtype="float32", seed=seed)

    def drawn(logits, index):
        chance = ops.take(chances, index, axis=1)  # (B,)
        return _drawn(logits / temperature, chance, top_k, top_p)

    return _roll_out(step, state, memory, first, length, end, drawn)


def beam(step, state, memory, first, length, end, width, length_penalty=0.6):
    """Looks for the `width` texts of highest score.

    A text `Y` of `|Y|` tokens, `end` included, has the score

        log p(Y) / ((5 + |Y|) / 6)^length_penalty

    At each step the `2 width` most probable continuations of the living texts are taken.
    Those that end, and are among the best `width` of them, may enter the `width` best
    ended texts; the best `width` others live on. A sentence is done when its best living
    text, even if it ended at `length` with no further loss, would not score above its
    worst ended one: going on would change nothing. Where no text has ended by `length`,
    the living ones are returned. Width 1 is `greedy`.

    Equal continuations of one text are taken in the order of their tokens, those of equal
    texts in the order of the texts. The width may be larger than the vocabulary.

    Args:
        step: as in `greedy`, called with `B width` rows: the texts of one sentence stand
            together.
        state: as in `greedy`, given for B rows; reordered with the texts.
        memory: as in `greedy`, given for B rows; repeated `width` times.
        first: as in `greedy`.
        length: as in `greedy`.
        end: as in `greedy`.
        width: int, texts per sentence.
        length_penalty: float, at least 0: 0 for the plain log probability; the higher,
            the longer the texts.

    Returns:
        tokens: `(B, width, L)`, int32, best first, 0 after `end`.
        scores: `(B, width)`, float32. Where there are fewer texts than `width`, the rest
            has score -inf and tokens 0.

    Raises:
        ValueError: if an argument cannot be used; it names the argument and its value.

    Reference:
        - Wu et al. 2016, Google's neural machine translation system, arXiv:1609.08144,
          eq. 14, without the coverage penalty.
    """
    check_positive("length", length)
    check_positive("width", width)
    if not 0 <= length_penalty < math.inf:
        raise ValueError(f"`length_penalty` must be >= 0. Received: {length_penalty}")
    penalties = ((5 + np.arange(1, length + 1)) / 6) ** length_penalty
    penalties = ops.convert_to_tensor(penalties, dtype="float32")  # (L,), of each |Y|
    if width == 1:
        return _beam_of_one(step, state, memory, first, length, end, penalties)
    first = _repeated(_checked_first(first), width)
    state, memory = _repeated((state, memory), width)
    live, ended = beam_texts.none_yet(first, width, length)

    def going(index, token, leaves, live, ended):
        bound = live.scores[:, 0] / penalties[-1]  # log p falls, the penalty grows
        return ops.any(bound > ended.scores[:, -1])

    def advance(index, token, leaves, live, ended):
        logits, new = step(token, tree.pack_sequence_as(state, leaves), memory, index)
        log_p = ops.log_softmax(_by_row(logits, token), axis=-1)  # (B width, V)
        longer, parents = beam_texts.continued(live, log_p, index)
        ends = ops.take(longer.tokens, index, axis=2) == end  # (B, 2 width)
        penalty = ops.take(penalties, index)
        live, chosen, ended = beam_texts.parted(longer, ends, ended, penalty)
        token = ops.reshape(ops.take(live.tokens, index, axis=2), (-1,))
        rows = beam_texts.rows(beam_texts.picked(parents, chosen), width)
        leaves = [
            _shaped(ops.take(one, rows, axis=0), old)
            for one, old in zip(_leaves(new), leaves, strict=True)
        ]
        return index + 1, token, leaves, live, ended

    start = (ops.convert_to_tensor(0, "int32"), first, _leaves(state), live, ended)
    *_, live, ended = ops.while_loop(going, advance, start, maximum_iterations=length)
    return beam_texts.outcome(live, ended, penalties[-1])


def _roll_out(step, state, memory, first, length, end, choose):
    """Writes one text for each row; `choose(logits, index)` tells the next tokens."""
    check_positive("length", length)
    first = _checked_first(first)
    batch = ops.shape(first)[0]

    def going(index, token, leaves, tokens, total, done):
        return ops.logical_not(ops.all(done))

    def advance(index, token, leaves, tokens, total, done):
        logits, new = step(token, tree.pack_sequence_as(state, leaves), memory, index)
        logits = _by_row(logits, token)  # (B, V)
        chosen = ops.cast(choose(logits, index), "int32")  # (B,)
        told = ops.take_along_axis(logits, chosen[:, None], axis=-1)[:, 0]
        gained = told - ops.logsumexp(logits, axis=-1)  # log p of the chosen alone
        total = total + ops.where(done, 0.0, gained)
        token = ops.where(done, 0, chosen)
        tokens = beam_texts.written(tokens, token, index)
        done = ops.logical_or(done, token == end)
        leaves = [_shaped(*pair) for pair in zip(_leaves(new), leaves, strict=True)]
        return index + 1, token, leaves, tokens, total, done

    start = (
        ops.convert_to_tensor(0, "int32"),
        first,
        _leaves(state),
        ops.zeros((batch, length), "int32"),
        ops.zeros((batch,), "float32"),
        ops.zeros((batch,), "bool"),
    )
    found = ops.while_loop(going, advance, start, maximum_iterations=length)
    *_, tokens, total, _ = found
    return tokens, total


def _beam_of_one(step, state, memory, first, length, end, penalties):
    """Returns what `greedy` writes, as a beam."""
    tokens, total = greedy(step, state, memory, first, length, end)
    before = ops.cumsum(ops.cast(tokens == end, "int32"), axis=1)  # ends so far
    more = ops.sum(ops.cast(before[:, :-1] == 0, "int32"), axis=1)  # tokens but the first
    return tokens[:, None], (total / ops.take(penalties, more))[:, None]


def _drawn(logits, chance, top_k, top_p):
    """Returns the token `(B,)` of each row that its `chance` in [0, 1) stands for."""
    size, tokens = logits.shape[-1], None
    if top_k is not None or top_p is not None:  # most probable first
        logits, tokens = ops.top_k(logits, min(top_k or size, size))
    p = ops.exp(logits - ops.max(logits, axis=-1, keepdims=True))
    sums = ops.cumsum(p, axis=-1)
    if top_p is not None:
        p = ops.where(sums - p < top_p * sums[:, -1:], p, 0.0)
    sums = ops.where(p > 0, sums, 0.0)
    chance = chance * ops.max(sums, axis=-1)  # less than the largest sum
    place = ops.argmax(ops.cast(sums > chance[:, None], "int32"), axis=-1)
    if tokens is None:
        return place
    return ops.take_along_axis(tokens, place[:, None], axis=-1)[:, 0]


def _repeated(nest, width):
    """Returns each row of the tensors of a nest `width` times in a row."""

    def repeat(one):
        return None if one is None else ops.repeat(one, width, axis=0)

    return tree.map_structure(repeat, nest)


def _leaves(nest):
    """Returns the tensors of a nest in a list."""
    return [ops.convert_to_tensor(leaf) for leaf in tree.flatten(nest)]


def _shaped(new, old):
    """Returns `new` with what is known of the shape of `old`: a loop must not lose it."""
    shape = [-1 if size is None else size for size in old.shape]
    return ops.reshape(new, shape) if shape.count(-1) <= 1 else new


def _by_row(logits, token):
    """Returns the logits `(B, V)` after each `token` `(B,)`, in float32."""
    logits = ops.reshape(logits, (ops.shape(token)[0], logits.shape[-1]))
    return ops.cast(logits, "float32")


def _checked_first(first):
    """Returns the first tokens `(B,)` as int32."""
    first = ops.convert_to_tensor(first)
    if len(first.shape) != 1:
        raise ValueError(
            "`first` must have one token for each row, shape (B,)."
            f" Received: shape {tuple(first.shape)}"
        )
    return ops.cast(first, "int32")
