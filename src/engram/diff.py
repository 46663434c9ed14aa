"""What differs between two runs: params, results, code, data and packages.

    engram diff traffic-gru traffic-stlm
    engram diff 04a295a7f589454dbfead1e19ac34f96 a6a333786d2448f2bd4e6bf43748e03c

A run is named by its id, or by an experiment of this folder, whose first seed is then
meant. Whether a difference in results is more than noise, `results/comparison.md` says:
this is one seed beside another.
"""

import argparse
import json
import sys
from pathlib import Path

from engram import recorded
from engram.recorded import Run

SHORT = 7  # letters of a commit
WIDEST = 40  # letters of a value
Row = tuple[str, str, str, str]  # what, of the first run, of the second, change


def main(argv: list[str] | None = None) -> None:
    """Prints the difference of two runs."""
    parser = argparse.ArgumentParser("engram diff", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("first", help="the id of a run, or an experiment")
    parser.add_argument("second")
    given = parser.parse_args(argv)
    print(text(*(_run(word) for word in (given.first, given.second))))


def _run(word: str) -> Run:
    file = Path("runs", word, "run.json")
    run_id = word
    if file.is_file():
        run_id = next(iter(json.loads(file.read_text()).values()))["run_id"]
    found = recorded.kept(run_id)
    if found is None:
        known = sorted(path.parent.name for path in Path("runs").glob("*/run.json"))
        more = f" Experiments that ran here: {', '.join(known)}" if known else ""
        sys.exit(f"{word}: neither a run of the store nor an experiment here.{more}")
    return found


def text(one: Run, other: Run) -> str:
    """Returns the difference as a table for a terminal."""
    parts = {
        "params": _values(one.params, other.params),
        "results": _numbers(one.metrics, other.metrics),
        "where from": _origins(one, other),
    }
    head: Row = ("", one.name, other.name, "")
    wide = [
        max(len(row[n]) for rows in ([head], *parts.values()) for row in rows)
        for n in range(4)
    ]
    lines = [_line(head, wide)]
    for title, rows in parts.items():
        lines += ["", f"{title}:" if rows else f"{title}: the same"]
        lines += [_line(row, wide) for row in rows]
    return "\n".join(lines)


def _line(row: Row, wide: list[int]) -> str:
    name, *cells = row
    numbers = bool(row[3])
    place = str.rjust if numbers else str.ljust
    told = [place(cell, n) for cell, n in zip(cells, wide[1:], strict=True)]
    return f"  {name:{wide[0]}}  {'  '.join(told)}".rstrip()


def _values(one: dict[str, str], other: dict[str, str]) -> list[Row]:
    return [
        (key, _short(one.get(key)), _short(other.get(key)), "")
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    ]


def _numbers(one: dict[str, float], other: dict[str, float]) -> list[Row]:
    rows: list[Row] = []
    for key in sorted({*one, *other}):
        if key.startswith("system/") or one.get(key) == other.get(key):
            continue
        both = key in one and key in other
        change = f"{other[key] - one[key]:+.4g}" if both else "–"
        was, now = (f"{some[key]:.5g}" if key in some else "–" for some in (one, other))
        rows.append((key, was, now, change))
    return rows


def _origins(one: Run, other: Run) -> list[Row]:
    return _values(*(_origin(run) for run in (one, other)))


def _origin(run: Run) -> dict[str, str]:
    packages = recorded.artifact(run.id, "environment.json")
    digest = json.loads(packages)["requirements.lock"] if packages else None
    return {
        "commit": run.tags.get("git.commit", "none")[:SHORT],
        "beside it": run.tags.get("git.dirty", "no"),
        "data": " ".join(run.data) if run.data else "none",
        "packages": str(digest)[:SHORT],
        "status": run.status,
    }


def _short(value: str | None) -> str:
    if value is None:
        return "–"
    return value if len(value) <= WIDEST else value[: WIDEST - 1] + "…"
