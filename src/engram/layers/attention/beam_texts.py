"""The texts of a beam: K for each of B sentences, and what becomes of them in a step."""

import math
from typing import Any, NamedTuple

from keras import ops

NEVER = -math.inf  # the score of a place that no text has taken


class Texts(NamedTuple):
    """K texts for each of B sentences, best first; those with score -inf are none."""

    tokens: Any  # (B, K, L), int32
    scores: Any  # (B, K), float32


def none_yet(first, width, length):
    """Returns the texts that live at the start, one empty one, and those that ended."""
    batch = ops.shape(first)[0] // width
    tokens = ops.zeros((batch, width, length), dtype="int32")
    never = ops.full((batch, width), NEVER, dtype="float32")
    only = ops.where(ops.arange(width) == 0, 0.0, never)
    return Texts(tokens, only), Texts(tokens, never)


def continued(live, log_p, index):
    """Returns the best continuations, twice as many as live, and what they continue.

    Args:
        live: `Texts`, K of them.
        log_p: `(B K, V)`, of the next token.
        index: of the next token.

    Returns:
        `Texts` that have this token, and `(B, 2K)`, which of the K they continue.
    """
    batch, width = ops.shape(live.scores)
    size = log_p.shape[-1]
    log_p = ops.reshape(log_p, (batch, width, size))
    total = ops.reshape(live.scores[:, :, None] + log_p, (batch, width * size))
    scores, places = ops.top_k(total, min(2 * width, width * size))
    parents = places // size
    tokens = written(picked(live.tokens, parents), places % size, index)
    return Texts(tokens, scores), parents


def parted(longer, ends, ended, penalty):
    """Returns the texts that live on, where `(B, K)` they were, and those that ended.

    Args:
        longer: `Texts`, 2K continuations at most.
        ends: bool `(B, 2K)`, whether they end here.
        ended: `Texts`, the K best that ended before.
        penalty: by which to divide the scores of those that end here.
    """
    width = ended.scores.shape[1]
    taken = ops.logical_and(ends, ops.arange(ends.shape[1]) < width)
    scores = ops.where(taken, longer.scores / penalty, NEVER)
    both = Texts(
        ops.concatenate([ended.tokens, longer.tokens], axis=1),
        ops.concatenate([ended.scores, scores], axis=1),
    )
    ended, _ = best(both, width)
    live, chosen = best(
        longer._replace(scores=ops.where(ends, NEVER, longer.scores)), width
    )
    return live, chosen, ended


def best(texts, count):
    """Returns the `count` best texts, and where `(B, count)` they were."""
    scores, chosen = ops.top_k(texts.scores, count)
    return Texts(picked(texts.tokens, chosen), scores), chosen


def outcome(live, ended, penalty):
    """Returns tokens and scores: what has ended, else, sentence by sentence, what lives.

    Args:
        live: `Texts` with plain log probabilities.
        ended: `Texts`.
        penalty: by which to divide the scores of `live`.
    """
    found = ended.scores[:, :1] > NEVER  # (B, 1)
    scores = ops.where(found, ended.scores, live.scores / penalty)
    tokens = ops.where(found[:, :, None], ended.tokens, live.tokens)
    return ops.where(scores[:, :, None] > NEVER, tokens, 0), scores


def written(tokens, token, index):
    """Returns `tokens` `(..., L)` with `token` `(...)` at one place of the last axis."""
    here = ops.arange(tokens.shape[-1], dtype="int32") == index
    return ops.where(here, ops.cast(token, "int32")[..., None], tokens)


def picked(one, chosen):
    """Returns of a tensor `(B, M, ...)` the entries `chosen` `(B, K)`, `(B, K, ...)`."""
    size, *rest = one.shape[1:]
    flat = ops.take(ops.reshape(one, (-1, *rest)), rows(chosen, size), axis=0)
    return ops.reshape(flat, (-1, chosen.shape[1], *rest))


def rows(chosen, size):
    """Returns where the entries `(B, K)` of groups of `size` are among all, `(B K,)`."""
    start = ops.arange(ops.shape(chosen)[0], dtype="int32") * size
    return ops.reshape(start[:, None] + ops.cast(chosen, "int32"), (-1,))
