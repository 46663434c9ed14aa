"""The report is one page that needs nothing else: no network, script or other file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from engram import tables
from engram.charts import WIDE, Mark, intervals, lines, marks, scatter
from engram.tables import Json, Table

SIGN = 'width="12" height="12" aria-hidden="true"'
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root{color-scheme:light dark;--ink:#1c2227;--soft:#5d6973;--line:#dfe4e8;--page:#fff;
--card:#f6f8f9;--bad:#a8380b;--good:#0a6b50;--c0:#0072b2;--c1:#d55e00;--c2:#00916a;
--c3:#c0609a;--c4:#b98200;--c5:#3f9fd6;--c6:#7b2452}
@media screen and (prefers-color-scheme:dark){
:root{--ink:#e4e9ed;--soft:#9aa7b1;--line:#323b43;--page:#14181b;--card:#1c2226;--bad:#f2935f;--good:#4fcfa4;--c0:#4b9fe0;--c1:#f07a2b;
--c2:#2bc093;--c3:#e08fc0;--c4:#e6b036;--c5:#8bd0f7;--c6:#f0e442}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:2.5rem 1.25rem 5rem;color:var(--ink);
background:var(--page);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.015em}
h2{font-size:1.4rem;margin:3.5rem 0 .3rem;padding-top:1.4rem;
border-top:1px solid var(--line)}
h3{font-size:1.02rem;margin:2.2rem 0 .4rem}
h1,h2,h3,p,summary,figcaption{overflow-wrap:anywhere}
p{margin:.3rem 0 1rem;max-width:46rem}.lead{font-size:1.06rem}
.soft,figcaption{color:var(--soft);font-size:.88rem}a{color:var(--c0)}
.wide{overflow-x:auto;margin:.6rem 0 1rem;--edge:#78828c59;
background:linear-gradient(90deg,var(--page) 50%,#0000) 0/2rem 100% no-repeat local,
linear-gradient(270deg,var(--page) 50%,#0000) 100%/2rem 100% no-repeat local,
linear-gradient(90deg,var(--edge),#0000) 0/.7rem 100% no-repeat,
linear-gradient(270deg,var(--edge),#0000) 100%/.7rem 100% no-repeat}
details .wide{background:none}
table{border-collapse:collapse;font-size:.84rem;min-width:100%;
font-variant-numeric:tabular-nums}
th,td{padding:.4rem .5rem;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom}
th:first-child,.t2 tr>:nth-child(2){text-align:left}
th:first-child{position:sticky;left:0;background:var(--page);padding-left:.2rem}
tbody th{font-weight:500}tr.base>*{background:var(--card)}
tr.base>th{font-weight:700}
.worse{color:var(--bad);font-weight:600}.better{color:var(--good);font-weight:600}
svg{display:block}.desk,.phone{width:100%;max-width:52rem;height:auto;margin:.6rem 0 1rem}
.phone{display:none}
th svg{display:inline-block;margin-right:.5rem;vertical-align:-2px}
text{font-size:13px;fill:var(--ink);paint-order:stroke;stroke:var(--page);
stroke-width:4px;stroke-linejoin:round}.ax{fill:var(--soft)}.rule{stroke:var(--line)}
details{border:1px solid var(--line);border-radius:8px;margin:.5rem 0;
padding:0 1rem;background:var(--card)}details th:first-child{background:var(--card)}
summary{cursor:pointer;padding:.6rem 0;font-weight:500}
figure{margin:0 0 1.4rem}img{max-width:100%;height:auto;border-radius:4px;
background:#fff;display:block}
@media(max-width:44rem){.desk{display:none}.phone{display:block;max-width:30rem}}
@media(max-width:34rem){.t2 tr>:nth-child(2){display:none}
th{white-space:normal}th:first-child{min-width:8rem}}
.words th,.words td{text-align:left}.words td{white-space:normal;overflow-wrap:anywhere}
@media print{body{max-width:none;padding:0;font-size:11pt}.wide{overflow:visible}
.desk{display:block}.phone{display:none}h2,h3{break-after:avoid}figure,svg,tr{break-inside:avoid}
th,td{white-space:normal;padding:.25rem .3rem}th:first-child{position:static}
table{font-size:8pt}
details::details-content{content-visibility:visible;block-size:auto}}
"""


def html_report(
    comparison: Json,
    details: dict[str, Json],
    figures: dict[str, list[Path]],
    failures: Sequence[Json] | None = (),
    missing: Sequence[str] = (),
    title: str = "Comparison of experiments",
) -> str:
    """Write the whole comparison as one page of HTML.

    Args:
        comparison: What `engram.comparison.compare` returned.
        details: Contents of `<experiment>.details.json` by experiment.
        figures: PNG files by experiment; forecasts come first on the page.
        failures: Runs that failed, each with `run`, `ended`, `id` and `how`; None if that
            is not known.
        missing: Experiments without a result.
        title: Heading of the page.

    Returns:
        The page, a function of the arguments and the pictures alone.
    """
    groups = comparison["datasets"]
    links = [
        f'<a href="#d{i}">{escape(tables.heading(g))}</a>' for i, g in enumerate(groups)
    ]
    amiss = _amiss(failures, missing)
    links += ['<a href="#amiss">Failed or missing</a>'] if amiss else []
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{" · ".join(links)}</p>']
    for index, group in enumerate(groups):
        body += [f'<h2 id="d{index}">{escape(tables.heading(group))}</h2>']
        body += _section(group, details, figures, marks(comparison, group))
    body += amiss
    head = (
        f'<meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    )
    page = f"<head>{head}<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body)
    return f'<!doctype html>\n<html lang="en">{page}\n</body></html>\n'


def _section(
    group: Json,
    details: dict[str, Json],
    figures: dict[str, list[Path]],
    signs: dict[str, Mark],
) -> list[str]:
    parts = [f'<p class="lead">{escape(_lead(group))}</p>']
    parts += [_table(tables.ranking(group), signs, group["reference"], "t2")]
    parts += [f'<p class="soft">{escape(tables.facts(group))}</p>']
    if group["differences"]:
        parts += [
            f"<h3>Against {escape(group['reference'])}</h3>",
            intervals(group, signs),
        ]
        parts += [_table(tables.differences(group), signs, None, "t2")]
    parts += [f'<p class="soft">{escape(group["note"])}</p>']
    if group["published"]:
        parts += ["<h3>Beside published numbers</h3>"]
        parts += [_table(tables.published(group), signs, None, "t2")]
        parts += [
            f'<p class="soft">{escape(text)}</p>' for text in tables.protocols(group)
        ]
    curves = [
        (r["experiment"], c)
        for r in group["rows"]
        for c in details[r["experiment"]]["curves"]
    ]
    for title in dict.fromkeys(curve["title"] for _, curve in curves):
        mine = [(name, curve) for name, curve in curves if curve["title"] == title]
        parts += [f"<h3>{escape(title)}</h3>", lines(mine, signs)]
        note = mine[0][1].get("note")
        parts += [f'<p class="soft">{escape(note)}</p>'] if note else []
    parts += ["<h3>What it costs</h3>", scatter(group, signs)]
    parts += [_table(tables.cost(group), signs, None, "t1")]
    parts += [f'<p class="soft">{escape(tables.COST)}</p>']
    full = _table(tables.metrics(group), {}, None, "t1")
    parts += ["<h3>Details</h3>", _folded("All metrics", full)]
    return parts + [_figures(row["experiment"], figures) for row in group["rows"]]


def _amiss(failures: Sequence[Json] | None, missing: Sequence[str]) -> list[str]:
    """Lists what there is no result of, and the runs that failed."""
    parts = []
    if missing:
        parts += [f"<p>Without a result: {escape(', '.join(missing))}.</p>"]
    if failures:
        table = [["Run", "Ended", "Id", "How"]]
        table += [[one[key] for key in ("run", "ended", "id", "how")] for one in failures]
        parts += ["<p>Runs that failed, the newest first:</p>"]
        parts += [_table(table, {}, None, "words")]
    if failures is None:
        parts += ["<p>The store of runs does not answer: it may know of failed ones.</p>"]
    return ['<h2 id="amiss">Failed or missing</h2>', *parts] if parts else []


def _lead(group: Json) -> str:
    best, key = group["rows"][0], group["sort_by"]
    value = tables.score(best, key)
    unit = f" {group['unit']}" if group["unit"] else ""
    text = f"Best: {best['experiment']}, with {tables.label(key)} of {value}{unit}."
    verdicts = [one["verdict"] for one in group["differences"]]
    counts = [f"{v} ({verdicts.count(v)})" for v in dict.fromkeys(verdicts)]
    if counts:
        text += f" Against {group['reference']}: {', '.join(counts)}."
    return text


def _table(table: Table, signs: dict[str, Mark], base: str | None, kind: str) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in table[0])
    rows = [f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>']
    for name, *cells in table[1:]:
        sign = f"<svg {SIGN}>{signs[name].dot(6, 6)}</svg>" if name in signs else ""
        row = "".join(f"<td{_class(text)}>{escape(text)}</td>" for text in cells)
        first = f'<th scope="row">{sign}{escape(name)}</th>'
        rows += [f"<tr{' class=base' if name == base else ''}>{first}{row}</tr>"]
    return WIDE + "\n".join(rows) + "</tbody></table></div>"


def _class(text: str) -> str:
    return f' class="{text}"' if text in ("worse", "better") else ""


def _figures(experiment: str, figures: dict[str, list[Path]]) -> str:
    def order(path: Path) -> tuple[bool, str]:
        return "forecast" not in path.stem.lower(), path.name

    name, shown = escape(experiment), []
    for path in sorted(figures.get(experiment, []), key=order):
        words = escape(path.stem.replace("_", " ").replace("-", " "))
        data = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        picture = f'<img alt="{name}: {words}" src="{data}">'
        shown += [f"<figure>{picture}<figcaption>{words}</figcaption></figure>"]
    return _folded(f"Figures of {name}", "".join(shown)) if shown else ""


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>{body}</details>"
