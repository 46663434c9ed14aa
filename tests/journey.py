"""A walk with a suite that has run: promoted, moved, cloned, an old commit, and back.

    python tests/journey.py FOLDER EXPERIMENT PICTURES

FOLDER is a clone of this repository in which `make repro` was run; it is moved, and
EXPERIMENT of it trained with another learning rate on the way. At each station every
link of every model has to hold, every artifact of every run to open, and in Chromium one
figure of each run to be seen. Screenshots go to PICTURES. Not a test: after a tour it
takes about a quarter of an hour.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import servers
import yaml

SUITE = "dvc.yaml"  # of the tour: studies are not here, unless they were run
CHROMIUM = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
LINKS = """
import contextlib, io, json, sys
from engram import lineage
wrong = {}
for what in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try: lineage.main([what])
        except SystemExit as end: code = end.code
    lines = said.getvalue().splitlines()
    if code: wrong[what] = [n for n in lines if "✗" in n] or str(code)
print(json.dumps(wrong))
"""
DRAWN = """
([width, height]) => [...document.images].some(
    i => i.complete && i.naturalWidth == width && i.naturalHeight == height)
"""
ARTIFACTS = """
import json
from pathlib import Path
import mlflow
from PIL import Image
from engram import tracking
tracking.open_store()
client, found = mlflow.MlflowClient(), []
def opened(run, at=None):
    n = 0
    for one in client.list_artifacts(run, at):
        if one.is_dir: n += opened(run, one.path)
        else:
            local = mlflow.artifacts.download_artifacts(f"runs:/{run}/{one.path}")
            assert Path(local).stat().st_size == one.file_size
            n += 1
    return n
for run in mlflow.search_runs(search_all_experiments=True, output_format="list"):
    figures = [f.path for f in client.list_artifacts(run.info.run_id, "figures")]
    figure = next((f for f in figures if f.endswith(".png")), None)
    size = None
    if figure:
        uri = f"runs:/{run.info.run_id}/{figure}"
        size = Image.open(mlflow.artifacts.download_artifacts(uri)).size
    about = run.info.experiment_id, run.info.run_id, figure, size
    found.append([*about, opened(run.info.run_id)])
models = mlflow.search_registered_models()
names = [[f"models:/{m.name}/{v.version}", v.run_id] for m in models
         for v in client.search_model_versions(f"name='{m.name}'")]
print(json.dumps([found, names]))
"""


def main(folder: str, experiment: str, pictures: str) -> None:
    """Walks through all stations and prints what was verified at each."""
    here, shots = Path(folder).resolve(), Path(pictures).resolve()
    shots.mkdir(parents=True, exist_ok=True)
    suite = yaml.safe_load((here / "params.yaml").read_text())
    for name in suite["experiments"]:
        run(here, "engram", "promote", name)
    run(here, "git", "checkout", "--quiet", "-B", "journey")
    commit(here, "Results")
    station("as it ran", here, shots)

    moved = here.with_name(f"{here.name}-moved")
    shutil.move(here, moved)
    station("moved", moved, shots)

    remote = moved.with_name(f"{here.name}-remote")
    run(moved, "dvc", "remote", "add", "--local", "--force", "-d", "there", str(remote))
    run(moved, "dvc", "push", "--quiet", SUITE)
    clone = moved.with_name(f"{here.name}-clone")
    run(moved.parent, "git", "clone", "--quiet", str(moved), str(clone))
    run(clone, "dvc", "remote", "add", "--local", "-d", "there", str(remote))
    run(clone, "dvc", "pull", "--quiet", SUITE)
    run(clone, "engram", "sync")
    station("cloned", clone, shots)

    change(moved, experiment)
    run(moved, "dvc", "repro", "--quiet")
    run(moved, "engram", "sync")
    commit(moved, "Another rate")
    station("another rate", moved, shots)
    run(moved, "git", "checkout", "--quiet", "HEAD~1")
    run(moved, "dvc", "checkout", "--quiet", SUITE)
    run(moved, "engram", "sync")
    station("the old commit", moved, shots)
    run(moved, "git", "checkout", "--quiet", "journey")
    run(moved, "dvc", "checkout", "--quiet", SUITE)
    run(moved, "engram", "sync")
    station("and back", moved, shots)


def change(folder: Path, experiment: str) -> None:
    """Gives the experiment a tenth of its learning rate."""
    file = folder / "params.yaml"
    values = yaml.safe_load(file.read_text())
    train = values["experiments"][experiment]["train"]
    rate = train["learning_rate"]
    train["learning_rate"] = (rate[0] if isinstance(rate, list) else rate) / 10
    file.write_text(yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False))


def commit(folder: Path, words: str) -> None:
    """Commits all changes, if there are any."""
    who = ["-c", "user.name=journey", "-c", "user.email=journey@localhost"]
    run(folder, "git", "add", "--all")
    run(folder, "git", *who, "commit", "--quiet", "--allow-empty", "-m", words)


def station(name: str, folder: Path, shots: Path) -> None:
    """Verifies models, artifacts and pictures; exits with what does not hold."""
    runs, promoted = json.loads(run(folder, "python", "-c", ARTIFACTS).splitlines()[-1])
    files = sorted(folder.glob("runs/*/models/*.keras"))
    models = [str(one.relative_to(folder)) for one in files]
    kept = " ".join(one.read_text() for one in folder.glob("runs/*/run.json"))
    champions = [address for address, run_id in promoted if run_id in kept]
    said = run(folder, "python", "-c", LINKS, *models, *champions)
    wrong = json.loads(said.splitlines()[-1])
    if wrong:
        sys.exit(f"{name}: {json.dumps(wrong, indent=2, ensure_ascii=False)}")
    seen = looked_at(name, folder, [one for one in runs if one[2]], shots)
    opened = sum(one[-1] for one in runs)
    print(
        f"{name}: the links of {len(models)} models and {len(champions)} promoted ones"
        f" hold, {opened} artifacts of {len(runs)} runs open, {seen} figures seen",
        flush=True,
    )


def looked_at(name: str, folder: Path, runs: list, shots: Path) -> int:
    """Opens a figure of each run in MLflow's interface; returns how many were drawn."""
    from playwright.sync_api import TimeoutError, sync_playwright

    with interface(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        for number, (experiment, run_id, figure, size, _) in enumerate(runs):
            route = f"#/experiments/{experiment}/runs/{run_id}/artifacts/{figure}"
            page.goto("about:blank")  # a new route alone does not load another page
            page.goto(f"{address}/{route}")
            try:
                page.wait_for_function(DRAWN, arg=size)
            except TimeoutError:
                page.screenshot(path=shots / "missing.png")
                sys.exit(f"{name}: {figure} of run {run_id} is not shown")
            if number == 0:
                page.screenshot(path=shots / f"{name.replace(' ', '-')}.png")
        browser.close()
    return len(runs)


def interface(folder: Path):
    """Starts `mlflow ui` on the folder's store; yields its address."""
    store = run(folder, "python", "-m", "engram.store").splitlines()[-1]
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1"]
    command += ["--workers", "1", "--backend-store-uri", store]
    return servers.started(command, "health", folder.parent, environment(folder))


def run(folder: Path, *command: str) -> str:
    """Runs a command with the modules of `folder`; returns what it prints."""
    words = list(command)
    if words[0] in ("python", "engram", "dvc"):
        module = {"python": [], "engram": ["-m", "engram"], "dvc": ["-m", "dvc"]}
        words = [sys.executable, *module[words[0]], *words[1:]]
    done = subprocess.run(
        words, cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    if done.returncode:
        shown = re.sub(r"\S+port\.cc.*\n", "", done.stderr)[-3000:]
        sys.exit(f"{' '.join(command)[:200]}\n{done.stdout[-3000:]}{shown}")
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment in which `python` is this one, with the folder's code."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
