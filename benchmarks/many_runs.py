"""How long questions take in a store of 200 runs with 50 metrics each.

The runs are written as stages write them, with ten epochs of curves; results as stages
leave them, a metrics file for each of 200 experiments on one dataset.

    python benchmarks/many_runs.py   # writes results/many_runs.json
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np

from engram import comparison, diff, recorded, report, repository, tracking

RUNS, METRICS, EPOCHS, BLOCKS, TIMES = 200, 50, 10, 100, 5
STAGE = "train@model"  # as after a sweep of 200 trials
SPEC = {"dataset": "data", "fingerprint": "f" * 64}
CHROMIUM = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measures, prints the table and writes the results file."""
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["DVC_ROOT"] = place
        Path("mlruns").mkdir()
        ids = [written(number) for number in range(RUNS)]
        rows, details = results()
        compared = comparison.compare(rows, details, "model-0")
        one, other = recorded.run(ids[0]), recorded.run(ids[-1])
        assert one and other
        questions = [
            ("compare: paired differences", 10, lambda: compare(rows, details)),
            (
                "compare: the report",
                10,
                lambda: report.html_report(compared, details, {}),
            ),
            ("a run by its id", 1, lambda: recorded.run(ids[7])),
            ("a run by a tag", 1, lambda: recorded.find({"experiment": "model-7"})),
            ("all runs of a stage", 1, lambda: recorded.find({"dvc.stage": STAGE})),
            ("engram diff", 1, lambda: diff.text(one, other)),
            ("an artifact", 1, lambda: recorded.artifact(ids[7], "environment.json")),
        ]
        found = [measured(*question) for question in questions]
        with interface() as look:
            found.append(measured("MLflow's table of all runs, in Chromium", 10, look))
    content = {
        "rows": found,
        "runs": RUNS,
        "metrics": METRICS,
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("mlflow", "numpy")},
    }
    out = ROOT / "benchmarks/results/many_runs.json"
    out.write_text(json.dumps(content, indent=2) + "\n")
    slow = [row["case"] for row in found if row["seconds"] > row["allowed"]]
    sys.exit(f"took longer than allowed: {', '.join(slow)}" if slow else 0)


def written(number: int) -> str:
    """Writes a run; returns its id."""
    names = [f"metric_{k}" for k in range(METRICS)]
    tags = {"experiment": f"model-{number}", "dvc.stage": STAGE}
    params = {"args": {"units": number}}
    with tracking.run(f"model-{number}", "data", params, tags, SPEC) as (run_id, record):
        for epoch in range(1, EPOCHS + 1):
            record(dict.fromkeys(names, number / epoch), epoch)
    return run_id


def results() -> tuple[list[dict], dict[str, dict]]:
    """Returns the contents of the metrics files of as many experiments."""
    draw = np.random.default_rng(1)
    rows, details = [], {}
    for number in range(RUNS):
        name, scores = f"model-{number}", draw.random(METRICS) + number / RUNS
        metrics = {f"metric_{k}": float(score) for k, score in enumerate(scores)}
        blocks = (draw.random((1, BLOCKS)) + scores[0]).tolist()
        rows.append(
            {
                "experiment": name,
                "task": "forecasting",
                "dataset": "data",
                "model": "gru",
                "unit": "km/h",
                "parameters": number,
                "fitted": "train",
                "learning_rate": 0.01,
                "best_epoch": 3,
                "train_seconds": 1.0,
                "seeds": [1],
                "metrics": metrics,
                "std": dict.fromkeys(metrics),
                "headline": ["metric_0"],
                "sort_by": "metric_0",
                "better": "lower",
                "fingerprint": SPEC["fingerprint"],
            }
        )
        paired = {
            "metric": "metric_0",
            "kind": "mean",
            "unit_of_resampling": "block",
            "count": [1] * BLOCKS,
            "sum": blocks,
        }
        details[name] = {"curves": [], "paired": paired}
    return rows, details


def compare(rows: list[dict], details: dict[str, dict]) -> str:
    """Returns the comparison of all, as the stage writes it."""
    return comparison.markdown(comparison.compare(rows, details, "model-0"))


@contextlib.contextmanager
def interface():
    """Yields a function that opens `mlflow ui` and waits for its table of runs."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", str(tracking.address())]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    experiment = mlflow.get_experiment_by_name("data").experiment_id
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            time.sleep(0.2)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1400, "height": 900})

            def look():
                page.goto("about:blank")
                page.goto(f"{address}/#/experiments/{experiment}/runs")
                for number in (RUNS - 1, RUNS - 10):
                    page.get_by_text(f"model-{number}", exact=True).first.wait_for()

            yield look
            browser.close()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def measured(name: str, allowed: float, ask) -> dict:
    """Returns a line of the table: the slowest of a few times."""
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - began)
    print(f"{name}: {max(seconds):.3f} s, at most {allowed} are allowed", flush=True)
    return {"case": name, "seconds": max(seconds), "allowed": allowed}


if __name__ == "__main__":
    main()
