"""A run is recorded whole: what went in, how it went, and how it ended."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from engram import tracking

# Said by SQLAlchemy 2.1 of MLflow 3.17's tables.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)

SPEC = {"dataset": "ring", "fingerprint": "0123456789abcdef" * 4}
LIKE = {  # how a run is opened anew
    "group": "ring",
    "params": {"args": {"units": 3}},
    "tags": {"model": "gru"},
    "spec": SPEC,
}
PARAMS = {
    "model": "gru",
    "args": {"units": 3},
    "train": {"epochs": 2, "learning_rate": [0.001, 0.003]},
    "seed": 1,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository's root whose MLflow store is made once; making it takes seconds."""
    root = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DVC_", "MLFLOW_T")):
                patch.delenv(name)
        patch.setattr(tracking.store, "ELSEWHERE", None)
        patch.setenv("DVC_ROOT", str(root))
        patch.chdir(root)
        (root / "requirements.lock").write_text("numpy==2.4.6\n")
        yield root
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def finished(root):
    """The id of a run that went well, with two epochs of curves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_STAGE", "train@toy")
        tags = {"experiment": "toy", "devices": 1}
        with tracking.run("toy seed 1", "ring", PARAMS, tags, SPEC) as (run_id, record):
            record({"loss": 0.5, "val_loss": 0.75}, 1)
            record({"loss": 0.25, "val_loss": 0.5}, 2)
    return run_id


def _run(run_id):
    return mlflow.get_run(run_id)


def _curve(run_id, key):
    points = mlflow.MlflowClient().get_metric_history(run_id, key)
    return [(point.step, point.value) for point in points]


def _artifacts(root, run_id):
    folder = Path(_run(run_id).info.artifact_uri.removeprefix("file://"))
    assert folder.is_relative_to(root / "mlruns")
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def test_a_run_that_ends_is_finished_under_its_name(root, finished):
    info = _run(finished).info
    assert (info.status, info.run_name) == ("FINISHED", "toy seed 1")
    assert mlflow.get_experiment(info.experiment_id).name == "ring"


def test_params_are_flat_with_dotted_names(root, finished):
    assert _run(finished).data.params == {
        "model": "gru",
        "args.units": "3",
        "train.epochs": "2",
        "train.learning_rate": "[0.001, 0.003]",
        "seed": "1",
    }


def test_tags_tell_code_stage_suite_and_experiment(root, finished):
    tags = _run(finished).data.tags
    assert tags["experiment"] == "toy"
    assert tags["devices"] == "1"
    assert tags["git.commit"] == "none"  # the temporary root is no git repository
    assert tags["git.dirty"] == "no"
    assert tags["dvc.stage"] == "train@toy"
    assert tags["dvc.experiment"] == "none"
    assert tags["suite"] == "tour"


def test_the_commit_and_the_changed_files_are_those_of_the_root(root, monkeypatch):
    state = {"commit": "c0ffee", "dirty": "params.yaml"}
    monkeypatch.setattr(tracking.repository, "git_state", lambda: state)
    with tracking.run("state", "ring", {}, {}, SPEC) as (run_id, _):
        pass
    tags = _run(run_id).data.tags
    assert (tags["git.commit"], tags["git.dirty"]) == ("c0ffee", "params.yaml")


@pytest.mark.parametrize(
    ("folder", "suite"), [("studies/traffic", "studies/traffic"), ("..", ".")]
)
def test_the_suite_is_the_folder_below_the_root(root, monkeypatch, folder, suite):
    (root / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(root / folder)
    with tracking.run("suite", "ring", {}, {}, SPEC) as (run_id, _):
        pass
    expected = "tour" if suite == "." else suite
    assert _run(run_id).data.tags["suite"] == expected


def test_the_dataset_is_recorded_with_its_digest(root, finished):
    (used,) = _run(finished).inputs.dataset_inputs
    assert used.dataset.name == "ring"
    assert used.dataset.digest == SPEC["fingerprint"][:36]
    assert {tag.key: tag.value for tag in used.tags} == {
        "mlflow.data.context": "training"
    }


def test_the_environment_is_an_artifact(root, finished):
    environment = json.loads(_artifacts(root, finished)["environment.json"].read_text())
    assert environment["python"] == sys.version
    assert environment["cores"] == os.cpu_count()
    assert environment["packages"]["mlflow"] == mlflow.__version__
    assert {"keras", "tensorflow", "numpy"} <= set(environment["packages"])
    lock = (root / "requirements.lock").read_bytes()
    assert environment["requirements.lock"] == hashlib.sha256(lock).hexdigest()


def test_curves_have_a_point_for_each_step(root, finished):
    assert _curve(finished, "loss") == [(1, 0.5), (2, 0.25)]
    assert _curve(finished, "val_loss") == [(1, 0.75), (2, 0.5)]


@pytest.mark.filterwarnings("ignore:For backward compatibility")  # MLflow asks pandas
def test_samples_of_all_steps_make_one_table(root):
    with tracking.run("toy seed 2", "ring", PARAMS, {}, SPEC) as (run_id, record):
        record({"loss": 0.5}, 1, {"source": ["a", "b"], "told": ["x", ""]})
        record({"loss": 0.4}, 2, {"source": ["a", "b"], "told": ["x", "y"]})
    found = json.loads(_artifacts(root, run_id)["samples.json"].read_text())
    assert found["columns"] == ["epoch", "source", "told"]
    assert found["data"] == [[1, "a", "x"], [1, "b", ""], [2, "a", "x"], [2, "b", "y"]]


def _said(root, run_id):
    return _artifacts(root, run_id)["log.txt"].read_text()


@pytest.mark.filterwarnings("ignore:For backward compatibility")  # MLflow asks pandas
@pytest.mark.parametrize("end", [SystemExit(143), ValueError("full")])
def test_a_run_that_was_stopped_goes_on_as_one(root, end, tmp_path):
    table, kept = {"source": ["a"], "told": ["x"]}, tmp_path / "fit" / "run"
    how = "ring", PARAMS, {}, SPEC, kept
    with pytest.raises(type(end)), tracking.run("stopped", *how) as (was, record):
        assert kept.read_text() == was
        record({"loss": 0.5}, 1, table)
        record({"loss": 0.4, "val_loss": 0.6}, 2, table)
        print("epoch 2")
        raise end
    asked = isinstance(end, SystemExit)
    assert _run(was).info.status == ("KILLED" if asked else "FAILED")
    assert ("Traceback" in _said(root, was)) != asked
    before = _run(was)
    with tracking.run("stopped", *how) as (run_id, record):
        assert _run(was).info.status == "RUNNING"
        record({"loss": 0.4, "val_loss": 0.6}, 2, {"source": ["a"], "told": ["y"]})
        record({"loss": 0.3, "val_loss": 0.5}, 3, table)
        print("epoch 3")
    assert run_id == was
    after = _run(was)
    assert after.info.status == "FINISHED"
    assert after.data.params == before.data.params
    assert len(after.inputs.dataset_inputs) == 1
    assert _curve(was, "loss") == [(1, 0.5), (2, 0.4), (3, 0.3)]
    assert _curve(was, "val_loss") == [(2, 0.6), (3, 0.5)]
    found = json.loads(_artifacts(root, was)["samples.json"].read_text())
    assert [row[0] for row in found["data"]] == [1, 2, 3]
    said = _said(root, was)
    assert said.index("epoch 2") < said.index("epoch 3")


def test_a_run_that_was_killed_twice_keeps_all_that_it_said(root, tmp_path):
    code = (
        "import os; from pathlib import Path; from engram import tracking\n"
        "spec = {'dataset': 'ring', 'fingerprint': 'f'}\n"
        "with tracking.run('dies', 'ring', {}, {}, spec, Path(%r)) as (run_id, record):\n"
        "    print(%r, flush=True); os.kill(os.getpid(), 9)\n"
    )
    kept = tmp_path / "run"
    env = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    for word in ("first", "second"):
        command = [sys.executable, "-c", code % (str(kept), word)]
        done = subprocess.run(command, cwd=root, env=env)
        assert done.returncode == -9
    with tracking.run("dies", "ring", {}, {}, SPEC, kept) as (run_id, _):
        print("third")
    said = _said(root, run_id)
    places = [said.find(word) for word in ("first", "second", "third")]
    assert -1 not in places and places == sorted(places), said
    assert said.count("Its process was killed.") == 2
    assert _run(run_id).info.status == "FINISHED"


def test_a_run_that_the_store_lost_begins_anew(root, tmp_path):
    kept = tmp_path / "run"
    kept.write_text("0" * 32)
    with tracking.run("lost", "ring", PARAMS, {}, SPEC, kept) as (run_id, record):
        record({"loss": 0.5}, 1)
    assert kept.read_text() == run_id and _run(run_id).info.status == "FINISHED"


def test_system_metrics_are_recorded_while_a_run_is_open(root, monkeypatch):
    asked = []
    start = mlflow.start_run

    def spy(**arguments):
        asked.append(arguments)
        return start(**arguments)

    monkeypatch.setattr(mlflow, "start_run", spy)
    monkeypatch.setattr(tracking, "SECONDS_BETWEEN_SYSTEM_METRICS", 0.1)
    with tracking.run("watched", "ring", {}, {}, SPEC) as (run_id, _):
        time.sleep(1)
    assert asked[0]["log_system_metrics"] is True
    metrics = _run(run_id).data.metrics
    assert metrics["system/cpu_utilization_percentage"] >= 0
    assert metrics["system/system_memory_usage_megabytes"] > 0


def test_the_watching_of_the_system_says_nothing(root):
    code = (
        "from engram import tracking\n"
        "spec = {'dataset': 'ring', 'fingerprint': 'f'}\n"
        "with tracking.run('quiet', 'ring', {}, {}, spec): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "system_metrics" not in done.stderr


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_marks_the_run_failed_and_goes_on_its_way(root, error):
    with (
        pytest.raises(error, match="on purpose"),
        tracking.run("broken", "ring", {}, {}, SPEC) as (run_id, record),
    ):
        record({"loss": 1.0}, 1)
        raise error("on purpose")
    assert _run(run_id).info.status == "FAILED"
    assert _curve(run_id, "loss") == [(1, 1.0)]
    assert mlflow.active_run() is None


def test_a_resumed_run_is_the_same_run(root, finished):
    before = _run(finished)
    with tracking.resumed(finished, name="another name", **LIKE) as run_id:
        tracking.log_results({"rmse_to_60": 4.5})
    after = _run(finished)
    assert run_id == finished
    assert after.data.metrics["rmse_to_60"] == 4.5
    assert after.data.tags["git.commit"] == before.data.tags["git.commit"]
    assert (after.info.status, after.info.run_name) == ("FINISHED", "toy seed 1")
    assert _curve(finished, "loss") == [(1, 0.5), (2, 0.25)]
    assert after.data.params == before.data.params


def test_a_resumed_run_tells_which_code_measured_it(root, finished, monkeypatch):
    state = {"commit": "e" * 40, "dirty": "False"}
    monkeypatch.setattr(tracking.repository, "git_state", lambda: state)
    monkeypatch.setenv("DVC_STAGE", "evaluate@toy")
    with tracking.resumed(finished, name="", **LIKE):
        pass
    tags = _run(finished).data.tags
    assert tags["evaluate.git.commit"] == "e" * 40 != tags["git.commit"]
    assert tags["evaluate.dvc.stage"] == "evaluate@toy" != tags["dvc.stage"]


def test_a_run_that_the_store_does_not_know_is_opened_anew(root):
    unknown = "f" * 32
    with tracking.resumed(unknown, name="toy seed 9", **LIKE) as run_id:
        tracking.log_results({"rmse_to_60": 4.5})
    assert run_id != unknown
    new = _run(run_id)
    assert (new.info.status, new.info.run_name) == ("FINISHED", "toy seed 9")
    assert new.data.tags["continues"] == unknown
    assert new.data.tags["suite"] == "tour"
    assert new.data.tags["model"] == "gru"  # as the README searches for it
    assert new.data.params == {"args.units": "3"}
    assert new.inputs.dataset_inputs[0].dataset.digest == SPEC["fingerprint"][:36]
    assert "environment.json" in _artifacts(root, run_id)


def test_a_run_deleted_in_the_browser_is_opened_anew(root):
    with tracking.run("deleted", "ring", {}, {}, SPEC) as (old, _):
        pass
    mlflow.delete_run(old)
    with tracking.resumed(old, name="toy seed 1", **LIKE) as run_id:
        pass
    assert run_id != old


def test_files_become_artifacts_under_mlruns(root, finished, tmp_path):
    file = tmp_path / "forecast.png"
    file.write_bytes(b"\x89PNG")
    with tracking.resumed(finished, name="", **LIKE):
        tracking.log_files([file], "figures")
    found = _artifacts(root, finished)["figures/forecast.png"]
    assert found.read_bytes() == b"\x89PNG"
    assert found.is_relative_to(root / "mlruns" / "ring")


def test_what_is_printed_inside_is_kept_as_the_log(root, capsys):
    with tracking.run("talk", "ring", {}, {}, SPEC) as (run_id, _):
        print("one")
        print("two", file=sys.stderr)
    assert _artifacts(root, run_id)["log.txt"].read_text() == "one\ntwo\n"
    said = capsys.readouterr()
    assert (said.out, said.err) == ("one\n", "two\n")


def test_the_log_of_a_failure_ends_with_its_traceback(root):
    with pytest.raises(ValueError, match="too large"):
        with tracking.run("fail", "ring", {}, {}, SPEC) as (run_id, _):
            raise ValueError("too large")
    lines = _artifacts(root, run_id)["log.txt"].read_text().splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "ValueError: too large"


def test_a_group_with_a_slash_stays_below_mlruns(root):
    with tracking.run("slash", "real/los", {}, {}, SPEC) as (run_id, _):
        pass
    artifacts = _artifacts(root, run_id)
    assert artifacts["environment.json"].is_relative_to(root / "mlruns" / "real-los")


def test_the_store_is_one_database_under_the_root(root, finished):
    database = root / "mlruns" / "mlflow.db"
    rows = sqlite3.connect(database).execute(
        "select name from runs where run_uuid = ?", (finished,)
    )
    assert rows.fetchall() == [("toy seed 1",)]
    stray = [p for p in root.iterdir() if p.name.startswith("mlflow")]
    assert not stray


def test_artifacts_open_after_the_folder_was_moved(root, finished, tmp_path):
    (tmp_path / "moved").mkdir()
    place = tmp_path / "moved" / "mlruns"
    shutil.copytree(root / "mlruns", place)
    code = (
        "import sys, mlflow\n"
        "from engram import tracking\n"
        "with tracking.resumed(sys.argv[1], '', 'ring', {}, {}, {}) as run_id:\n"
        "    print(mlflow.get_run(run_id).info.artifact_uri)\n"
        "    mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=sys.argv[2])\n"
    )
    env = {**os.environ, "DVC_ROOT": str(place.parent)}
    env.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it for children
    done = subprocess.run(
        [sys.executable, "-c", code, finished, tmp_path / "opened"],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    address = done.stdout.strip().removeprefix("file://")
    assert Path(address).is_relative_to(place)
    assert "packages" in (tmp_path / "opened" / "environment.json").read_text()


def test_a_tracking_uri_of_ones_own_is_used_instead(root, finished, tmp_path):
    code = (
        "from engram import tracking\n"
        "spec = {'dataset': 'ring', 'fingerprint': 'f'}\n"
        "with tracking.run('own', 'ring', {}, {}, spec) as (run_id, _): print(run_id)\n"
    )
    own = tmp_path / "own.db"
    own.write_bytes((root / "mlruns" / "mlflow.db").read_bytes())
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{own}"}
    env["DVC_ROOT"] = str(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    query = "select run_uuid from runs where name = 'own'"
    assert sqlite3.connect(own).execute(query).fetchall() == [(done.stdout.strip(),)]
    left = (tmp_path / "elsewhere").rglob("*")
    assert {path.name for path in left if path.is_file()} <= {"open.lock"}


OPENS = "from engram import tracking; tracking.open_store('ring'); print('open')"


def opening(folder):
    env = {name: value for name, value in os.environ.items() if "MLFLOW_T" not in name}
    env |= {"DVC_ROOT": str(folder)}
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-c", OPENS], cwd=folder, env=env, **said)


def test_processes_that_open_a_new_store_at_once_wait_for_each_other(tmp_path):
    """MLflow makes its tables one by one, and the second process found half of them."""
    several = [opening(tmp_path) for _ in range(3)]
    for said, code in [(one.communicate()[0], one.returncode) for one in several]:
        assert code == 0 and said.endswith("open\n"), said


def test_a_store_whose_making_was_killed_is_made_anew(tmp_path):
    killed = opening(tmp_path)
    while killed.poll() is None:  # some of its tables are there
        if any(file.stat().st_size for file in tmp_path.glob("mlruns/*.db")):
            break
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    again = opening(tmp_path)
    said, _ = again.communicate()
    assert again.returncode == 0 and said.endswith("open\n"), said


DIES = """
import os, signal, sys
from engram import tracking

spec = {"dataset": "ring", "fingerprint": "0" * 64}
with tracking.run("dies", "ring", {}, {}, spec) as (run_id, record):
    record({"loss": 1.0}, 1)
    print("one\\ntwo")
    sys.__stdout__.write(run_id)
    sys.__stdout__.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(root, code):
    """Runs a process that kills itself in a run; returns the run's id, which it said."""
    env = {name: value for name, value in os.environ.items() if "MLFLOW_T" not in name}
    how = {"cwd": root, "env": env, "text": True, "capture_output": True}
    died = subprocess.run([sys.executable, "-c", code], **how)
    assert died.returncode == -signal.SIGKILL, died.stderr
    return died.stdout[-32:]


def test_a_run_whose_process_was_killed_is_ended_and_has_its_log(root):
    run_id = killed(root, DIES)
    tracking.open_store()
    assert _run(run_id).info.status == "RUNNING"
    with tracking.run("next", "ring", {}, {}, SPEC) as (alive, _):
        ended = _run(run_id)
        assert ended.info.status == "KILLED" and ended.data.metrics["loss"] == 1.0
        assert ended.info.start_time <= ended.info.end_time <= time.time() * 1000
        log = _artifacts(root, run_id)["log.txt"].read_text()
        assert log == "one\ntwo\nIts process was killed.\n"
        assert tracking.delivery.bury() == []  # the one that is open is alive
        assert _run(alive).info.status == "RUNNING"
    assert _run(alive).info.status == "FINISHED"


def test_a_run_that_failed_is_not_told_as_killed(root):
    with (
        pytest.raises(ValueError, match="by itself"),
        tracking.run("fails", "ring", {}, {}, SPEC) as (run_id, _),
    ):
        raise ValueError("by itself")
    log = _artifacts(root, run_id)["log.txt"].read_text()
    assert tracking.delivery.bury() == []
    assert _run(run_id).info.status == "FAILED"
    assert _artifacts(root, run_id)["log.txt"].read_text() == log
    assert not [*(root / "mlruns/open").rglob("*.log")]


def test_a_run_that_is_killed_in_its_evaluation_keeps_the_log_of_its_training(root):
    with tracking.run("trained", "ring", {}, {}, SPEC) as (run_id, _):
        print("well")
    again = DIES.replace(
        'with tracking.run("dies", "ring", {}, {}, spec) as (run_id, record):',
        f"with tracking.resumed({run_id!r}, 'x', 'ring', {{}}, {{}}, spec) as run_id:",
    ).replace("record({", "dict({")
    assert killed(root, again.replace("}, 1)", "})")) == run_id
    assert tracking.delivery.bury() == [run_id]
    assert _run(run_id).info.status == "KILLED"
    files = _artifacts(root, run_id)
    assert files["log.txt"].read_text() == "well\n"
    said = files["evaluate.log.txt"].read_text()
    assert said == "Its process was killed while it was evaluated.\n"


def test_a_killed_run_that_was_deleted_since_is_in_nobodys_way(root, capsys):
    run_id = killed(root, DIES)
    mlflow.MlflowClient(tracking.store.address()).delete_run(run_id)
    with tracking.run("next", "ring", {}, {}, SPEC):
        pass
    assert f"run {run_id} was killed and cannot be ended" in capsys.readouterr().out
    assert tracking.delivery.bury() == []


def test_of_a_line_that_is_drawn_over_the_log_has_the_last_state(root):
    with tracking.run("bar", "ring", {}, {}, SPEC) as (run_id, _):
        print("1/3\r2/3\r3/3\nover")
    assert _artifacts(root, run_id)["log.txt"].read_text() == "3/3\nover\n"
