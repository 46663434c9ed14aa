"""A chart is inline SVG: text stays text, and colours follow the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from engram import axes
from engram.tables import Json, differences, label

Points = dict[str, tuple[float, float]]  # of experiments

ROW = 30  # of a line in the interval chart, in CSS pixels
DOTS = 25  # points of a curve that still show one by one
NAME = 34  # letters of a name that are shown: its end, which tells them apart
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
    """Choose how each experiment is drawn: one colour for each model, ink for one."""
    rows = [row for one in comparison["datasets"] for row in one["rows"]]
    order, seen, found = sorted({row["model"] for row in rows}), list[str](), {}
    for row in sorted(group["rows"], key=lambda row: str(row["experiment"])):
        name, index = row["experiment"], order.index(row["model"])
        before = seen.count(row["model"])
        seen.append(row["model"])
        shape, dash = SHAPES[(index + before) % len(SHAPES)], DASHES[before % len(DASHES)]
        if name == group["reference"]:
            found[name] = Mark("var(--ink)", shape, "", 2.6)
        else:
            found[name] = Mark(f"var(--c{index % COLOURS})", shape, dash, 1.6)
    return found


def _short(name: str) -> str:
    return name if len(name) <= NAME else "…" + name[1 - NAME :]


def _length(names: Iterable[str]) -> float:
    return axes.LETTER * max(len(_short(name)) for name in names)


def _points(curve: Json) -> list[tuple[float, float]]:
    pairs = zip(curve["x"], curve["y"], strict=True)
    return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]


def _plot(room: axes.Room, names: Iterable[str], what: str, over: str) -> axes.Plot:
    names = list(names)
    side = 44 + _length(names) if room.beside else 14
    above = axes.LABEL * (len(axes.wrapped(0, 0, what, room.width, "start")) - 1)
    height = max(300 - axes.TOP, axes.LABEL * len(names)) if room.beside else 220
    top = axes.TOP + above
    return axes.Plot(room, room.width - side, top, top + height, what, over)


def lines(curves: list[tuple[str, Json]], signs: dict[str, Mark]) -> str:
    """Draw one curve for each experiment, each named at its end or below."""
    drawn = {name: points for name, c in curves if (points := _points(c))}
    if not drawn:
        return '<p class="soft">No finite numbers.</p>'
    about = curves[0][1]
    return "".join(_lines(room, drawn, about, signs) for room in (axes.DESK, axes.PHONE))


def _lines(
    room: axes.Room,
    drawn: dict[str, list[tuple[float, float]]],
    about: Json,
    signs: dict[str, Mark],
) -> str:
    xs, ys = zip(*(point for some in drawn.values() for point in some), strict=True)
    log = about.get("y_scale") == "log" and min(ys) > 0 and max(ys) > 3 * min(ys)
    what = f"{about['y_label']}{', logarithmic' if log else ''}"
    plot = _plot(room, drawn, what, about["x_label"])
    x = axes.scale(min(xs), max(xs), axes.LEFT, plot.right)
    y, ticks = axes.upright(min(ys), max(ys), plot, log)
    steps = axes.own_ticks(xs, plot.right - axes.LEFT)
    parts, below = axes.both(plot, x, steps, y, ticks)
    at = {name: [(x(a), y(b)) for a, b in points] for name, points in drawn.items()}
    for name in sorted(at, key=lambda name: signs[name].wide):
        parts += [_line(at[name], signs[name])]
    named, below = _named({n: some[-1] for n, some in at.items()}, plot, below, signs)
    return axes.svg(room, below, parts + named, f"{about['title']}: {', '.join(drawn)}")


def _line(at: list[tuple[float, float]], mark: Mark) -> str:
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in at)
    look = f'stroke="{mark.colour}" stroke-dasharray="{mark.dash}"'
    line = f'<path d="{path}" fill="none" stroke-width="{mark.wide}" {look}/>'
    return line + ("".join(mark.dot(*one) for one in at) if len(at) <= DOTS else "")


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
    return "".join(_scatter(room, group, at, signs) for room in (axes.DESK, axes.PHONE))


def _scatter(
    room: axes.Room,
    group: Json,
    at: dict[str, tuple[float, float]],
    signs: dict[str, Mark],
) -> str:
    xs, ys = zip(*at.values(), strict=True)
    first, last = min(xs) / 1.1, max(xs) * 1.1
    measured = f", {group['unit']}" if group["unit"] else ""
    what = f"{label(group['sort_by'])}{measured}, {group['better']} is better"
    unit = next((u for u, seconds in UNITS.items() if last >= 2 * seconds), "s")
    plot = _plot(room, at, what, f"time of one fit, {unit}, logarithmic")
    size = UNITS[unit]
    x = axes.log_scale(first, last, axes.LEFT + 8, plot.right)
    y, ticks = axes.upright(min(ys), max(ys), plot)
    times = axes.log_ticks(first / size, last / size)
    parts, below = axes.both(plot, lambda value: x(value * size), times, y, ticks)
    led = sorted(at[n] for n in group["frontiers"]["train_seconds"] if n in at)
    path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in led)
    look = 'fill="none" stroke="var(--soft)" stroke-width="1.6" opacity=".6"'
    parts += [f'<path d="M{path}" {look}/>'] if len(led) > 1 else []
    ends = {name: (x(a), y(b)) for name, (a, b) in at.items()}
    named, below = _named(ends, plot, below, signs)
    words = f"{what}, over the time of one fit: {', '.join(at)}"
    return axes.svg(room, below, parts + named, words)


def _named(
    at: dict[str, tuple[float, float]],
    plot: axes.Plot,
    below: float,
    signs: dict[str, Mark],
) -> tuple[list[str], float]:
    """Draw points and their names, beside the plot or below; returns where they end."""
    parts = [signs[name].dot(*point) for name, point in at.items()]
    if not plot.room.beside:
        below += 10
        for name in sorted(at, key=lambda name: at[name][1]):
            parts += [signs[name].dot(12, below), axes.word(26, below + 4, _short(name))]
            below += axes.LABEL
        return parts, below
    ends = _spread([y for _, y in at.values()], plot.bottom)
    side = plot.right + 22
    for (name, point), end in zip(at.items(), ends, strict=True):
        thin = f'stroke="{signs[name].colour}" opacity=".35"'
        parts += [axes.rule(*point, side, end, thin), signs[name].dot(side, end)]
        parts += [axes.word(side + 10, end + 4, _short(name))]
    return parts, below


def _spread(wanted: list[float], bottom: float) -> list[float]:
    """Move labels apart that would overlap, and keep them above the bottom."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places, limit = list(wanted), -math.inf
    for index in order:
        limit = places[index] = max(places[index], limit + axes.LABEL)
    limit = bottom + axes.LABEL
    for index in reversed(order):
        limit = places[index] = min(places[index], limit - axes.LABEL)
    return places


def intervals(group: Json, signs: dict[str, Mark]) -> str:
    """Draw each difference from the reference with its interval."""
    return "".join(_intervals(room, group, signs) for room in (axes.DESK, axes.PHONE))


def _intervals(room: axes.Room, group: Json, signs: dict[str, Mark]) -> str:
    found = group["differences"]
    ends = [one[k] for one in found for k in ("difference", "low", "high")]
    known = [0.0, *(end for end in ends if end is not None)]
    left = 24 + _length(one["experiment"] for one in found) if room.beside else 24
    right = room.width - (150 if room.beside else 24)
    x, ticks = (
        axes.scale(min(known), max(known), left, right),
        axes.ticks(min(known), max(known)),
    )
    row = ROW if room.beside else ROW + axes.LABEL
    bottom = 34 + row * len(found)
    parts = [axes.rule(x(tick), 26, x(tick), bottom) for tick in ticks]
    parts += [axes.rule(x(0), 20, x(0), bottom, 'stroke="var(--soft)"')]
    parts += [axes.word(x(t), bottom + 18, axes.number(t), "middle", "ax") for t in ticks]
    for index, one in enumerate(found):
        words = 34 + row * index + (ROW / 2 if room.beside else axes.LABEL - 3)
        y = words if room.beside else words + axes.LABEL
        parts += [axes.word(0, words + 4, _short(one["experiment"]))]
        parts += [_bar(one, x, y, signs[one["experiment"]])]
        at, anchor = (right + 16, "start") if room.beside else (room.width, "end")
        parts += [axes.word(at, words + 4, one["verdict"], anchor, "ax")]
    what = f"{differences(group)[0][2]}, {group['better']} is better"
    middle, width = (left + right) / 2, room.width - (left if room.beside else 0)
    below = axes.wrapped(middle, bottom + 40, what, width, "middle")
    base = f"as {_short(group['reference'])}"
    edge = axes.LETTER * len(base) / 2
    parts += [
        axes.word(min(max(x(0), edge), room.width - edge), 12, base, "middle", "ax")
    ]
    height = bottom + 31 + axes.LABEL * len(below)
    return axes.svg(room, height, parts + below, f"{what}, against {group['reference']}")


def _bar(one: Json, x: axes.Scale, y: float, mark: Mark) -> str:
    parts = []
    if one["low"] is not None and one["high"] is not None:
        look = f'stroke="{mark.colour}" stroke-width="2.4" stroke-linecap="round"'
        parts += [axes.rule(x(one["low"]), y, x(one["high"]), y, look)]
    if one["difference"] is not None:
        parts += [mark.dot(x(one["difference"]), y)]
    return "".join(parts)
