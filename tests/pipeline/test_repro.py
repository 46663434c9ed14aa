"""`dvc repro` runs what a change touches, and nothing else."""

import hashlib
import json
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
import toy
import yaml

EXPERIMENTS = {
    "toy-persistence": toy.experiment("persistence"),
    "toy-gru": toy.experiment("gru"),
}
ALL = {"fetch@toy", "prepare@toy", "compare"}
ALL |= {f"{kind}@{name}" for kind in ("train", "evaluate") for name in EXPERIMENTS}
OF_GRU = {"train@toy-gru", "evaluate@toy-gru", "compare"}


@pytest.fixture(scope="module")
def warm():
    with toy.warm_python() as folder:
        yield folder


def _dvc(folder, *arguments, warm=None, **more):
    command = [sys.executable, "-m", "dvc", *arguments]
    return toy.call(command, folder, toy.environment(folder, warm, **more))


def _git(folder, *arguments):
    name = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = toy.call(["git", *name, *arguments], folder, toy.environment(folder))
    assert done.returncode == 0, done.stderr


def _ran(done):
    return set(re.findall(r"^Running stage '(.+?)':", done.stdout, re.MULTILINE))


def _digests(folder, *names):
    files = [p for name in names for p in (folder / name).rglob("*") if p.is_file()]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def first(tmp_path_factory, warm):
    """A git and DVC repository in which everything has run once."""
    folder = tmp_path_factory.mktemp("repro") / "repository"
    toy.copy_repository(folder)
    toy.write_params(folder, EXPERIMENTS)
    _git(folder, "init", "--quiet")
    done = _dvc(folder, "init", "--quiet")
    assert done.returncode == 0, done.stderr
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    shutil.copytree(toy.ROOT / ".dvc/plots", folder / ".dvc/plots")
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "-m", "The toy suite")
    return folder, _dvc(folder, "repro", warm=warm)


@pytest.fixture
def again(first, tmp_path):
    """A copy of that repository, to change."""
    folder, done = first
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(shutil.copytree(folder, tmp_path / "repository", symlinks=True))


def _change(folder, change):
    values = yaml.safe_load((folder / "params.yaml").read_text())
    change(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def test_the_first_repro_runs_every_stage(first):
    folder, done = first
    assert done.returncode == 0, done.stdout + done.stderr
    assert _ran(done) == ALL
    assert (folder / "results/report.html").is_file()


def test_every_run_tells_its_stage_and_its_commit(first):
    folder, _ = first
    query = (
        "select r.name, r.status, t.key, t.value from runs r join tags t using (run_uuid)"
    )
    rows = sqlite3.connect(folder / "mlruns/mlflow.db").execute(query).fetchall()
    commit = toy.call(["git", "rev-parse", "HEAD"], folder, toy.environment(folder))
    tags = {}
    for name, status, key, value in rows:
        assert status == "FINISHED"
        tags.setdefault(name.split()[0], {})[key] = value
    stages = {name: f"train@{name}" for name in EXPERIMENTS}  # which evaluate continues
    stages["comparison"] = "compare"
    assert set(tags) == set(stages)
    for name, found in tags.items():
        assert found["git.commit"] == commit.stdout.strip()
        assert found["git.dirty"] == "no"
        assert found["suite"] == "tour"
        assert found["dvc.stage"].endswith(stages[name])


def test_mlflow_has_the_report(first):
    folder, _ = first
    store = sqlite3.connect(folder / "mlruns/mlflow.db")
    query = "select artifact_uri from runs where name = 'comparison of tour'"
    ((place,),) = store.execute(query).fetchall()
    kept = Path(place.removeprefix("file://"), "report.html")
    assert kept.read_bytes() == (folder / "results/report.html").read_bytes()


def test_dvc_tells_metrics_and_plots_of_two_revisions_apart(again, warm):
    def change(values):
        values["experiments"]["toy-gru"]["args"]["units"] = 4

    _git(again, "add", ".")
    _git(again, "commit", "--quiet", "-m", "The results")
    before = json.loads((again / "results/metrics.json").read_text())["toy-gru"]
    _change(again, change)
    assert _dvc(again, "repro", warm=warm).returncode == 0
    after = json.loads((again / "results/metrics.json").read_text())["toy-gru"]
    done = _dvc(again, "metrics", "diff", "--json", "--precision", "12")
    found = json.loads(done.stdout)["results/metrics.json"]
    changed = [key for key in after if after[key] != before[key] and key != "cost"]
    told = {key for key in found if not key.startswith("toy-gru.cost.")}
    assert told == {f"toy-gru.{key}" for key in changed} and changed
    size = found["toy-gru.cost.parameters"]
    assert (size["old"], size["new"]) == tuple(
        one["cost"]["parameters"] for one in (before, after)
    )
    for key in changed:
        told = found[f"toy-gru.{key}"]
        assert told["old"] == pytest.approx(before[key], abs=1e-9)
        assert told["new"] == pytest.approx(after[key], abs=1e-9)
    done = _dvc(again, "plots", "diff", "HEAD", "--json", "--split")
    assert done.returncode == 0, done.stderr
    plots = json.loads(done.stdout)["data"]
    assert set(plots) == {"results/curves.csv", "results/summary.json"}
    for drawn in plots.values():
        (one,) = drawn
        assert set(one["revisions"]) == {"HEAD", "workspace"}
        assert one["content"]["columns"] == 2  # our template
        points = one["anchor_definitions"]["<DVC_METRIC_DATA>"]
        assert {point["rev"] for point in points} == {"HEAD", "workspace"}


def test_failed_runs_stand_in_the_report_of_the_next_comparison(again, warm):
    toy.write_csv(again / "wild.csv", last_line="1e30,1e30,1e30,1e30")

    def wild(values):
        values["datasets"]["toy"]["file"] = "wild.csv"

    assert "Failed or missing" not in (again / "results/report.html").read_text()
    _change(again, wild)
    assert _dvc(again, "repro", "train@toy-gru", warm=warm).returncode != 0
    done = _dvc(again, "repro", "--force", "--single-item", "compare", warm=warm)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (again / "results/report.html").read_text()
    failed = page.split("Failed or missing</h2>")[1]
    assert failed.count("<tr>") == 2 and "toy-gru seed" in failed  # header and run
    assert "Diverged: the loss is" in failed


def test_a_store_that_does_not_answer_costs_no_comparison(again):
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    before = (again / "results/comparison.json").read_bytes()
    done = _dvc(again, "repro", "--force", "--single-item", "compare", **nobody)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (again / "results/comparison.json").read_bytes() == before
    page = (again / "results/report.html").read_text()
    assert "The store of runs does not answer" in page


def test_a_second_repro_runs_no_stage(again):
    done = _dvc(again, "repro")  # a plain python: nothing may need it
    assert done.returncode == 0, done.stderr
    assert _ran(done) == set()
    assert "Data and pipelines are up to date." in done.stdout + done.stderr


def test_another_size_of_one_model_reruns_that_experiment(again, warm):
    others = _digests(again, "runs/toy-persistence", "figures/toy-persistence")
    before = _digests(again, "runs/toy-gru")

    def change(values):
        values["experiments"]["toy-gru"]["args"]["units"] = 4

    _change(again, change)
    done = _dvc(again, "repro", warm=warm)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _ran(done) == OF_GRU
    assert _digests(again, "runs/toy-persistence", "figures/toy-persistence") == others
    assert _digests(again, "runs/toy-gru") != before


def test_an_edited_model_reruns_the_experiments_of_that_model(again, warm):
    file = again / "src/engram/models/gru.py"
    file.write_text(file.read_text() + "# a comment\n")
    done = _dvc(again, "repro", warm=warm)
    assert done.returncode == 0, done.stdout + done.stderr
    assert OF_GRU - {"compare"} <= _ran(done) <= OF_GRU


def test_an_edited_exempt_module_reruns_nothing(again):
    for name in (
        "params.py",
        "param_forms/blocks.py",
        "tracking.py",
        "models/__init__.py",
    ):
        file = again / "src/engram" / name
        file.write_text(file.read_text() + "# a comment\n")
    done = _dvc(again, "repro")
    assert done.returncode == 0, done.stderr
    assert _ran(done) == set()


def test_an_experiment_that_params_no_longer_name_leaves_the_comparison(again):
    _change(again, lambda values: values["experiments"].pop("toy-gru"))
    done = _dvc(again, "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert _ran(done) == {"compare"}
    assert (again / "metrics/toy-gru.json").is_file()  # still there, and not read
    for name in ("comparison.json", "comparison.md", "report.html"):
        text = (again / "results" / name).read_text()
        assert "toy-gru" not in text and "toy-persistence" in text


def test_a_misspelt_key_stops_repro_before_tensorflow(again):
    results = _digests(again, "runs", "metrics", "results")

    def change(values):
        arguments = values["experiments"]["toy-gru"]["args"]
        arguments["unit"] = arguments.pop("units")

    _change(again, change)
    # Python then writes each import to stderr, of DVC and of the stage.
    done = _dvc(again, "repro", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode != 0
    message = (
        "params.yaml: experiments.toy-gru.args: unknown 'unit'. Did you mean 'units'?"
    )
    assert message in done.stderr
    assert _ran(done) == {"train@toy-gru"}
    imported = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
    assert "engram.params" in imported
    assert not {"tensorflow", "keras", "mlflow"} & set(imported)
    kept = {k: v for k, v in results.items() if "/runs/toy-gru/" not in k}
    now = _digests(again, "runs", "metrics", "results")
    assert {k: v for k, v in now.items() if "/runs/toy-gru/" not in k} == kept


def test_a_training_that_diverges_fails_alone(again, warm):
    results = _digests(again, "runs", "metrics", "figures", "results")
    # finite in float32, but its square, the loss of a validation window, is not
    toy.write_csv(again / "wild.csv", last_line="1e30,1e30,1e30,1e30")

    def change(values):
        values["datasets"]["wild"] = toy.dataset("wild.csv")
        block = toy.experiment("mlp", dataset="wild")
        values["experiments"]["wild-mlp"] = yaml.safe_load(yaml.safe_dump(block))

    _change(again, change)
    done = _dvc(again, "repro", warm=warm)
    assert done.returncode != 0
    assert _ran(done) == {"fetch@wild", "prepare@wild", "train@wild-mlp"}
    assert "train wild-mlp: the loss is inf" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((again / "runs").glob("wild-mlp/*"))
    assert _digests(again, "runs", "metrics", "figures", "results") == results
    query = "select name, status from runs"
    status = dict(sqlite3.connect(again / "mlruns/mlflow.db").execute(query).fetchall())
    wild = {name: s for name, s in status.items() if name.startswith("wild-mlp")}
    assert list(wild.values()) == ["FAILED"]
    assert {s for name, s in status.items() if name not in wild} == {"FINISHED"}
