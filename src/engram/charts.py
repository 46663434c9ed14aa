"""A chart is inline SVG: text stays text, and colours follow the page."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import NamedTuple

from engram.tables import Json, differences, label

Scale = Callable[[float], float]

WIDTH, ROW = 720, 30  # of a chart and of a line in the interval chart, in CSS pixels
SIDE = 215  # beside the lines, for their names
DOTS = 25  # points of a curve that still show one by one
LABEL = 17  # the least distance of two labels, a little over their size
NAME = 23  # letters of a name that fit beside a chart: its end, which tells them apart
COLOURS = 7  # Okabe and Ito's; wine on white for yellow, ink for the reference
SHAPES = (  # a second sign beside the colour: 7 and 4 make 28 pairs
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-5.2L5.2 0 0 5.2-5.2 0z",
    "M0-4.8L4.8 3.8h-9.6z",
)
UNITS = {"h": 3600, "min": 60, "s": 1}  # the largest of which there are two
DASHES = ("", "7 4", "2 4")  # experiments of one model in one dataset
WIDE = '<div class="wide" tabindex="0">'  # scrolls by itself on a phone


class Mark(NamedTuple):
    """How an experiment is drawn everywhere."""

    colour: str
    shape: str
    dash: str
    wide: float  # of its line, in pixels

    def dot(self, x: float, y: float) -> str:
        """Draw the mark itself."""
        place = f'transform="translate({x:.1f} {y:.1f})"'
        return f'<path d="{self.shape}" {place} fill="{self.colour}"/>'


def marks(comparison: Json, group: Json) -> dict[str, Mark]:
    """Choose how each experiment is drawn: one colour for each model."""
    groups, reference = comparison["datasets"], comparison["reference"]
    models = {row["model"] for one in groups for row in one["rows"]} - {reference}
    order, seen, found = sorted(models), list[str](), {}
    for row in sorted(group["rows"], key=lambda row: str(row["experiment"])):
        model = row["model"]
        dash = DASHES[seen.count(model) % len(DASHES)]
        seen.append(model)
        index = -1 if model == reference else order.index(model)
        colour = "var(--ink)" if index < 0 else f"var(--c{index % COLOURS})"
        wide = 2.6 if index < 0 else 1.6
        found[row["experiment"]] = Mark(colour, SHAPES[index % len(SHAPES)], dash, wide)
    return found


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (end - start)


def _log_scale(low: float, high: float, start: float, end: float) -> Scale:
    scale = _scale(math.log10(low), math.log10(high), start, end)
    return lambda value: scale(math.log10(value))


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten, or also twice and five times them, or even steps."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        wanted = [k * 10.0**n for n in powers for k in factors]
        found = [value for value in wanted if low <= value <= high]
        if len(found) >= 3:
            return found
    return _ticks(low, high)


def _upright(
    low: float, high: float, bottom: float, log: bool = False
) -> tuple[Scale, list[float]]:
    """Returns the scale of an upright axis from `bottom` to 28, and its ticks."""
    if log:
        low, high = low / 1.1, high * 1.1
        return _log_scale(low, high, bottom, 28), _log_ticks(low, high)
    pad = (high - low) * 0.04 or abs(high) * 0.04 or 1.0
    low, high = low - pad, high + pad
    return _scale(low, high, bottom, 28), _ticks(low, high)


def _text(x: float, y: float, text: str, anchor: str = "start", css: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} class="{css}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, css: str = 'class="rule"') -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" fill="none" {css}/>'


def _tick(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _svg(height: float, parts: list[str], words: str) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}"'
    start = f'<svg {size} role="img" aria-label="{escape(words)}">'
    return WIDE + start + "".join(parts) + "</svg></div>"


def _short(name: str) -> str:
    return name if len(name) <= NAME else "…" + name[1 - NAME :]


def _points(curve: Json) -> list[tuple[float, float]]:
    pairs = zip(curve["x"], curve["y"], strict=True)
    return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]


def lines(curves: list[tuple[str, Json]], signs: dict[str, Mark]) -> str:
    """Draw one curve for each experiment, each named at its end."""
    drawn = [(name, points) for name, c in curves if (points := _points(c))]
    if not drawn:
        return '<p class="soft">No finite numbers.</p>'
    first = curves[0][1]
    xs, ys = zip(*(point for _, points in drawn for point in points), strict=True)
    bottom = max(300, LABEL * len(drawn) + 30)
    log = first.get("y_scale") == "log" and min(ys) > 0 and max(ys) > 3 * min(ys)
    x = _scale(min(xs), max(xs), 52, WIDTH - SIDE)
    y, ticks = _upright(min(ys), max(ys), bottom, log)
    what = f"{first['y_label']}{', logarithmic' if log else ''}"
    parts = [_text(0, 12, what, css="ax")]
    parts += [
        _text(
            x((min(xs) + max(xs)) / 2),
            bottom + 42,
            first["x_label"],
            "middle",
            "ax",
        )
    ]
    for tick in ticks:
        parts += [_rule(52, y(tick), WIDTH - SIDE, y(tick))]
        parts += [_text(44, y(tick) + 4, _tick(tick), "end", "ax")]
    own = sorted(set(xs))
    for tick in own if len(own) <= 13 else _ticks(own[0], own[-1]):
        parts += [_text(x(tick), bottom + 20, _tick(tick), "middle", "ax")]
    ends = _spread([y(points[-1][1]) for _, points in drawn], bottom)
    strokes = []
    for (name, points), end in zip(drawn, ends, strict=True):
        at = [(x(a), y(b)) for a, b in points]
        strokes += [(signs[name].wide, _line(name, at, end, signs[name]))]
    parts += [line for _, line in sorted(strokes, key=lambda one: one[0])]
    names = ", ".join(name for name, _ in drawn)
    return _svg(bottom + 50, parts, f"{first['title']}: {names}")


def _line(name: str, at: list[tuple[float, float]], end: float, mark: Mark) -> str:
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in at)
    look = f'stroke="{mark.colour}" stroke-dasharray="{mark.dash}"'
    line = f'<path d="{path}" fill="none" stroke-width="{mark.wide}" {look}/>'
    dots = "".join(mark.dot(*one) for one in at[:-1]) if len(at) <= DOTS else ""
    return line + dots + _named(name, *at[-1], end, mark)


def scatter(group: Json, signs: dict[str, Mark]) -> str:
    """Draw the metric over the time of one fit, and a line through the frontier."""
    key = group["sort_by"]
    at = {
        row["experiment"]: (row["train_seconds"], row["metrics"][key])
        for row in group["rows"]
        if (row["train_seconds"] or 0) > 0 and row["metrics"].get(key) is not None
    }
    if len(at) < 2:
        return ""
    xs, ys = zip(*at.values(), strict=True)
    bottom, right = max(300, LABEL * len(at) + 30), WIDTH - SIDE
    first, last = min(xs) / 1.1, max(xs) * 1.1
    x = _log_scale(first, last, 60, right)
    y, ticks = _upright(min(ys), max(ys), bottom)
    measured = f", {group['unit']}" if group["unit"] else ""
    what = f"{label(key)}{measured}, {group['better']} is better"
    unit = next((u for u, seconds in UNITS.items() if last >= 2 * seconds), "s")
    about = f"time of one fit, {unit}, logarithmic"
    parts = [_text(0, 12, what, css="ax")]
    parts += [_text(x(math.sqrt(first * last)), bottom + 42, about, "middle", "ax")]
    for tick in ticks:
        parts += [_rule(52, y(tick), right, y(tick))]
        parts += [_text(44, y(tick) + 4, _tick(tick), "end", "ax")]
    for tick in _log_ticks(first / UNITS[unit], last / UNITS[unit]):
        place = x(tick * UNITS[unit])
        parts += [_text(place, bottom + 20, _tick(tick), "middle", "ax")]
    led = sorted(at[n] for n in group["frontiers"]["train_seconds"] if n in at)
    path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in led)
    look = 'fill="none" stroke="var(--soft)" stroke-width="1.6" opacity=".6"'
    parts += [f'<path d="M{path}" {look}/>'] if len(led) > 1 else []
    ends = _spread([y(b) for _, b in at.values()], bottom)
    for (name, (a, b)), end in zip(at.items(), ends, strict=True):
        parts += [_named(name, x(a), y(b), end, signs[name])]
    return _svg(bottom + 50, parts, f"{what}, over the time of one fit: {', '.join(at)}")


def _named(name: str, x: float, y: float, end: float, mark: Mark) -> str:
    """Draw a point, and its name beside the chart at the height `end`."""
    side, thin = WIDTH - SIDE + 22, f'stroke="{mark.colour}" opacity=".35"'
    text = _text(side + 10, end + 4, _short(name))
    return mark.dot(x, y) + _rule(x, y, side, end, thin) + mark.dot(side, end) + text


def _spread(wanted: list[float], bottom: float) -> list[float]:
    """Move labels apart that would overlap, and keep them above the bottom."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places, limit = list(wanted), -math.inf
    for index in order:
        limit = places[index] = max(places[index], limit + LABEL)
    limit = bottom + LABEL
    for index in reversed(order):
        limit = places[index] = min(places[index], limit - LABEL)
    return places


def intervals(group: Json, signs: dict[str, Mark]) -> str:
    """Draw each difference from the reference with its interval."""
    found = group["differences"]
    ends = [one[k] for one in found for k in ("difference", "low", "high")]
    known = [0.0, *(end for end in ends if end is not None)]
    x = _scale(min(known), max(known), 200, WIDTH - 150)
    bottom = 34 + ROW * len(found)
    parts = [
        *(_rule(x(t), 26, x(t), bottom) for t in _ticks(min(known), max(known))),
        _rule(x(0), 20, x(0), bottom, 'stroke="var(--soft)"'),
    ]
    for tick in _ticks(min(known), max(known)):
        parts += [_text(x(tick), bottom + 18, _tick(tick), "middle", "ax")]
    for index, one in enumerate(found):
        parts += [_bar(one, x, 34 + ROW * (index + 0.5), signs[one["experiment"]])]
    what = f"{differences(group)[0][2]}, {group['better']} is better"
    parts += [_text((50 + WIDTH) / 2, bottom + 40, what, "middle", "ax")]
    parts += [_text(x(0), 12, f"as {_short(group['reference'])}", "middle", "ax")]
    return _svg(bottom + 48, parts, f"{what}, against {group['reference']}")


def _bar(one: Json, x: Scale, y: float, mark: Mark) -> str:
    parts = [_text(0, y + 4, _short(one["experiment"]))]
    if one["low"] is not None and one["high"] is not None:
        look = f'stroke="{mark.colour}" stroke-width="2.4" stroke-linecap="round"'
        parts += [_rule(x(one["low"]), y, x(one["high"]), y, look)]
    if one["difference"] is not None:
        parts += [mark.dot(x(one["difference"]), y)]
    parts += [_text(WIDTH - 134, y + 4, one["verdict"], css="ax")]
    return "".join(parts)
