"""A comparison becomes tables of words, the same for Markdown and for HTML."""

from __future__ import annotations

import math
import re
from typing import Any

Json = dict[str, Any]
Table = list[list[str]]  # the header first

DIFFERENCE = ("difference", "low", "high")
ACRONYMS = {"mae", "rmse", "mape", "mse", "auc", "bleu"}
MISSING = "–"
MEANINGS = {  # of the parts of a metric's key, where they occur
    "mape": "MAPE is in per cent",
    "at": "“at 15” is the error 15 minutes ahead",
    "to": "“to 60” is all steps up to 60 minutes pooled",
}


def facts(group: Json) -> str:
    """Say in one line what the numbers are."""
    unit, rows = group["unit"], group["rows"]
    seeds = {", ".join(map(str, row["seeds"])) or "none" for row in rows}
    parts = {part for key in _keys(group) for part in key.lower().split("_")}
    said = [f"{group['better'].capitalize()} is better"]
    said += [f"numbers in {unit}"] if unit else []
    said += [f"seeds: {' or '.join(sorted(seeds))}"]
    if any(len(row["seeds"]) > 1 for row in rows):
        said += ["± is the standard deviation over the seeds"]
    return "; ".join(said + [v for k, v in MEANINGS.items() if k in parts]) + "."


def ranking(group: Json) -> Table:
    """Tabulate the experiments, best first, with their headline metrics."""
    keys = group["headline"]
    table = [["Experiment", "Model", "Parameters", *map(label, keys), "Training time"]]
    for row in group["rows"]:
        ends = number(row["parameters"], "{:,.0f}"), _time(row["train_seconds"])
        middle = [_spread(row, key) for key in keys]
        table.append([row["experiment"], row["model"], ends[0], *middle, ends[1]])
    return table


def differences(group: Json) -> Table:
    """Tabulate the paired differences with their intervals."""
    found = group["differences"]
    unit = f" ({group['unit']})" if group["unit"] else ""
    what = f"Difference in {label(found[0]['metric']) if found else 'metric'}{unit}"
    table = [["Experiment", "Model", what, "95 % interval", "Verdict"]]
    for one in found:
        value, low, high = (number(one[k], "{:+.3f}") for k in DIFFERENCE)
        ends = low if low == high == MISSING else f"{low} to {high}"
        table.append([one["experiment"], one["model"], value, ends, one["verdict"]])
    return table


def published(group: Json) -> Table:
    """Tabulate our numbers beside published ones."""
    rows = {row["experiment"]: row for row in group["rows"]}
    table = [["Experiment", "Metric", "Ours", "Published", "Source"]]
    for one in group["published"]:
        ours = _spread(rows[one["experiment"]], one["metric"])
        line = one["experiment"], label(one["metric"]), ours, number(one["published"])
        table.append([*line, one["source"]])
    return table


def protocols(group: Json) -> list[str]:
    """Say how our protocol differs from each source's, each difference once."""
    said = [f"{one['experiment']}: {one['difference']}." for one in group["published"]]
    return list(dict.fromkeys(said))


def metrics(group: Json) -> Table:
    """Tabulate every metric of every experiment, one line each metric."""
    table = [["Metric", *(row["experiment"] for row in group["rows"])]]
    for key in _keys(group):
        table.append([label(key), *(_spread(row, key) for row in group["rows"])])
    return table


def _keys(group: Json) -> list[str]:
    def natural(key: str) -> list[tuple[int, str]]:
        return [(int("0" + re.sub(r"\D", "", p)), p) for p in re.split(r"(\d+)", key)]

    return sorted({key for row in group["rows"] for key in row["metrics"]}, key=natural)


def label(key: str) -> str:
    """Write a metric's key for people: `rmse_to_60` becomes RMSE to 60."""
    first, *rest = key.split("_")
    return " ".join([first.upper() if first in ACRONYMS else first.title(), *rest])


def number(value: float | None, form: str = "{:.3f}") -> str:
    """Write a number with a true minus sign, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return form.format(value).replace("-", "−")


def _spread(row: Json, key: str) -> str:
    value, std = number(row["metrics"].get(key)), number((row["std"] or {}).get(key))
    many = len(row["seeds"]) > 1 and MISSING not in (value, std)
    return f"{value} ± {std}" if many else value


def _time(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds) or seconds < 100:
        return number(seconds, "{:.1f} s")
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02}"
