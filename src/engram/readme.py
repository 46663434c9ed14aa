"""The READMEs' tables, written from committed results: `python -m engram.readme`.

A block between `<!-- table: <file> <group> -->` and `<!-- end -->` is replaced by that
group's ranking out of a `comparison.json` (the group's `id` is its dataset, with
`+validation` for refits), or, with `published` after it, by our numbers beside published
ones.
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
        compared = json.loads((root / file).read_text(encoding="utf-8"))
        (group,) = [g for g in compared["datasets"] if g["id"] == dataset]
        table = tables.published(group) if beside else tables.ranking(group)
        return f"{found[1]}\n{comparison.grid(table, 2)}\n\n{found[5]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    for readme in (Path("README.md"), *Path("studies").glob("*/README.md")):
        text = filled(readme.read_text(encoding="utf-8"), root=Path())
        readme.write_text(text, encoding="utf-8")
