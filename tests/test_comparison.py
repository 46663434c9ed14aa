"""A comparison recovers known differences and owns up to what it cannot know."""

from __future__ import annotations

import ast
import copy
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engram.bootstrap import SHORTEST, interval, stretch
from engram.comparison import (
    as_json,
    compare,
    markdown,
    points,
    read,
    scores,
    summary,
)
from engram.tables import facts, label, number, score

Json = dict[str, Any]
BAD_CURVE = (
    '{"curves": [{"title": "", "x_label": "", "y_label": "", "x": [1, 2], "y": [1]}]}'
)


def _paired(
    sums: list[Any], count: float = 1.0, kind: str = "mean", metric: str = "mae_to_60"
) -> Json:
    blocks = [[float(value) for value in seed] for seed in sums]
    return {
        "metric": metric,
        "kind": kind,
        "unit_of_resampling": "hour of the test split",
        "count": [count] * len(blocks[0]),
        "sum": blocks,
    }


def _row(name: str, value: float | None, **more: Any) -> Json:
    return {
        "experiment": name,
        "task": "forecasting",
        "dataset": "ring",
        "model": name.split("-")[-1],
        "unit": "km/h",
        "parameters": 4764,
        "fitted": "train",
        "learning_rate": 0.003,
        "best_epoch": 7,
        "seeds": [1],
        "train_seconds": 41.2,
        "metrics": {"mae_at_60": 2.0, "mae_to_15": 1.0, "mae_to_60": value},
        "std": None,
        "headline": ["mae_to_15", "mae_to_60"],
        "sort_by": "mae_to_60",
        "better": "lower",
        **more,
    }


def _details(*sums: Any) -> Json:
    curve = {"title": "MAE", "x_label": "minutes", "y_label": "MAE"}
    return {"curves": [{**curve, "x": [5, 10], "y": [1.0, 2.0]}]} | {
        "paired": _paired(list(sums))
    }


def _example(shift: float = 0.5, better: str = "lower") -> Json:
    noise = np.random.default_rng(0).normal(5.0, 1.0, 60)
    rows = [
        _row("t-stlm", 5.0, better=better),
        _row("t-gru", 5.0 + shift, better=better),
    ]
    details = {"t-stlm": _details(noise), "t-gru": _details(noise + shift)}
    return compare(rows, details, "stlm")


def _written(folder: Path) -> Path:
    for name in ("t-stlm", "t-gru"):
        (folder / f"{name}.json").write_text(json.dumps(_row(name, 5.0)))
        (folder / f"{name}.details.json").write_text(json.dumps(_details([1] * 20)))
    return folder


def test_a_constant_shift_of_the_mean_is_recovered_without_width() -> None:
    noise = np.random.default_rng(0).normal(5.0, 1.0, 90)
    found = interval(_paired([noise + 0.5]), _paired([noise]))
    assert found == pytest.approx((0.5, 0.5, 0.5, SHORTEST))


def test_a_root_mean_is_the_root_of_the_pooled_mean_and_not_a_mean_of_roots() -> None:
    other, base = [4.0, 16.0] * 20, [1.0, 1.0] * 20
    found = interval(
        _paired([other], kind="root_mean"), _paired([base], kind="root_mean")
    )
    assert found[0] == pytest.approx(np.sqrt(10.0) - 1.0)


def test_blocks_weigh_by_their_counts() -> None:
    other, base = _paired([[2.0, 30.0] * 10]), _paired([[1.0, 10.0] * 10])
    other["count"] = base["count"] = [1.0, 10.0] * 10
    assert interval(other, base)[0] == pytest.approx(32 / 11 - 1.0)


def test_identical_inputs_give_the_interval_from_zero_to_zero() -> None:
    noise = np.random.default_rng(0).gamma(2.0, size=90)
    for kind in ("mean", "root_mean"):
        paired = _paired([noise], 7.0, kind)
        assert interval(paired, copy.deepcopy(paired)) == (0.0, 0.0, 0.0, SHORTEST)


def _autocorrelated(rng: np.random.Generator, blocks: int, phi: float) -> Any:
    noise = rng.normal(size=blocks)
    noise[0] /= np.sqrt(1 - phi**2)
    for block in range(1, blocks):
        noise[block] += phi * noise[block - 1]
    return noise


def _coverage(blocks: int, phi: float, length: int | None, trials: int) -> float:
    rng, hits, truth = np.random.default_rng(7), 0, 0.2
    for _ in range(trials):
        base = rng.normal(5.0, 1.0, blocks)
        other = base + truth + _autocorrelated(rng, blocks, phi)
        found = interval(_paired([other]), _paired([base]), length)
        hits += found.low <= truth <= found.high
    return hits / trials


@pytest.mark.parametrize(
    ("blocks", "phi", "least"),
    [
        (32, 0.0, 0.92),  # los_loop; 2,000 trials gave 0.96
        (32, 0.5, 0.90),  # 0.92
        (32, 0.7, 0.85),  # 0.90: strongly correlated hours, too narrow
        (99, 0.0, 0.92),  # ring_road; 0.96
        (99, 0.5, 0.90),  # 0.94
        (99, 0.7, 0.90),  # 0.94
    ],
)
def test_intervals_cover_the_truth_at_the_defaults(
    blocks: int, phi: float, least: float
) -> None:
    assert least <= _coverage(blocks, phi, None, trials=500) <= 0.99


def test_single_blocks_would_claim_too_much_where_neighbours_correlate() -> None:
    assert _coverage(300, 0.7, 1, trials=100) < 0.80
    assert _coverage(300, 0.7, None, trials=100) > 0.88


def test_stretches_are_longer_where_neighbours_correlate() -> None:
    rng = np.random.default_rng(3)
    lengths = [stretch(_autocorrelated(rng, 300, phi)) for phi in (0.0, 0.5, 0.95)]
    assert lengths == sorted(set(lengths))
    assert (lengths[0], lengths[-1]) == (SHORTEST, 300 // 5)


def test_the_part_of_a_block_in_a_root_mean_decides_the_length_too() -> None:
    waves = 9.0 + 3.0 * np.repeat(np.random.default_rng(0).choice([-1, 1], 15), 4)
    base = np.full(60, 4.0)
    for kind in ("mean", "root_mean"):
        found = interval(_paired([waves], kind=kind), _paired([base], kind=kind))
        assert SHORTEST < found.block_length <= 12


def test_stretches_keep_neighbours_together() -> None:
    base = _paired([[5.0] * 60])
    waves = _paired([[6.0, 4.0] * 30])  # any two neighbours sum to the same
    assert interval(waves, base, 2)[:3] == pytest.approx((0.0, 0.0, 0.0))
    assert interval(waves, base, 1)[1] < -0.2


def test_the_spread_between_seeds_widens_the_interval() -> None:
    noise = np.random.default_rng(0).normal(5.0, 0.1, 90)
    narrow = interval(_paired([noise, noise]), _paired([noise]))
    wide = interval(_paired([noise - 1, noise + 1]), _paired([noise]))
    assert narrow == pytest.approx((0.0, 0.0, 0.0, SHORTEST))
    assert wide[0] == pytest.approx(0.0)
    assert wide[1] == pytest.approx(-wide[2])
    assert wide[2] == pytest.approx(2.045230 / 1.959964 * np.sqrt(30 / 29), rel=1e-4)


def test_few_blocks_give_a_difference_and_no_interval() -> None:
    value, low, high, _ = interval(_paired([[2.0] * 14]), _paired([[1.0] * 14]))
    assert value == 1.0
    assert np.isnan(low) and np.isnan(high)
    assert np.isfinite(interval(_paired([[2.0] * 15]), _paired([[1.0] * 15]))[1])


def test_a_block_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 or more, received 0"):
        interval(_paired([[1.0] * 20]), _paired([[1.0] * 20]), 0)


@pytest.mark.parametrize(
    ("shift", "better", "verdict"),
    [
        (0.5, "lower", "worse"),
        (-0.5, "lower", "better"),
        (0.5, "higher", "better"),
        (-0.5, "higher", "worse"),
        (0.0, "lower", "no clear difference"),
    ],
)
def test_the_verdict_is_seen_from_the_other_model(
    shift: float, better: str, verdict: str
) -> None:
    (found,) = _example(shift, better)["datasets"][0]["differences"]
    assert (found["experiment"], found["verdict"]) == ("t-gru", verdict)


def test_rows_come_best_first_and_missing_numbers_last() -> None:
    values = {"t-a": 3.0, "t-b": None, "t-c": 1.0, "t-d": float("nan"), "t-e": 2.0}
    details = {name: _details([1.0] * 20) for name in values}
    for better, order in (("lower", "ceabd"), ("higher", "aecbd")):
        rows = [_row(name, value, better=better) for name, value in values.items()]
        (group,) = compare(rows, details, "stlm")["datasets"]
        assert [row["experiment"][-1] for row in group["rows"]] == list(order)


def test_each_dataset_is_a_group_with_its_own_reference() -> None:
    rows = [
        _row(f"{dataset}-{model}", 1.0, dataset=dataset)
        for dataset in ("ring", "park")
        for model in ("gru", "stlm")
    ]
    details = {row["experiment"]: _details([1.0] * 20) for row in rows}
    groups = compare(rows, details, "stlm")["datasets"]
    assert [group["dataset"] for group in groups] == ["ring", "park"]
    assert [group["reference"] for group in groups] == ["ring-stlm", "park-stlm"]


def test_of_several_references_a_group_takes_the_first_that_it_has() -> None:
    words = {"ring": ("gru", "stlm", "conv_stlm"), "film": ("gru", "conv_stlm")}
    rows = [
        _row(f"{dataset}-{model}", 1.0, dataset=dataset, model=model)
        for dataset, models in words.items()
        for model in models
    ]
    details = {row["experiment"]: _details([1.0] * 20) for row in rows}
    found = compare(rows, details, ["stlm", "conv_stlm"])
    references = [group["reference"] for group in found["datasets"]]
    assert references == ["ring-stlm", "film-conv_stlm"]
    (group,) = compare(rows[:1], details, ["stlm", "conv_stlm"])["datasets"]
    assert "no experiment has the model stlm or conv_stlm" in group["note"]


def test_a_group_without_the_reference_says_that_it_has_no_intervals() -> None:
    found = compare([_row("t-gru", 1.0)], {"t-gru": _details([1.0])}, "stlm")
    assert found["datasets"][0]["differences"] == []
    assert "No intervals: no experiment has the model stlm" in markdown(found)


def test_different_numbers_of_blocks_are_refused_with_both_names() -> None:
    rows = [_row("t-stlm", 1.0), _row("t-gru", 1.0)]
    details = {"t-stlm": _details([1.0] * 20), "t-gru": _details([1.0] * 21)}
    with pytest.raises(ValueError, match=r"t-stlm and t-gru .*blocks.* 20 .* 21"):
        compare(rows, details, "stlm")


def test_a_dataset_sorted_by_two_metrics_is_refused_with_both_names() -> None:
    rows = [_row("t-stlm", 1.0), _row("t-gru", 1.0, sort_by="mae_to_15")]
    with pytest.raises(ValueError, match="t-stlm and t-gru .*sort_by"):
        compare(rows, {}, "stlm")


def test_a_seed_with_blocks_missing_is_refused() -> None:
    details = {"t-stlm": _details([1.0] * 20), "t-gru": _details([1.0] * 20)}
    details["t-gru"]["paired"]["sum"].append([1.0] * 3)
    with pytest.raises(ValueError, match=r"t-gru: paired.sum: .*\[20, 3\]"):
        compare([_row("t-stlm", 1.0), _row("t-gru", 1.0)], details, "stlm")


def test_a_diverged_model_is_not_measured_and_its_file_stays_plain_json() -> None:
    rows = [_row("t-stlm", 1.0), _row("t-gru", float("inf"))]
    details = {"t-stlm": _details([1.0] * 20), "t-gru": _details([np.nan] * 20)}
    found = compare(rows, details, "stlm")
    (one,) = found["datasets"][0]["differences"]
    assert (one["difference"], one["verdict"]) == (None, "not measured")
    assert "NaN" not in as_json(found) and "Infinity" not in as_json(found)
    assert "| t-gru | gru | – | – | not measured |" in markdown(found)


def test_the_json_has_sorted_keys_and_does_not_change() -> None:
    text = as_json(_example())
    content = json.loads(text)
    assert text == as_json(_example())
    assert text == json.dumps(content, indent=2, sort_keys=True) + "\n"


def test_the_ranking_shows_a_deviation_only_where_there_are_several_seeds() -> None:
    rows = [_row("t-gru", 1.5), _row("t-lstm", 2.5, seeds=[1, 2], std={"mae_to_60": 1})]
    details = {name: _details([1.0]) for name in ("t-gru", "t-lstm")}
    text = markdown(compare(rows, details, "stlm"))
    assert "| t-gru | gru | 4,764 | 1.000 | 1.500 | 0.003 | 7 | 41.2 s |" in text
    assert (
        "| t-lstm | lstm | 4,764 | 1.000 | 2.500 ± 1.000 | 0.003 | 7 | 41.2 s |" in text
    )


def test_what_was_not_chosen_is_a_dash_and_a_mean_epoch_has_one_decimal() -> None:
    rows = [_row("t-a", 1, learning_rate=None, best_epoch=None)]
    rows += [_row("t-b", 2, best_epoch=7.4), _row("t-c", 3, best_epoch=7.0)]
    text = markdown(compare(rows, {"t-a": _details([1.0])}, "stlm"))
    assert "| Rate | Best epoch | Time of one fit |" in text
    for line in (
        "| 1.000 | – | – | 41",
        "| 2.000 | 0.003 | 7.4 |",
        "| 3.000 | 0.003 | 7 |",
    ):
        assert line in text


@pytest.mark.parametrize("key", ["fitted", "learning_rate", "best_epoch"])
def test_what_was_fitted_and_chosen_has_to_be_told(tmp_path: Path, key: str) -> None:
    row = _row("t-gru", 1.0)
    del row[key]
    (_written(tmp_path) / "t-gru.json").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=f"key +{key}: expected a value"):
        read(["t-gru"], tmp_path)


def _refits(*models: str) -> Json:
    both = {"": "train", "-80": "train+validation"}
    noise = np.random.default_rng(0).normal(5.0, 1.0, 60)
    rows, details = [], {}
    for place, model in enumerate(models):
        for end, fitted in both.items():
            name = f"t-{model}{end}"
            value = 5.0 + (place if end else -place)  # the orders differ
            rows.append(_row(name, value, model=model, fitted=fitted))
            details[name] = _details(noise + value)
    return compare(rows[::-1], details, "stlm")


def test_a_refit_never_meets_a_model_fitted_on_the_training_part() -> None:
    first, second = _refits("stlm", "gru", "lstm")["datasets"]
    assert [group["id"] for group in (first, second)] == ["ring", "ring+validation"]
    assert [group["dataset"] for group in (first, second)] == ["ring", "ring"]
    assert [group["fitted"] for group in (first, second)] == ["train", "train+validation"]
    assert [group["reference"] for group in (first, second)] == ["t-stlm", "t-stlm-80"]
    orders = [[row["experiment"] for row in group["rows"]] for group in (first, second)]
    assert orders[0] == ["t-lstm", "t-gru", "t-stlm"]
    assert orders[1] == ["t-stlm-80", "t-gru-80", "t-lstm-80"]
    assert {one["verdict"] for one in first["differences"]} == {"better"}
    assert {one["verdict"] for one in second["differences"]} == {"worse"}
    for group in (first, second):
        names = {row["experiment"] for row in group["rows"]} - {group["reference"]}
        assert {one["experiment"] for one in group["differences"]} == names


def test_refits_without_a_reference_of_their_own_are_not_compared() -> None:
    rows = [_row("t-stlm", 1.0), _row("t-gru", 2.0, fitted="train+validation")]
    details = {name: _details([1.0] * 20) for name in ("t-stlm", "t-gru")}
    _, refits = compare(rows, details, "stlm")["datasets"]
    assert (refits["reference"], refits["differences"]) == (None, [])


def test_refits_have_a_heading_of_their_own() -> None:
    text = markdown(_refits("stlm", "gru"))
    assert "\n## ring\n" in text
    assert "\n## ring, fitted on training and validation parts\n" in text


@pytest.mark.parametrize(
    ("metric", "told", "not_told"),
    [
        ("error", "error is in per cent of images", "summed over the pixels"),
        ("squared_error", "summed over the pixels of an image", "per cent of images"),
    ],
)
def test_an_error_is_explained_as_what_it_is(metric, told, not_told) -> None:
    about = {"metrics": {metric: 3.0}, "headline": [metric], "sort_by": metric}
    rows = [_row("t-stlm", 0.0, **about)]
    details = {"t-stlm": {"curves": [], "paired": _paired([[1.0] * 20])}}
    text = markdown(compare(rows, details, "stlm"))
    assert told in text and not_told not in text


def test_the_note_tells_the_blocks_the_lengths_and_what_an_interval_leaves_out() -> None:
    (group,) = _example()["datasets"]
    (one,) = group["differences"]
    assert one["block_length"] == SHORTEST
    assert "60 blocks long (block: hour of the test split)" in group["note"]
    assert "stretches of 3 consecutive blocks" in group["note"]
    assert "An interval says nothing about other data than these." in group["note"]


@pytest.mark.parametrize(
    "name", ["comparison", "bootstrap", "tables", "report", "charts"]
)
def test_no_argument_or_local_hides_a_function(name: str) -> None:
    path = Path(__file__).parents[1] / f"src/engram/{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
    for one in tree.body:
        if isinstance(one, ast.ImportFrom):
            functions |= {alias.asname or alias.name for alias in one.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            inside = list(ast.walk(node))
            names = {one.arg for one in inside if isinstance(one, ast.arg)}
            names |= {
                one.id
                for one in inside
                if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
            }
            assert not names & functions, node.name


def test_every_metric_is_in_the_folded_table_in_natural_order() -> None:
    rows = [_row("t-gru", 1.0, metrics={"mae_to_60": 1, "mae_at_15": 2, "mae_at_5": 3})]
    text = markdown(compare(rows, {"t-gru": _details([1.0])}, "stlm"))
    folded = text[text.index("<details>") :]
    places = [folded.index(name) for name in ("MAE at 5", "MAE at 15", "MAE to 60")]
    assert places == sorted(places)


def test_markdown_shows_names_as_text() -> None:
    name = "<script>alert(1)</script>|![x](y)`$x^"
    text = markdown(compare([_row(name, 1.0)], {name: _details([1.0])}, "stlm"))
    assert "<script>" not in text
    assert r"&lt;/script&gt;\|!\[x\](y)\`\$x^" in text


def test_numbers_have_a_true_minus_and_a_dash_for_none() -> None:
    assert number(-1.5, "{:+.1f}") == "−1.5"
    assert {number(x) for x in (None, float("nan"), float("-inf"))} == {"–"}


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (5.0319, 0.0049, "5.032 ± 0.005"),
        (0.0123, 0.0001, "0.012 ± 0.000"),
        (0.00234, 0.00051, "0.0023 ± 0.0005"),
        (5.3e-5, 1.2e-6, "0.000053 ± 0.000001"),
        (0.0, 0.0, "0.000 ± 0.000"),
    ],
)
def test_a_score_below_a_hundredth_still_shows_two_digits(mean, std, said) -> None:
    row = {"metrics": {"mse": mean}, "std": {"mse": std}, "seeds": [1, 2]}
    assert score(row, "mse") == said


def test_reading_returns_rows_in_the_order_asked_for(tmp_path: Path) -> None:
    rows, details = read(["t-gru", "t-stlm"], _written(tmp_path))
    assert [row["experiment"] for row in rows] == ["t-gru", "t-stlm"]
    assert set(details) == {"t-gru", "t-stlm"}


@pytest.mark.parametrize("suffix", [".json", ".details.json"])
def test_a_missing_file_is_named_with_the_command_that_writes_it(
    tmp_path: Path, suffix: str
) -> None:
    (_written(tmp_path) / f"t-gru{suffix}").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        read(["t-stlm", "t-gru"], tmp_path)
    assert f"t-gru{suffix}" in str(caught.value)
    assert "dvc repro evaluate@t-gru" in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".json", "{", "expected JSON"),
        (".json", "[]", r"key +experiment: expected a value"),
        (".json", json.dumps(_row("t-stlm", 1.0)), "expected t-gru, received t-stlm"),
        (".json", json.dumps(_row("t-gru", 1.0, better="Low")), "received 'Low'"),
        (".json", json.dumps(_row("t-gru", 1.0, fitted="all")), "received 'all'"),
        (".json", json.dumps(_row("t-gru", 1.0, best_epoch="7")), "a number or null"),
        (".json", json.dumps(_row("t-gru", 1.0, learning_rate=[1])), "a number or null"),
        (".details.json", '{"curves": []}', "key details paired"),
        (".details.json", '{"curves": [], "paired": {}}', "key paired metric"),
        (".details.json", '{"curves": [{}]}', "key curves title"),
        (".details.json", BAD_CURVE, "key curves y: expected 2 numbers as in x"),
    ],
)
def test_a_malformed_file_is_refused_with_its_name_and_key(
    tmp_path: Path, suffix: str, text: str, message: str
) -> None:
    path = _written(tmp_path) / f"t-gru{suffix}"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read(["t-gru"], tmp_path)
    assert str(path) in str(caught.value)


def test_comparison_and_report_load_no_framework() -> None:
    code = (
        "import sys, engram.comparison, engram.report\n"
        "print({'tensorflow', 'keras', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def _beside(metric: str = "mae_to_60", experiment: str = "t-gru") -> list[Json]:
    about = {"source": "A paper, table 2", "difference": "its epoch is chosen on test"}
    return [{"experiment": experiment, "metric": metric, "published": 7.5, **about}]


def test_a_published_number_stands_beside_ours_with_what_differs() -> None:
    rows = [_row("t-stlm", 5.0), _row("t-gru", 5.5)]
    details = {name: _details([1.0] * 20) for name in ("t-stlm", "t-gru")}
    compared = compare(rows, details, "stlm", published=_beside())
    (line,) = [one for one in summary(compared) if one["published"] is not None]
    assert (line["id"], line["metric"]) == ("t-gru", "mae_to_60")
    assert (line["ours"], line["published"], line["better"]) == (5.5, 7.5, "lower")
    text = markdown(compared)
    assert "| t-gru | MAE to 60 | 5.500 | 7.500 | A paper, table 2 |" in text
    assert "- t-gru: its epoch is chosen on test." in text


def test_the_summary_has_a_line_for_every_headline_number() -> None:
    lines = summary(_example())
    assert [(one["id"], one["metric"]) for one in lines] == [
        (name, metric)
        for name in ("t-stlm", "t-gru")  # best first
        for metric in ("mae_to_15", "mae_to_60")
    ]
    assert all(one["published"] is None and one["std"] is None for one in lines)


def test_a_published_number_needs_one_of_ours_to_stand_beside() -> None:
    rows, details = [_row("t-stlm", 5.0)], {"t-stlm": _details([1.0] * 20)}
    for wrong in (_beside(experiment="t-gru"), _beside("f1", "t-stlm")):
        with pytest.raises(ValueError, match="published: no .* to stand beside"):
            compare(rows, details, "stlm", published=wrong)


def _facts(*keys: str) -> str:
    row = _row("a-gru", 1.0, metrics=dict.fromkeys(keys, 1.0))
    about = {"unit": "nats", "fitted": "train", "better": "higher"}
    return facts({**about, "rows": [row]})


def test_a_metric_is_explained_where_it_occurs_and_no_other() -> None:
    assert "60 minutes" in _facts("mae_to_60") and "ahead" not in _facts("mae_to_60")
    assert "15 minutes ahead" in _facts("mae_at_15")
    said = _facts("gap_to_bound")  # a bound, not minutes
    assert "gap to bound" in said and "minutes" not in said
    assert "of images" not in _facts("alignment_error")


def test_metrics_are_spelt_as_their_field_does() -> None:
    found = [label(key) for key in ("rmse_to_60", "bleu", "chrf", "reverse_kl")]
    assert found == ["RMSE to 60", "BLEU", "chrF", "Reverse KL"]


def test_one_block_is_not_many() -> None:
    details = {"a-gru": {"curves": [], "paired": _paired([[1.0]])}}
    (group,) = compare([_row("a-gru", 1.0)], details, "gru")["datasets"]
    assert "The test part is one block long" in group["note"]


def test_signatures_of_scores_stand_with_their_table():
    rows = [_row("t-stlm", 30.0), _row("t-gru", 20.0)]
    told = {"bleu": "nrefs:1|tok:none", "sacrebleu": "nrefs:1|tok:13a"}
    details = {row["experiment"]: _details([1.0] * 20) for row in rows}
    plain = markdown(compare(rows, details, "stlm"))
    assert "nrefs" not in plain
    details["t-gru"]["signatures"] = details["t-stlm"]["signatures"] = told
    page = markdown(compare(rows, details, "stlm"))
    assert "BLEU by nrefs:1\\|tok:none; sacreBLEU by nrefs:1\\|tok:13a." in page


def _spent(**costs: tuple[float | None, float | None]) -> Json:
    rows = [
        _row(f"t-{name}", score, train_seconds=seconds)
        for name, (seconds, score) in costs.items()
    ]
    details = {row["experiment"]: _details([1] * 20) for row in rows}
    (group,) = compare(rows, details, "stlm")["datasets"]
    return group


def test_on_the_frontier_no_other_is_as_cheap_and_as_good() -> None:
    found = _spent(a=(9, 1.0), b=(5, 2.0), c=(6, 2.5), d=(5, 3.0), e=(1, 9.0), f=(9, 1.5))
    assert found["frontiers"]["train_seconds"] == ["t-a", "t-b", "t-e"]


def test_equals_stand_on_the_frontier_together_and_unknown_ones_do_not() -> None:
    found = _spent(a=(5, 1.0), b=(5, 1.0), c=(1, None), d=(1, float("nan")))
    assert found["frontiers"]["train_seconds"] == ["t-a", "t-b"]
    assert found["frontiers"]["peak_memory"] == []  # of results that do not tell


def test_where_more_is_better_the_frontier_goes_the_other_way() -> None:
    rows = [_row("t-a", 1.0, better="higher", parameters=10)]
    rows += [_row("t-b", 2.0, better="higher", parameters=20)]
    rows += [_row("t-c", 1.5, better="higher", parameters=30)]
    details = {row["experiment"]: _details([1] * 20) for row in rows}
    (group,) = compare(rows, details, "stlm")["datasets"]
    assert group["frontiers"]["parameters"] == ["t-b", "t-a"]


def test_the_points_of_all_curves_are_rows_of_a_table() -> None:
    rows = [_row("t-stlm", 5.0), _row("t-gru", 6.0, fitted="train+validation")]
    details = {row["experiment"]: _details([1] * 20) for row in rows}
    details["t-gru"]["curves"][0]["y"] = [0.1, float("nan")]
    found, chart = points(compare(rows, details, "stlm"), details), "MAE (MAE by minutes)"
    assert list(csv.reader(found.splitlines())) == [
        ["chart", "experiment", "x", "y"],
        [f"ring: {chart}", "t-stlm", "5", "1.0"],
        [f"ring: {chart}", "t-stlm", "10", "2.0"],
        [f"ring, fitted on training and validation parts: {chart}", "t-gru", "5", "0.1"],
    ]


def test_the_scores_are_those_of_the_rows() -> None:
    found = scores(_example())
    assert set(found) == {"t-stlm", "t-gru"}
    cost = {"train_seconds": 41.2, "parameters": 4764}
    measured = {"mae_at_60": 2.0, "mae_to_15": 1.0, "mae_to_60": 5.5}
    assert found["t-gru"] == {**measured, "cost": cost}


def test_each_metric_of_the_summary_has_a_direction_of_its_own() -> None:
    metrics = {"modes": 25.0, "reverse_kl": 0.1, "distance": 0.2, "accuracy": 90.0}
    about = {"better": "higher", "sort_by": "modes", "headline": list(metrics)}
    rows = [_row("t-stlm", 1.0, metrics=metrics, **about)]
    found = summary(compare(rows, {"t-stlm": _details([1] * 20)}, "stlm"))
    assert {one["metric"]: one["better"] for one in found} == {
        **{"modes": "higher", "reverse_kl": "lower"},
        **{"distance": "lower", "accuracy": "higher"},
    }
    assert {one["dataset"] for one in found} == {"ring"}
