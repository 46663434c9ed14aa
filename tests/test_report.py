"""The report opens without a network, shows data as text and does not change."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.charts import marks
from engram.comparison import compare
from engram.report import html_report

Json = dict[str, Any]
EVIL = '<script>alert(1)</script>"onload="x'
VOID = {"meta", "img", "path"}


class _Page(HTMLParser):
    """Collects tags, attributes and visible text, and checks that tags close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _inputs(
    names: tuple[str, ...] = ("ring-gru", "ring-stlm"), text: str = "km/h"
) -> tuple[Json, dict[str, Json]]:
    rows: list[Json] = []
    details: dict[str, Json] = {}
    noise = np.random.default_rng(0).normal(4.0, 0.3, 60)
    for index, name in enumerate(names):
        rows.append(
            {
                **{"experiment": name, "task": "forecasting", "dataset": text},
                **{"model": name.split("-")[-1], "unit": text, "parameters": 10},
                **{"fitted": "train", "learning_rate": 0.01, "best_epoch": 3},
                **{"seeds": [1], "train_seconds": 5000.0, "std": None},
                **{"metrics": {"rmse_to_60": 4.0 + index}, "better": "lower"},
                **{"headline": ["rmse_to_60"], "sort_by": "rmse_to_60"},
            }
        )
        curve = {"title": text, "x_label": text, "y_label": text, "x": [5, 10, 15]}
        paired = {"metric": "rmse_to_60", "kind": "mean", "unit_of_resampling": text}
        sums = (noise * (1 + 0.1 * index) + 0.01 * index).tolist()
        details[name] = {
            "curves": [{**curve, "y": [1.0 + index, None, 3.0 + index]}],
            "paired": {**paired, "count": [1] * 60, "sum": [sums]},
        }
    return compare(rows, details, "stlm"), details


def _refitted() -> tuple[Json, dict[str, Json]]:
    comparison, details = _inputs(("r-gru", "r-stlm", "r-gru-80", "r-stlm-80"))
    rows = [row for group in comparison["datasets"] for row in group["rows"]]
    for row in rows:
        if row["experiment"].endswith("-80"):
            model = row["experiment"].split("-")[1]
            row |= {"fitted": "train+validation", "model": model}
    return compare(rows, details, "stlm"), details


def _page(**more: Any) -> str:
    return html_report(*_inputs(**more), figures={})


def test_the_page_closes_every_tag_it_opens() -> None:
    assert _Page(_page()).open == []


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    (tmp_path / "training.png").write_bytes(b"png")
    page = html_report(*_inputs(), {"ring-gru": [tmp_path / "training.png"]})
    parsed = _Page(page)
    assert "http://" not in page and "https://" not in page
    assert "@import" not in page and "url(" not in page
    assert not {"script", "link", "iframe", "object", "base"} & set(parsed.tags)
    for _, key, value in parsed.attributes:
        if key in {"src", "href", "xlink:href", "srcset"}:
            assert value.startswith(("data:image/png;base64,", "#"))


def test_text_from_data_stays_text_everywhere(tmp_path: Path) -> None:
    picture = tmp_path / "forecast <img src=x onerror=alert(1)> & $x^.png"
    picture.write_bytes(b"png")
    names = (f"{EVIL}-stlm", f"$x^-{EVIL}")
    inputs = _inputs(names, text=EVIL)
    page = html_report(*inputs, {names[1]: [picture]}, title=EVIL)
    parsed = _Page(page)
    assert "script" not in parsed.tags
    assert {src for tag, key, src in parsed.attributes if (tag, key) == ("img", "src")}
    assert not [key for _, key, _ in parsed.attributes if key.startswith("on")]
    text = "".join(parsed.text)
    assert EVIL in text and "$x^" in text and "onerror=alert(1)" in text


def test_the_same_inputs_give_the_same_page() -> None:
    assert _page() == _page()


def test_the_page_holds_no_date() -> None:
    assert not re.search(r"\b20\d\d\b|\d\d:\d\d", _page())


def test_a_model_has_one_colour_wherever_it_appears() -> None:
    names = ("ring-gru", "ring-lstm", "ring-stlm")
    first, second = _page(names=names), _page(names=names[::-1])
    for page in (first, second):
        row = re.search(r'fill="([^"]+)"/></svg>ring-gru', page)
        bar = re.search(r'>ring-gru</text><path [^>]*stroke="([^"]+)"', page)
        assert row and bar
        assert row[1] == bar[1] == "var(--c0)"


def test_the_reference_is_drawn_in_ink_and_its_row_is_marked() -> None:
    page = _page()
    (row,) = re.findall(r"<tr class=base>(.*?)</tr>", page)
    assert "ring-stlm" in row and "var(--ink)" in row


def test_two_experiments_of_one_model_differ_in_their_dashes() -> None:
    page = _page(names=("a-gru", "b-gru", "c-stlm"))
    assert 'stroke="var(--c0)" stroke-dasharray=""' in page
    assert 'stroke="var(--c0)" stroke-dasharray="7 4"' in page


def test_forecasts_come_before_other_figures(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a_loss.png", "b_forecast.png", "c_gate.png")]
    for path in paths:
        path.write_bytes(path.name.encode())
    page = html_report(*_inputs(), {"ring-gru": paths})
    alts = [v for tag, key, v in _Page(page).attributes if (tag, key) == ("img", "alt")]
    assert alts == ["ring-gru: b forecast", "ring-gru: a loss", "ring-gru: c gate"]


def test_every_chart_says_in_words_what_it_shows() -> None:
    page = _Page(_page())
    said = {v for tag, key, v in page.attributes if (tag, key) == ("svg", "aria-label")}
    assert said == {
        "Difference in RMSE to 60 (km/h), lower is better, against ring-stlm",
        "km/h: ring-gru, ring-stlm",
        "RMSE to 60, km/h, lower is better, over the time of one fit: ring-gru, "
        "ring-stlm",
    }


def test_the_page_is_readable_in_dark_and_on_a_phone() -> None:
    page = _page()
    assert "prefers-color-scheme:dark" in page
    assert "width=device-width" in page
    tables = len(re.findall("<table", page))
    assert len(re.findall(r'<div class="wide" tabindex="0"><table', page)) == tables


def test_curves_without_finite_numbers_say_so() -> None:
    comparison, details = _inputs()
    for one in details.values():
        one["curves"][0]["y"] = [None, float("nan"), float("inf")]
    page = html_report(comparison, details, {})
    assert "No finite numbers." in page
    assert not re.search(r"\b(nan|inf)\b", page)


def test_a_group_without_a_reference_has_tables_and_no_interval_chart() -> None:
    page = _page(names=("ring-gru", "ring-lstm"))
    assert "No intervals: no experiment has the model stlm." in page
    assert "lower is better, against" not in page


def test_refits_have_a_section_and_a_lead_of_their_own() -> None:
    page = html_report(*_refitted(), {})
    assert '<h2 id="d0">km/h</h2>' in page
    assert '<h2 id="d1">km/h, fitted on training and validation parts</h2>' in page
    leads = re.findall(r'<p class="lead">(.*?)</p>', page)
    assert [re.findall(r"\br-[\w-]+", lead) for lead in leads] == [
        ["r-gru", "r-stlm"],
        ["r-gru-80", "r-stlm-80"],
    ]
    assert all(sum(map(int, re.findall(r"\((\d+)\)", one))) == 1 for one in leads)


def test_the_ranking_shows_what_was_chosen_and_the_time_of_one_fit() -> None:
    head = "Parameters RMSE to 60 Rate Best epoch Time of one fit"
    text = " ".join(" ".join(_Page(_page()).text).split())
    assert head in text
    assert "10 4.000 0.01 3 83 min" in text


@pytest.mark.parametrize("count", [1, 2, 30])
def test_labels_of_curves_never_overlap(count: int) -> None:
    names = tuple(f"e{index:02}-m{index:02}" for index in range(count))
    comparison, details = _inputs(names)
    for one in details.values():
        one["curves"][0]["y"] = [1.0, 2.0, 3.0]
    page = html_report(comparison, details, {})
    beside = r'<text x="[\d.]+" y="([\d.]+)" text-anchor="start" class="">e\d\d-m'
    charts = [c for c in page.split("<svg ") if "viewBox" in c and re.search(beside, c)]
    charts = [chart for chart in charts if "against" not in chart.split(">")[0]]
    assert len(charts) == (2 if count == 1 else 4)  # of curves, of costs; on a phone, too
    for chart in charts:
        heights = sorted(map(float, re.findall(beside, chart)))
        assert len(heights) == count
        assert all(np.diff(heights) >= 16.9)
        assert heights[0] > 0


LONG = "a-name-of-thirty-letters-at-all", "another-of-forty-letters-and-of-a-seed-2"


def test_no_chart_is_wider_than_its_room() -> None:
    names = tuple(f"{name}-{model}" for name in LONG for model in ("gru", "stlm"))
    comparison, details = _inputs(
        names, text="A label that is longer than " + "a phone " * 5
    )
    for one in details.values():
        one["curves"][0]["x"] = [3.78846, 1000.5, 9000.25]
    page = html_report(comparison, details, {})
    charts = re.findall(
        r'<svg class="(desk|phone)" viewBox="0 0 (\d+).*?>(.*?)</svg>', page
    )
    assert [kind for kind, *_ in charts] == ["desk", "phone"] * 3
    for kind, width, parts in charts:
        assert int(width) == {"desk": 720, "phone": 350}[kind]
        for x, anchor, text in re.findall(
            r'<text x="([-\d.]+)".*?text-anchor="(\w+)".*?>(.*?)</text>', parts
        ):
            share = {"start": 0, "middle": 0.5, "end": 1}[anchor]
            left = float(x) - share * 6.5 * len(text)  # such letters are 6.3 wide
            assert left >= -1 and left + 6.5 * len(text) <= int(width) + 1, text


def test_experiments_of_one_model_have_signs_of_their_own() -> None:
    names = ("r-a-gru", "r-b-gru", "r-c-gru", "r-stlm")
    comparison, _ = _inputs(names)
    signs = marks(comparison, comparison["datasets"][0])
    assert len({(sign.colour, sign.shape) for sign in signs.values()}) == 4
    assert len({signs[name].colour for name in names[:3]}) == 1
    assert [n for n, sign in signs.items() if sign.colour == "var(--ink)"] == ["r-stlm"]


def test_a_missing_picture_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        html_report(*_inputs(), {"ring-gru": [tmp_path / "gone.png"]})


def _costs(**seconds: float) -> tuple[Json, dict[str, Json]]:
    comparison, details = _inputs(tuple(f"r-{name}" for name in seconds))
    rows = comparison["datasets"][0]["rows"]
    for row in rows:
        row["train_seconds"] = seconds[row["experiment"].removeprefix("r-")]
    return compare(rows, details, "stlm"), details


def test_the_chart_of_costs_names_all_and_has_a_line_through_the_frontier() -> None:
    page = html_report(*_costs(gru=20.0, stlm=10.0, mlp=5.0, rnn=8.0), {})
    chart = page.split("What it costs")[1].split("</svg>")[0]
    names = re.findall(r'class="">([\w-]+)<', chart)
    assert names == ["r-gru", "r-stlm", "r-mlp", "r-rnn"]
    (line,) = re.findall(r'<path d="M([^"]+)" fill="none" stroke="var\(--soft\)"', chart)
    assert len(line.split("L")) == 3  # all but rnn, which mlp beats
    assert "time of one fit, s, logarithmic" in chart
    assert ">10</text>" in chart and ">20</text>" in chart


def test_a_fit_that_took_no_time_is_not_in_the_chart_and_breaks_nothing() -> None:
    page = html_report(*_costs(gru=0.0, stlm=10.0, mlp=5.0), {})
    chart = page.split("What it costs")[1].split("</svg>")[0]
    assert re.findall(r'class="">([\w-]+)<', chart) == ["r-stlm", "r-mlp"]
    assert 'd="M"' not in chart


def test_equal_scores_stand_beside_a_tick() -> None:
    comparison, details = _costs(gru=1.0, stlm=10.0)
    for row in comparison["datasets"][0]["rows"]:
        row["metrics"]["rmse_to_60"] = 5.0
    page = html_report(comparison, details, {})
    chart = page.split("What it costs")[1].split("</svg>")[0]
    assert re.search(r'text-anchor="end" class="ax">5(\.\d)?<', chart)


@pytest.mark.parametrize(
    "seconds, unit, ticks",
    [
        ((1.0, 100.0), "s", ["1", "10", "100"]),
        ((100.0, 140.0), "min", ["2", "2.5"]),
        ((60.0, 6000.0), "min", ["1", "10", "100"]),
        ((900.0, 90000.0), "h", ["1", "10"]),
    ],
)
def test_times_have_the_largest_unit_of_which_there_are_two(
    seconds: tuple[float, float], unit: str, ticks: list[str]
) -> None:
    page = html_report(*_costs(gru=seconds[0], stlm=seconds[1]), {})
    chart = page.split("What it costs")[1].split("</svg>")[0]
    assert f"time of one fit, {unit}, logarithmic" in chart
    found = re.findall(r'y="320.0" text-anchor="middle" class="ax">([\d.]+)<', chart)
    assert set(ticks) <= set(found) and len(found) >= 2


def test_one_experiment_has_a_table_of_costs_and_no_chart() -> None:
    page = html_report(*_inputs(("ring-stlm",)), {})
    found = page.split("What it costs")[1]
    assert "Pareto-optimal in" in found and "<svg" not in found.split("<table")[0]


@pytest.mark.parametrize("low, log", [(0.01, True), (0.9, False), (-1.0, False)])
def test_a_learning_curve_is_logarithmic_where_it_can_be_and_pays(
    low: float, log: bool
) -> None:
    comparison, details = _inputs()
    for one in details.values():
        one["curves"][0] |= {"y": [1.0, low, low], "y_scale": "log"}
    page = html_report(comparison, details, {})
    assert ("km/h, logarithmic" in page) == log
    assert (">0.1</text>" in page) == log


def test_what_failed_or_is_missing_is_listed_as_text() -> None:
    failed = {"run": EVIL, "ended": "2026", "id": "abc", "how": f"Diverged: {EVIL}"}
    page = html_report(*_inputs(), {}, [failed], [EVIL])
    text = "".join(_Page(page).text)
    assert f"Without a result: {EVIL}." in text and f"Diverged: {EVIL}" in text
    assert '<a href="#amiss">' in page and "script" not in _Page(page).tags
    assert "amiss" not in html_report(*_inputs(), {})
    assert "does not answer" in html_report(*_inputs(), {}, failures=None)
