"""Axes of a chart in SVG: what is drawn around curves, points and bars.

A chart is drawn twice, for a wide page and for a phone; the page shows one of them.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable
from html import escape
from typing import NamedTuple

Scale = Callable[[float], float]

LEFT, TOP = 52, 28  # of the plot, beside and above it the axis has its numbers and name
LETTER = 7.0  # about the width of one, in CSS pixels
LABEL = 17  # the least distance of two labels, a little over their size


class Room(NamedTuple):
    """What a chart is drawn for: its width, and whether names stand beside it."""

    width: float
    beside: bool


DESK, PHONE = Room(720, True), Room(350, False)


class Plot(NamedTuple):
    """The place of the axes in a chart, and what is written beside them."""

    room: Room
    right: float
    top: float
    bottom: float
    what: str  # the upright axis
    over: str  # the other one


def both(
    plot: Plot, x: Scale, xs: list[float], y: Scale, ys: list[float]
) -> tuple[list[str], float]:
    """Draw both axes with their ticks; returns them, and where they end below."""
    parts = wrapped(0, 12, plot.what, plot.room.width, "start")
    for tick in ys:
        parts += [rule(LEFT, y(tick), plot.right, y(tick))]
        parts += [word(LEFT - 8, y(tick) + 4, number(tick), "end", "ax")]
    for tick in xs:
        parts += [word(x(tick), plot.bottom + 20, number(tick), "middle", "ax")]
    width = plot.right - LEFT
    below = wrapped(LEFT + width / 2, plot.bottom + 42, plot.over, width, "middle")
    return parts + below, plot.bottom + 33 + LABEL * len(below)


def upright(
    low: float, high: float, plot: Plot, log: bool = False
) -> tuple[Scale, list[float]]:
    """Returns the scale of an upright axis, and its ticks."""
    if log:
        low, high = low / 1.1, high * 1.1
        return log_scale(low, high, plot.bottom, plot.top), log_ticks(low, high)
    pad = (high - low) * 0.04 or abs(high) * 0.04 or 1.0
    low, high = low - pad, high + pad
    return scale(low, high, plot.bottom, plot.top), ticks(low, high)


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Returns the function from numbers to places, `low` at `start`, `high` at `end`."""
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (end - start)


def log_scale(low: float, high: float, start: float, end: float) -> Scale:
    """Returns such a function of the logarithm."""
    even = scale(math.log10(low), math.log10(high), start, end)
    return lambda value: even(math.log10(value))


def ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers at even steps."""
    rough = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten, or also twice and five times them, or even steps."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        wanted = [k * 10.0**n for n in powers for k in factors]
        found = [value for value in wanted if low <= value <= high]
        if len(found) >= 3:
            return found
    return ticks(low, high)


def own_ticks(values: Iterable[float], width: float) -> list[float]:
    """Returns the values themselves where they are short and fit beside each other."""
    own = sorted(set(values))
    longest = max(len(number(value)) for value in own)
    gaps = [b - a for a, b in itertools.pairwise(own)]
    room = min(gaps, default=1.0) / ((own[-1] - own[0]) or 1.0) * width
    fit = longest <= 4 and LETTER * longest + 6 <= room
    return own if fit else ticks(own[0], own[-1])


def number(value: float) -> str:
    """Returns a number as an axis has it."""
    return f"{value:.6g}".replace("-", "−")


def word(x: float, y: float, text: str, anchor: str = "start", css: str = "") -> str:
    """Write a text, whose `anchor` is at the point."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} class="{css}">{escape(text)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, css: str = 'class="rule"') -> str:
    """Draw a straight line."""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" fill="none" {css}/>'


def wrapped(x: float, y: float, text: str, width: float, anchor: str) -> list[str]:
    """Write a text in as many lines as it takes."""
    rows = textwrap.wrap(text, int(width / LETTER))
    return [word(x, y + LABEL * n, row, anchor, "ax") for n, row in enumerate(rows)]


def svg(room: Room, height: float, parts: Iterable[str], words: str) -> str:
    """Returns the chart; `words` are for who cannot see it."""
    size = f'viewBox="0 0 {room.width} {height:.0f}"'
    kind = "desk" if room.beside else "phone"
    start = f'<svg class="{kind}" {size} role="img" aria-label="{escape(words)}">'
    return start + "".join(parts) + "</svg>"
