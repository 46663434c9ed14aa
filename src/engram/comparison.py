"""Experiments are compared on the same resampled blocks of the same test split."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engram import tables
from engram.bootstrap import RESAMPLES, SEED, interval
from engram.tables import Json, Table

DIGITS = 12  # significant; beyond them BLAS libraries disagree, and files would change

KEYS = {
    "": "experiment task dataset model unit parameters fitted learning_rate best_epoch "
    "train_seconds seeds metrics std headline sort_by better",
    ".details": "curves paired",
    "paired": "metric kind unit_of_resampling count sum",
    "curves": "title x_label y_label x y",
}
CHOICES = {
    "better": ("lower", "higher"),
    "kind": ("root_mean", "mean"),
    "fitted": tuple(tables.PARTS),
}
NUMBERS = ("learning_rate", "best_epoch")  # or null
SHARED = ("task", "unit", "headline", "sort_by", "better")  # by all of a dataset


def read(experiments: list[str], folder: Path) -> tuple[list[Json], dict[str, Json]]:
    """Read `<experiment>.json` (rows) and `<experiment>.details.json` of a folder."""
    rows = [_load(name, folder, "") for name in experiments]
    return rows, {name: _load(name, folder, ".details") for name in experiments}


def _load(experiment: str, folder: Path, kind: str) -> Json:
    path = folder / f"{experiment}{kind}.json"
    if not path.is_file():
        command = f"write it with: dvc repro evaluate@{experiment}"
        raise FileNotFoundError(f"{experiment}: {path} does not exist; {command}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, received {error}") from error
    _check(path, content, kind)
    if content.get("experiment", experiment) != experiment:
        received = content["experiment"]
        raise ValueError(
            f"{path}: key experiment: expected {experiment}, received {received}"
        )
    return content


def _check(path: Path, content: Any, kind: str) -> None:
    for key in KEYS[kind].split():
        if not isinstance(content, dict) or key not in content:
            received = list(content) if isinstance(content, dict) else repr(content)
            where = f"{path}: key {kind.strip('.')} {key}"
            raise ValueError(f"{where}: expected a value, received {received}")
        if key in CHOICES and content[key] not in CHOICES[key]:
            wanted = " or ".join(CHOICES[key])
            raise ValueError(
                f"{path}: key {key}: expected {wanted}, received {content[key]!r}"
            )
        if key in NUMBERS and not isinstance(content[key], (int, float, type(None))):
            raise ValueError(
                f"{path}: key {key}: expected a number or null, received {content[key]!r}"
            )
        parts = content[key] if key == "curves" else [content[key]]
        for part in parts if key in KEYS else ():
            _check(path, part, key)
    if kind == "curves" and len(content["x"]) != len(content["y"]):
        sizes = f"{len(content['x'])} numbers as in x, received {len(content['y'])}"
        raise ValueError(f"{path}: key curves y: expected {sizes}")


def compare(
    rows: list[Json],
    details: dict[str, Json],
    reference: str | Sequence[str],
    published: Sequence[Json] = (),
) -> Json:
    """Rank the experiments of each dataset and set them against a reference.

    Models fitted on the training part and models fitted again on training and validation
    parts are in groups of their own: neither is compared with the other.

    Args:
        rows: Contents of `<experiment>.json`.
        details: Contents of `<experiment>.details.json` by experiment.
        reference: The model to compare with, or several, of which each group takes the
            first that it has; the model's first experiment in a group counts.
        published: Numbers of others, each with `experiment` and `metric` of ours that it
            stands beside, `published`, `source` and `difference` (in the protocol).

    Returns:
        Plain numbers and text: `datasets` holds the groups, each with `id` (unique),
        `dataset`, `fitted`, `rows` (best first), `differences` and `frontiers` (of each
        cost, of whom no other is at least as cheap and as good, and better in one); a
        number that does not exist is None.
    """
    models = [reference] if isinstance(reference, str) else list(reference)
    firsts: dict[str, Json] = {}
    for row in rows:
        first = firsts.setdefault(row["dataset"], row)
        _same(SHARED, first, row, first["experiment"], row["experiment"])
    _known(published, rows)
    kinds = [(dataset, fitted) for dataset in firsts for fitted in tables.PARTS]
    found = []
    for kind in kinds:
        mine = [row for row in rows if (row["dataset"], row["fitted"]) == kind]
        if mine:
            names = {row["experiment"] for row in mine}
            beside = [one for one in published if one["experiment"] in names]
            found.append(_group(mine, details, models) | {"published": beside})
    constants = {"resamples": RESAMPLES, "seed": SEED}
    wanted = {"reference": " or ".join(models)}
    plain: Json = _plain({**wanted, **constants, "datasets": found})
    return plain


def _known(published: Sequence[Json], rows: list[Json]) -> None:
    measured = {row["experiment"]: row["metrics"] for row in rows}
    for one in published:
        name, metric = one["experiment"], one["metric"]
        if metric not in measured.get(name, {}):
            known = sorted(measured.get(name, measured))
            raise ValueError(
                f"published: no {metric!r} of {name!r} to stand beside. Known: {known}"
            )


def _group(rows: list[Json], details: dict[str, Json], models: list[str]) -> Json:
    first = rows[0]
    wanted = [row for model in models for row in rows if row["model"] == model]
    base = wanted[0]["experiment"] if wanted else None
    group = {key: first[key] for key in ("dataset", "fitted", *SHARED)}
    group["id"] = first["dataset"] + first["fitted"].removeprefix("train")
    group |= {"rows": sorted(rows, key=_rank), "reference": base, "differences": []}
    group["frontiers"] = {cost: _frontier(group["rows"], cost) for cost in tables.COSTS}
    group["signatures"] = details[first["experiment"]].get("signatures", {})
    if base is not None:
        others = [row for row in group["rows"] if row["experiment"] != base]
        group["differences"] = [_difference(row, base, details) for row in others]
    paired = details[base or first["experiment"]]["paired"]
    return group | {"note": tables.note(group, paired, " or ".join(models), RESAMPLES)}


def _rank(row: Json) -> tuple[bool, float, str]:
    value = row["metrics"].get(row["sort_by"])
    if value is None or not math.isfinite(value):
        return True, 0.0, row["experiment"]
    return False, value if row["better"] == "lower" else -value, row["experiment"]


def _frontier(rows: list[Json], cost: str) -> list[str]:
    """Returns of whom no other is at least as cheap and as good, and better in one.

    Those without a number of the cost or the metric are left out.
    """
    at = {
        row["experiment"]: (row[cost], _rank(row)[1])
        for row in rows
        if row.get(cost) is not None and not _rank(row)[0]
    }
    return [
        name
        for name, mine in at.items()
        if not any(
            a <= mine[0] and b <= mine[1] and (a, b) != mine for a, b in at.values()
        )
    ]


def _same(keys: tuple[str, ...], a: Json, b: Json, name_a: str, name_b: str) -> None:
    for key in keys:
        if a[key] != b[key]:
            expected, received = repr(a[key])[:60], repr(b[key])[:60]
            raise ValueError(
                f"{name_a} and {name_b} share a dataset, so also {key}: "
                f"expected {expected} as in {name_a}, received {received}"
            )


def _difference(row: Json, base: str, details: dict[str, Json]) -> Json:
    name = row["experiment"]
    mine, theirs = (_shaped(one, details[one]["paired"]) for one in (name, base))
    _same(("blocks", "metric", "kind", "count"), theirs, mine, base, name)
    value, low, high, length = interval(mine, theirs)
    found = {"experiment": name, "model": row["model"], "metric": mine["metric"]}
    found |= {"difference": value, "low": low, "high": high, "block_length": length}
    return found | {"verdict": _verdict(low, high, row["better"])}


def _shaped(name: str, paired: Json) -> Json:
    blocks, lengths = len(paired["count"]), [len(seed) for seed in paired["sum"]]
    if set(lengths) != {blocks}:
        wanted = f"{blocks} numbers a seed, as in paired.count"
        raise ValueError(f"{name}: paired.sum: expected {wanted}, received {lengths}")
    return {**paired, "blocks": blocks}


def _verdict(low: float, high: float, better: str) -> str:
    if not math.isfinite(high - low):
        return "not measured"
    if low <= 0 <= high:
        return "no clear difference"
    return "better" if (high < 0) == (better == "lower") else "worse"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def as_json(comparison: Json | list[Json]) -> str:
    """Write a comparison, or what is listed of it, as JSON."""
    text = json.dumps(comparison, indent=2, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def summary(comparison: Json, missing: Sequence[str] = ()) -> list[Json]:
    """List each headline metric of each experiment, with its published number if any.

    Experiments that are `missing` have a line without numbers.
    """
    listed = []
    for group in comparison["datasets"]:
        beside = {(one["experiment"], one["metric"]): one for one in group["published"]}
        for row in group["rows"]:
            about = {"id": row["experiment"], "dataset": tables.heading(group)}
            about |= {"seeds": row["seeds"], "unit": group["unit"]}
            for metric in group["headline"]:
                other = beside.get((row["experiment"], metric), {})
                ours = row["metrics"].get(metric), (row["std"] or {}).get(metric)
                said = {k: other.get(k) for k in ("published", "source", "difference")}
                measured = {"metric": metric, "ours": ours[0], "std": ours[1]}
                measured["better"] = tables.better(metric, group)
                listed.append({**about, **measured, **said})
    keys = "dataset unit better metric ours std published source".split()
    none = dict.fromkeys(keys) | {"difference": "not run yet"}
    return listed + [{"id": name, "seeds": [], **none} for name in missing]


def scores(comparison: Json) -> Json:
    """Give each experiment's metrics and costs, as `dvc metrics diff` compares them."""
    rows = [row for group in comparison["datasets"] for row in group["rows"]]
    return {
        row["experiment"]: row["metrics"]
        | {"cost": {key: row[key] for key in tables.COSTS if key in row}}
        for row in rows
    }


def points(comparison: Json, details: dict[str, Json]) -> str:
    """Write the points of all curves as CSV, which `dvc plots` draws."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["chart", "experiment", "x", "y"])
    for group in comparison["datasets"]:
        for row in group["rows"]:
            for curve in details[row["experiment"]]["curves"]:
                axes = f"{curve['y_label']} by {curve['x_label']}"
                chart = f"{tables.heading(group)}: {curve['title']} ({axes})"
                for x, y in zip(curve["x"], curve["y"], strict=True):
                    if y is not None and math.isfinite(y):
                        table.writerow([chart, row["experiment"], _plain(x), _plain(y)])
    return text.getvalue()


def markdown(comparison: Json) -> str:
    """Write one section for each group: ranking, differences, all metrics."""
    lines = ["# Comparison of experiments"]
    for group in comparison["datasets"]:
        lines += [f"## {_cell(tables.heading(group))}", _cell(tables.facts(group))]
        lines += [grid(tables.ranking(group), 2)]
        lines += [f"### Against {_cell(group['reference'] or comparison['reference'])}"]
        lines += [_cell(group["note"])]
        lines += [grid(tables.differences(group), 2)] if group["differences"] else []
        if group["published"]:
            lines += ["### Beside published numbers", grid(tables.published(group), 2)]
            lines += ["How the protocols differ:"]
            lines += ["\n".join(f"- {_cell(text)}" for text in tables.protocols(group))]
        lines += ["<details><summary>All metrics</summary>"]
        lines += [grid(tables.metrics(group), 1), "</details>"]
    return "\n\n".join(lines) + "\n"


def grid(table: Table, texts: int) -> str:
    """Write a table in Markdown; its first `texts` columns are words, not numbers."""
    rule = [":--" if column < texts else "--:" for column in range(len(table[0]))]
    rows = [[_cell(text) for text in row] for row in table]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _cell(text: str) -> str:
    flat = re.sub(r"([\\`*|\[\]$~])", r"\\\1", " ".join(text.split()))
    return html.escape(flat, quote=False)
