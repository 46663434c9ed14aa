"""The READMEs' tables, written from committed results: `python -m engram.readme`.

A block between `<!-- table: <file> <group> -->` and `<!-- end -->` is replaced by that
group's ranking out of a `comparison.json` (the group's `id` is its dataset, with
`+validation` for refits), or, with `published` after it, by our numbers beside published
ones. With the group `speed` the file is a benchmark's, and the table has its ratios; with
`times` it has milliseconds.
"""

import json
import re
from pathlib import Path

from engram import comparison, tables

BLOCK = re.compile(r"(<!-- table: (\S+) (\S+)( published)? -->\n).*?(<!-- end -->)", re.S)


def filled(text: str, root: Path) -> str:
    """Returns a README's text with every table block written anew."""

    def block(found: re.Match) -> str:
        file, dataset, beside = found[2], found[3], found[4]
        content = json.loads((root / file).read_text(encoding="utf-8"))
        if dataset == "speed":
            return f"{found[1]}\n{comparison.grid(speed(content), 1)}\n\n{found[5]}"
        if dataset == "times":
            return f"{found[1]}\n{comparison.grid(times(content), 3)}\n\n{found[5]}"
        (group,) = [g for g in content["datasets"] if g["id"] == dataset]
        table = tables.published(group) if beside else tables.ranking(group)
        return f"{found[1]}\n{comparison.grid(table, 2)}\n\n{found[5]}"

    return BLOCK.sub(block, text)


def speed(benchmark: dict) -> tables.Table:
    """Tabulates how many times as fast as its peer each layer is, over all shapes."""
    table = [["Layer and peer", "Geometric mean", "Lowest", "Highest", "Shapes"]]
    for pair, mean in benchmark["geomeans"].items():
        ratios = [row["ratio"] for row in benchmark["rows"] if row["pair"] == pair]
        numbers = (f"{value:.2f}" for value in (mean, min(ratios), max(ratios)))
        table.append([pair, *numbers, str(len(ratios))])
    return table


def times(benchmark: dict) -> tables.Table:
    """Tabulates milliseconds: a line for each layer, a column for each kind and shape."""
    found: dict[tuple, dict[tuple, float]] = {}
    for one in benchmark["times"]:
        line = one["backend"], one["layer"], "yes" if one["cudnn"] else "no"
        column = one["kind"], one["width"], one["steps"]
        found.setdefault(line, {})[column] = one["ms"]
    columns = sorted({column for ms in found.values() for column in ms})
    heads = [f"{kind}, {steps} x {width}".capitalize() for kind, width, steps in columns]
    table = [["Backend", "Layer", "cuDNN", *heads]]
    for line, ms in found.items():
        table.append([*line, *(_milliseconds(ms.get(column)) for column in columns)])
    return table


def _milliseconds(value: float | None) -> str:
    return tables.number(value, "{:.3g}" if value is None or value < 100 else "{:.0f}")


if __name__ == "__main__":
    for readme in (
        Path("README.md"),
        *Path("docs").glob("*.md"),
        *Path("studies").glob("*/README.md"),
    ):
        text = filled(readme.read_text(encoding="utf-8"), root=Path())
        readme.write_text(text, encoding="utf-8")
