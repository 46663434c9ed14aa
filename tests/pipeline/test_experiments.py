"""`dvc exp run`, queued, two at a time: every run is in the one store, failures too."""

import sqlite3
import sys
import time

import pytest
import toy

GOOD = {"three": 3, "four": 4, "five": 5}  # name of the experiment -> units


@pytest.fixture(scope="module")
def queued(tmp_path_factory):
    """A repository in which three good experiments and a bad one were run by a queue."""
    folder = tmp_path_factory.mktemp("experiments") / "repository"
    toy.copy_repository(folder)
    toy.write_params(folder, {"toy-mlp": toy.experiment("mlp")}, reference="mlp")
    toy.write_csv(folder / "wild.csv", last_line="1e30,1e30,1e30,1e30")
    (folder / "requirements.lock").write_text("numpy==2.4.6\n")
    (folder / "mlruns").mkdir()
    (folder / "mlruns/.gitignore").write_text("*\n!.gitignore\n")
    with toy.warm_python() as warm:
        env = toy.environment(folder, warm, HOME=folder.parent)
        (folder.parent / ".gitconfig").write_text("[user]\nname = t\nemail = t@l\n")
        env.pop("GIT_CONFIG_GLOBAL")  # DVC commits what an experiment found

        def run(*command):
            done = toy.call(command, folder, env)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        dvc = (sys.executable, "-m", "dvc")
        run("git", "init", "--quiet")
        run(*dvc, "init", "--quiet")
        (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
        run("git", "add", ".")
        run("git", "commit", "--quiet", "-m", "The toy suite")
        run(*dvc, "repro")  # also makes the store, which takes seconds
        run("git", "add", ".")
        run("git", "commit", "--quiet", "-m", "Its results")
        queue = (*dvc, "exp", "run", "--queue", "--name")
        for name, units in GOOD.items():
            run(*queue, name, "-S", f"experiments.toy-mlp.args.units={units + 10}")
        run(*queue, "wild", "-S", "datasets.toy.file=wild.csv")
        run(*dvc, "queue", "start", "-j", "2")
        end = time.monotonic() + 600
        while "Running" in (said := run(*dvc, "queue", "status")) or "Queued" in said:
            assert time.monotonic() < end, said
            time.sleep(1)
        yield folder, said
        run(*dvc, "queue", "stop", "--kill")


@pytest.fixture(scope="module")
def runs(queued):
    """Of each experiment its runs: status, and tags."""
    folder, _ = queued
    store = sqlite3.connect(folder / "mlruns/mlflow.db")
    found = {}
    for run_id, status, place in store.execute(
        "select run_uuid, status, artifact_uri from runs"
    ):
        tags = dict(
            store.execute("select key, value from tags where run_uuid = ?", (run_id,))
        )
        tags |= {"status": status, "place": place.removeprefix("file://")}
        if "train@" in tags["dvc.stage"]:
            found.setdefault(tags["dvc.experiment"], []).append(tags)
    return found


def read(run, name):
    with open(f"{run['place']}/{name}", encoding="utf-8") as file:
        return file.read()


def test_the_queue_did_what_was_asked(queued):
    _, said = queued
    assert said.count("Success") == 3 and said.count("Failed") == 1, said


def test_no_run_is_lost_and_each_names_its_experiment(runs):
    assert set(runs) == {"none", *GOOD, "wild"}
    for name in GOOD:
        (run,) = runs[name]
        assert run["status"] == "FINISHED"
        assert run["suite"] == "tour" and run["dvc.stage"].endswith("train@toy-mlp")
        assert run["evaluate.dvc.experiment"] == name  # tested, in the same run
        assert "val_loss" in read(run, "log.txt")


def test_the_params_of_an_experiment_are_attached_to_its_run(runs):
    for name, units in GOOD.items():
        (run,) = runs[name]
        assert run["git.dirty"] == "params.yaml"
        assert f"+      units: {units + 10}\n" in read(run, "code.diff")


def test_a_failure_is_kept_with_its_log(runs):
    (run,) = runs["wild"]
    assert run["status"] == "FAILED"
    assert "Diverged: the loss is" in read(run, "log.txt").splitlines()[-1]


def test_artifacts_lie_in_the_repository_and_not_in_a_clone_that_is_gone(queued, runs):
    folder, _ = queued
    for found in runs.values():
        for run in found:
            assert run["place"].startswith(str(folder / "mlruns"))
            assert read(run, "environment.json")
