"""What a person sees: the runs in MLflow's interface, and the report, with no network."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from engram import comparison, report

CHROMIUM = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not shutil.which(CHROMIUM),
        reason=f"no Chromium at {CHROMIUM}: install it, or name it in $CHROMIUM",
    ),
]
RUNS = ("toy-gru seed 1", "toy-stlm seed 1")
FILL = """
from pathlib import Path
from engram import tracking
spec = {"dataset": "toy_road", "fingerprint": "0123456789abcdef" * 4}
for model in ("gru", "stlm"):
    params = {"model": model, "args": {"units": 3}}
    with tracking.run(
        f"toy-{model} seed 1", "toy_road", params, {"experiment": f"toy-{model}"}, spec
    ) as (run_id, record):
        for epoch in range(1, 6):
            record({"loss": 1 / epoch, "val_loss": 1.2 / epoch}, epoch)
        tracking.log_files([Path("forecast.png")], "figures")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two runs, filled by engram.tracking in a process of its own."""
    root = tmp_path_factory.mktemp("store")
    _write_png(root / "forecast.png")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
    env = {**kept, "DVC_ROOT": str(root), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", FILL], cwd=root, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return root, env


def _write_png(path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([1, 2, 3], [3, 1, 2])
    figure.savefig(path, dpi=100)


@pytest.fixture(scope="module")
def interface(store):
    """The address and the process of `mlflow ui`."""
    root, env = store
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/mlruns/mlflow.db"]
    env = {**env, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=root, env=env, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{address}/health", server, root / "log")
        yield address, psutil.Process(server.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait(url, server, log, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.3)
    raise TimeoutError(f"{url} did not answer. {log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that notes its requests, and its console's errors."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.requested, page.errors = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on(
        "console",
        lambda line: line.type == "error" and page.errors.append(line.text),
    )
    yield page
    context.close()


def _picture(page, name):
    if folder := os.environ.get("ENGRAM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder, f"{name}.png"))


def _ids(root):
    """The experiment's id and the runs' ids by name."""
    database = sqlite3.connect(root / "mlruns/mlflow.db")
    rows = database.execute("select name, run_uuid, experiment_id from runs").fetchall()
    assert {name for name, _, _ in rows} == set(RUNS)
    return rows[0][2], {name: run_id for name, run_id, _ in rows}


def _stays_here(page, address):
    """Every request went to the server at `address`, or nowhere (data:, blob:)."""
    hosts = {urlsplit(url).netloc for url in page.requested}
    return hosts <= {urlsplit(address).netloc, ""}


def test_the_server_listens_on_loopback_alone(interface):
    _, server = interface
    processes = [server, *server.children(recursive=True)]
    bound = [c for p in processes for c in p.net_connections("inet") if not c.raddr]
    assert bound
    assert {connection.laddr.ip for connection in bound} == {"127.0.0.1"}


def test_the_experiment_is_listed_by_its_name(interface, page):
    address, _ = interface
    page.goto(f"{address}/#/experiments")
    page.get_by_role("link", name="toy_road").first.wait_for()
    _picture(page, "experiments")
    assert _stays_here(page, address)


def test_the_runs_are_listed_by_their_names(store, interface, page):
    address, _ = interface
    experiment, _ = _ids(store[0])
    page.goto(f"{address}/#/experiments/{experiment}/runs")
    for name in RUNS:
        page.get_by_text(name, exact=True).first.wait_for()
    assert page.get_by_text("toy_road").first.is_visible()
    _picture(page, "runs")
    assert _stays_here(page, address)


def test_a_run_shows_its_curves(store, interface, page):
    address, _ = interface
    experiment, runs = _ids(store[0])
    page.goto(f"{address}/#/experiments/{experiment}/runs/{runs[RUNS[0]]}/model-metrics")
    for metric in ("loss", "val_loss"):
        page.get_by_text(metric, exact=True).first.wait_for()
    line = page.locator(".js-plotly-plot .scatterlayer path.js-line").first
    line.wait_for(state="attached")
    assert page.locator(".js-plotly-plot").count() == 2
    # five epochs are a line with at least four strokes
    assert len(re.findall("[LHVC]", line.get_attribute("d"))) >= 4
    assert page.get_by_text(RUNS[0]).first.is_visible()
    _picture(page, "curves")
    assert _stays_here(page, address)


def test_a_run_shows_its_figure(store, interface, page):
    address, _ = interface
    experiment, runs = _ids(store[0])
    place = f"{address}/#/experiments/{experiment}/runs/{runs[RUNS[1]]}"
    page.goto(f"{place}/artifacts/figures/forecast.png")
    page.get_by_text("forecast.png").first.wait_for()
    page.wait_for_function(
        "[...document.images].some(i => i.naturalWidth == 400 && i.naturalHeight == 300)"
    )
    _picture(page, "figure")
    assert _stays_here(page, address)


def _row(name, value):
    metrics = {"mae_to_60": value, "rmse_to_60": 1.3 * value}
    return {
        "experiment": name,
        "fitted": "train",
        "learning_rate": 0.01,
        "best_epoch": 8,
        "task": "forecasting",
        "dataset": "toy_road",
        "model": name.removeprefix("toy-"),
        "unit": "km/h",
        "parameters": 100,
        "train_seconds": 1.5,
        "seeds": [1],
        "metrics": metrics,
        "std": dict.fromkeys(metrics),
        "headline": ["rmse_to_60"],
        "sort_by": "rmse_to_60",
        "better": "lower",
        "fingerprint": hashlib.sha256(b"toy").hexdigest(),
    }


def _details(value):
    minutes = [15, 30, 45, 60]
    curve = {"title": "RMSE by horizon", "x_label": "minutes ahead", "y_label": "km/h"}
    paired = {"metric": "rmse_to_60", "kind": "root_mean", "unit_of_resampling": "hour"}
    sums = [value * (1 + k % 3) for k in range(24)]
    return {
        "curves": [{**curve, "x": minutes, "y": [value * m / 60 for m in minutes]}],
        "paired": {**paired, "count": [1] * 24, "sum": [sums]},
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_asks_for_nothing_but_itself(tmp_path, page, scheme):
    values = {"toy-gru": 4.0, "toy-stlm": 3.5, "toy-ridge": 5.0}
    details = {name: _details(value) for name, value in values.items()}
    compared = comparison.compare(
        [_row(name, value) for name, value in values.items()], details, "stlm"
    )
    _write_png(tmp_path / "forecast.png")
    figures = {"toy-gru": [tmp_path / "forecast.png"]}
    file = tmp_path / "report.html"
    file.write_text(report.html_report(compared, details, figures), encoding="utf-8")

    page.emulate_media(color_scheme=scheme)
    page.goto(file.as_uri())
    for name in values:
        assert page.get_by_role("rowheader", name=name).first.is_visible()
    page.locator("details", has_text="Figures of toy-gru").locator("summary").click()
    picture = page.get_by_role("img", name="toy-gru: forecast")
    assert picture.is_visible()
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [
        400,
        300,
    ]
    assert page.locator("svg polyline, svg path").count() > 3
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]  # nothing sticks out to the right
    _picture(page, f"report-{scheme}")
    asked = [url for url in page.requested if not url.startswith("data:")]
    assert asked == [file.as_uri()]
    assert page.errors == []
