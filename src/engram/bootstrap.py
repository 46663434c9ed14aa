"""An interval for a paired difference comes from resampling blocks of both sides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]
Array = NDArray[np.float64]

RESAMPLES = 2000  # 50 draws beyond each end of a 95 % interval
BLOCK_LENGTH = 3  # neighbouring hours are correlated
STRETCHES = 5  # with fewer of them an interval would only look like one
SEED = 1  # the same input gives the same interval


def interval(
    other: Json, base: Json, block_length: int = BLOCK_LENGTH
) -> tuple[float, float, float]:
    r"""Bootstrap the paired difference of two experiments.

    With $s_{kb}$ the sum of seed $k$ in block $b$, $n_b$ its count, and $w_b$ how often
    a resample holds block $b$ (once, for the data themselves), an experiment scores

    $$m(w) = \frac1K \sum_k f\Bigl(\sum_b w_b s_{kb} \Big/ \sum_b w_b n_b\Bigr),$$

    $f$ the square root for `root_mean`, else the identity. The interval is
    $[q_{0.025}, q_{0.975}]$ of $m_{other}(w) - m_{base}(w)$ over resamples made of
    stretches of consecutive blocks, the last followed by the first (Politis and Romano
    1992, circular block bootstrap). Both sides see the same $w$; the $K$ seeds are
    drawn with replacement, independently on each side.

    Args:
        other: `paired` of the experiment in question.
        base: `paired` of the reference, over the same blocks.
        block_length: Blocks in a stretch.

    Returns:
        The difference and both ends of its interval; the ends are NaN with fewer
        blocks than `STRETCHES` times `block_length`.
    """
    blocks = len(base["count"])
    if block_length < 1:
        raise ValueError(f"block_length: expected 1 or more, received {block_length}")
    once = np.ones((1, blocks))
    value = float(_scores(other, once).mean() - _scores(base, once).mean())
    if blocks < STRETCHES * block_length:
        return value, math.nan, math.nan
    rng = np.random.default_rng(SEED)
    weights = _weights(blocks, block_length, rng)
    drawn = _drawn(_scores(other, weights), rng) - _drawn(_scores(base, weights), rng)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value, float(low), float(high)


def _weights(blocks: int, length: int, rng: np.random.Generator) -> Array:
    starts = rng.integers(blocks, size=(RESAMPLES, math.ceil(blocks / length), 1))
    index = ((starts + np.arange(length)) % blocks).reshape(RESAMPLES, -1)[:, :blocks]
    index = index + np.arange(RESAMPLES)[:, None] * blocks
    counts = np.bincount(index.ravel(), minlength=RESAMPLES * blocks)
    return counts.reshape(RESAMPLES, blocks).astype(np.float64)


def _scores(paired: Json, weights: Array) -> Array:
    total = np.array(paired["sum"], np.float64) @ weights.T  # seeds x resamples
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = total / (weights @ np.array(paired["count"], np.float64))
        return np.sqrt(ratio) if paired["kind"] == "root_mean" else ratio


def _drawn(scores: Array, rng: np.random.Generator) -> Array:
    pick = rng.integers(len(scores), size=scores.shape)
    mean: Array = np.take_along_axis(scores, pick, axis=0).mean(axis=0)
    return mean
