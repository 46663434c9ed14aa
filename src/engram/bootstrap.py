"""An interval for a paired difference comes from resampling blocks of both sides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Array = NDArray[np.float64]
Paired = Mapping[str, Any]  # of an experiment's details: kind, count and sum by block

RESAMPLES = 2000  # 50 draws beyond each end of a 95 % interval
SHORTEST = 3  # blocks in a stretch, where nothing says that neighbours correlate
STRETCHES = 5  # with fewer of them an interval would only look like one
SEED = 1  # the same input gives the same interval


class Interval(NamedTuple):
    """A difference, both ends of its 95 % interval and the blocks in a stretch."""

    difference: float
    low: float
    high: float
    block_length: int


def interval(other: Paired, base: Paired, block_length: int | None = None) -> Interval:
    r"""Bootstrap the paired difference of two experiments.

    With $s_{kb}$ the sum of seed $k$ in block $b$, $n_b$ its count, and $w_b$ how often
    a resample holds block $b$ (once, for the data themselves), an experiment scores

    $$m(w) = \frac1K \sum_k f\Bigl(\sum_b w_b s_{kb} \Big/ \sum_b w_b n_b\Bigr),$$

    $f$ the square root for `root_mean`, else the identity, and the difference is
    $d(w) = m_{other}(w) - m_{base}(w)$. Resamples are made of stretches of consecutive
    blocks, the last followed by the first (Politis and Romano 1992, circular block
    bootstrap). Both sides see the same $w$; the $K$ seeds are drawn with replacement,
    independently on each side.

    With $[q_{0.025}, q_{0.975}]$ of $d(w)$ over resamples and $k$ = blocks / length of a
    stretch, the interval is $d(1) \pm c \max(d(1) - q_{0.025}, q_{0.975} - d(1))$,

    $$c = \frac{t_{0.975, k - 1}}{z_{0.975}} \sqrt{\frac{k}{k - 1}}.$$

    The root undoes that deviations from a mean of $k$ stretches are too small by
    $(k - 1)/k$ in the square; Student's t allows for a variance that is itself known
    from $k$ stretches (the method of batch means, Schmeiser 1982).

    Coverage measured for differences that follow an AR(1) process, 2,000 trials each, at
    the defaults (standard error below 0.01):

    | blocks | phi 0 | phi 0.5 | phi 0.7 |
    | --: | --: | --: | --: |
    | 32 | 0.96 | 0.92 | 0.90 |
    | 99 | 0.96 | 0.94 | 0.94 |

    So an interval claims more than it should where few blocks correlate strongly.

    Args:
        other: `paired` of the experiment in question.
        base: `paired` of the reference, over the same blocks.
        block_length: Blocks in a stretch; by default the data's `stretch`.

    Returns:
        The difference, both ends of its interval and the length used; the ends are NaN
        with fewer blocks than `STRETCHES` times that length.
    """
    blocks = len(base["count"])
    if block_length is not None and block_length < 1:
        raise ValueError(f"block_length: expected 1 or more, received {block_length}")
    length = block_length or stretch(_parts(other) - _parts(base))
    once = np.ones((1, blocks))
    value = float(_scores(other, once).mean() - _scores(base, once).mean())
    if blocks < STRETCHES * length or not math.isfinite(value):
        return Interval(value, math.nan, math.nan, length)
    rng = np.random.default_rng(SEED)
    weights = _weights(blocks, length, rng)
    drawn = _drawn(_scores(other, weights), rng) - _drawn(_scores(base, weights), rng)
    low, high = np.quantile(drawn, [0.025, 0.975])
    half = _widening(blocks / length) * float(max(value - low, high - value))
    return Interval(value, value - half, value + half, length)


def stretch(parts: Array) -> int:
    """Choose how many blocks to draw together from each block's part of the difference.

    Three times the first lag whose autocorrelation is below 2 / sqrt(blocks), the two
    deviations of white noise; at least `SHORTEST` and at most blocks // `STRETCHES`.
    """
    blocks, centred = len(parts), parts - parts.mean()
    longest = max(SHORTEST, blocks // STRETCHES)
    power = float(centred @ centred)
    if not power > blocks * (1e-9 * float(np.abs(parts).max())) ** 2:  # constant, or NaN
        return SHORTEST
    for lag in range(1, math.ceil(longest / 3)):
        if centred[lag:] @ centred[:-lag] < 2 / math.sqrt(blocks) * power:
            return min(max(3 * lag, SHORTEST), longest)
    return longest


def _parts(paired: Paired) -> Array:
    """Split an experiment's score into its blocks, to first order, mean over seeds."""
    sums, count = np.array(paired["sum"], np.float64), np.array(paired["count"], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums.sum(1, keepdims=True) / count.sum()
        slope = 0.5 / np.sqrt(mean) if paired["kind"] == "root_mean" else 1.0
        parts: Array = (slope * (sums - mean * count)).mean(0)
    return parts


def _widening(stretches: float) -> float:
    """Return $c$ of `interval`."""
    ratio = stdtrit(stretches - 1, 0.975) / ndtri(0.975)  # Student's t over the normal
    return float(ratio * math.sqrt(stretches / (stretches - 1)))


def _weights(blocks: int, length: int, rng: np.random.Generator) -> Array:
    starts = rng.integers(blocks, size=(RESAMPLES, math.ceil(blocks / length), 1))
    index = ((starts + np.arange(length)) % blocks).reshape(RESAMPLES, -1)[:, :blocks]
    index = index + np.arange(RESAMPLES)[:, None] * blocks
    counts = np.bincount(index.ravel(), minlength=RESAMPLES * blocks)
    return counts.reshape(RESAMPLES, blocks).astype(np.float64)


def _scores(paired: Paired, weights: Array) -> Array:
    total = np.array(paired["sum"], np.float64) @ weights.T  # seeds x resamples
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = total / (weights @ np.array(paired["count"], np.float64))
        return np.sqrt(ratio) if paired["kind"] == "root_mean" else ratio


def _drawn(scores: Array, rng: np.random.Generator) -> Array:
    pick = rng.integers(len(scores), size=scores.shape)
    mean: Array = np.take_along_axis(scores, pick, axis=0).mean(axis=0)
    return mean
