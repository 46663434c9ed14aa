"""A sweep survives being killed, and what it found is what `dvc repro` finds."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

import optuna
import pytest
import toy
import yaml
from optuna.trial import TrialState

from engram import search_space, sweep

TRIALS = 20
TRAINED = toy.SOLVED | {"epochs": 4, "learning_rate": 0.01, "seeds": [3]}
SPACE = ("args.units=2..6", "train.learning_rate=0.001..0.3:log")
CODE = "import sys; from engram.__main__ import main; main(sys.argv[1:])"


def command(*arguments):
    return [sys.executable, "-c", CODE, "sweep", *arguments]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "repository"
    toy.copy_repository(folder)
    experiments = {
        "toy-mlp": toy.experiment("mlp", train=TRAINED),
        "toy-gru": toy.experiment("gru"),
    }
    toy.write_params(folder, experiments, reference="mlp")
    toy.write_dvc_config(folder)
    done = toy.call(
        [sys.executable, "-m", "dvc", "repro", "-s", "fetch@toy", "prepare@toy"],
        folder,
        toy.environment(folder),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def trials(folder):
    file = folder / "mlruns/sweeps.db"
    if not file.is_file():
        return []
    found = optuna.get_all_study_summaries(f"sqlite:///{file}")
    names = [one.study_name for one in found if one.study_name.startswith("toy-mlp")]
    if not names:  # the file is there before the study
        return []
    (study,) = names
    return optuna.load_study(study_name=study, storage=f"sqlite:///{file}").get_trials()


def finished(folder):
    return sum(trial.state.is_finished() for trial in trials(folder))


@pytest.fixture(scope="module")
def swept(folder):
    """What a sweep said that was killed at some moment and then went on."""
    how = command("toy-mlp", *SPACE, "--trials", str(TRIALS), "--parallel", "2")
    env = toy.environment(folder)
    dice = random.Random()
    with (folder.parent / "said").open("w") as said:
        first = subprocess.Popen(
            how, cwd=folder, env=env, stdout=said, stderr=said, start_new_session=True
        )
    enough, end = dice.randint(1, TRIALS - 5), time.monotonic() + 300
    try:
        while finished(folder) < enough and first.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.5)
        time.sleep(dice.uniform(0, 2))
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    before = finished(folder)
    done = toy.call(how, folder, env, seconds=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return before, done.stdout


def test_it_ends_with_exactly_as_many_trials(folder, swept):
    before, said = swept
    assert before < TRIALS
    assert f"goes on: {before} of {TRIALS} trials are done" in said
    found = trials(folder)
    assert [trial.number for trial in found] == list(range(TRIALS))
    assert all(trial.state.is_finished() for trial in found)
    assert {TrialState.COMPLETE} <= {trial.state for trial in found}
    assert TrialState.FAIL not in {trial.state for trial in found}


def test_trials_are_runs_below_that_of_the_sweep(folder, swept):
    store = sqlite3.connect(folder / "mlruns/mlflow.db")
    tags = store.execute(
        "select t.run_uuid, t.value, r.status from tags t join runs r using (run_uuid)"
        " where t.key = 'mlflow.parentRunId'"
    ).fetchall()
    (parent,) = {value for _, value, _ in tags}
    query = "select name, status from runs where run_uuid = ?"
    assert store.execute(query, (parent,)).fetchall() == [
        ("sweep of toy-mlp", "FINISHED")
    ]
    status = {run_id: said for run_id, _, said in tags}
    found = trials(folder)
    for trial in found:
        expected = "FINISHED" if trial.state == TrialState.COMPLETE else "KILLED"
        assert status[trial.user_attrs["run_id"]] == expected
    assert "RUNNING" not in status.values()
    (count,) = store.execute(
        "select value from latest_metrics where run_uuid = ? and key = 'trials'",
        (parent,),
    ).fetchone()
    assert count == TRIALS


def test_the_first_trial_has_the_params_that_were_there(folder, swept):
    block = toy.experiment("mlp", train=TRAINED)
    assert trials(folder)[0].params == {
        "args.units": block["args"]["units"],
        "train.learning_rate": block["train"]["learning_rate"],
    }


def test_the_best_is_written_to_params_and_found_again_by_dvc(folder, swept):
    _, said = swept
    best = min(
        (trial for trial in trials(folder) if trial.state == TrialState.COMPLETE),
        key=lambda trial: trial.value,
    )
    block = yaml.safe_load((folder / "params.yaml").read_text())["experiments"]["toy-mlp"]
    assert block["args"]["units"] == best.params["args.units"]
    assert block["train"]["learning_rate"] == best.params["train.learning_rate"]
    assert (
        f"params.yaml: experiments.toy-mlp.args.units: {block['args']['units']}" in said
    )
    done = toy.call(
        [sys.executable, "-m", "dvc", "repro", "-s", "train@toy-mlp"],
        folder,
        toy.environment(folder),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "runs/toy-mlp/run.json").read_text())
    assert found["3"]["held_loss"] == best.value  # to the last digit

    # A sweep that finds nothing better changes nothing.
    before = (folder / "params.yaml").read_text()
    words = ("toy-mlp", "train.learning_rate=1e-7,1e-6", "--trials", "2")
    done = toy.call(command(*words), folder, toy.environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    told = f"params.yaml stays as it is: its params have val_loss {best.value}"
    assert told in done.stdout
    assert (folder / "params.yaml").read_text() == before


def test_a_trial_that_fails_does_not_end_the_sweep(folder, swept, tmp_path):
    """One rate has no luck, which no check can know before."""
    luck = tmp_path / "sitecustomize.py"
    luck.write_text(
        "import sys\n"
        "if 'engram.trials' in ' '.join(sys.orig_argv):\n"
        "    import engram.training\n"
        "    train = engram.training.train\n"
        "    def tried(build, batches, how, *more):\n"
        "        if how.rates == [0.002]:\n"
        "            raise ValueError('no luck')\n"
        "        return train(build, batches, how, *more)\n"
        "    engram.training.train = tried\n"
    )
    words = ("toy-gru", "train.learning_rate=0.001,0.002", "--trials", "8", "--keep")
    before = (folder / "params.yaml").read_text()
    env = toy.environment(folder)
    env["PYTHONPATH"] += f":{tmp_path}"
    done = toy.call(command(*words), folder, env)
    assert done.returncode == 0, done.stdout + done.stderr
    rate = r"\{'train.learning_rate': (.*)\}"
    good = re.findall(rf"trial \d: val_loss .* {rate}", done.stdout)
    failed = re.findall(rf"trial \d: failed, (.*) {rate}", done.stdout)
    assert set(good) == {"0.001"}
    assert set(failed) == {("no luck", "0.002")}
    assert len(good) + len(failed) == 8
    assert (folder / "params.yaml").read_text() == before


def test_a_sweep_without_a_good_trial_fails(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(sweep.tracking, "end", lambda *told: ended.append(told))
    study = optuna.create_study()
    study.set_user_attr("run_id", "abc")
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    with pytest.raises(ValueError, match="no trial came to its end"):
        sweep._told(study)
    assert ended == [("abc", "FAILED")]
    assert capsys.readouterr().out == "1 trials: 1 fail\n"


def test_a_worker_that_dies_takes_one_trial_with_it(folder, tmp_path):
    """`killed` stands for a process that runs out of memory: its third one does not."""
    killed = tmp_path / "sitecustomize.py"
    killed.write_text(
        "import os, pathlib, sys\n"
        f"count = pathlib.Path({str(tmp_path)!r}, 'count')\n"
        "if 'engram.trials' in ' '.join(sys.orig_argv):\n"
        "    n = int(count.read_text()) + 1 if count.is_file() else 1\n"
        "    count.write_text(str(n))\n"
        "    if n < 3:\n"
        "        import engram.training\n"
        "        engram.training.train = lambda *a, **k: os.abort()\n"
    )
    env = toy.environment(folder)
    env["PYTHONPATH"] += f":{tmp_path}"
    words = ("toy-gru", "args.units=2,3", "--trials", "4", "--keep")
    done = toy.call(command(*words), folder, env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"trial (\d): its worker ended with", done.stdout) == ["0", "1"]
    assert "4 trials: 2 fail, 2 complete" in done.stdout


@pytest.mark.parametrize(
    "words, said",
    [
        (("toy", "args.units=2..4"), "no such experiment. Known: toy-mlp, toy-gru"),
        (("toy-gru", "args.unit=2..4"), "args.unit: no such param. Known there: units"),
        (("toy-gru", "args.units=4..2"), "a range goes up"),
        (
            ("toy-gru", "args.units=-3..3"),
            "args.units: -3 cannot be tried: experiments.toy-gru.args.units: Input should"
            " be greater than 0. Received: -3",
        ),
        (("toy-gru", "train.seeds=1..3"), "train.seeds: 1 cannot be tried"),
        (("toy-gru", "args.units=2..3", "args.units=4..5"), "args.units: given twice"),
        (("toy-gru", "args.units=0..2:log"), "a logarithmic one from above 0"),
        (("toy-gru", "args.units=3"), "neither low..high nor values separated"),
        (("toy-gru", "args.units=2..4", "--trials", "0"), "must be at least 1"),
    ],
)
def test_wrong_words_are_told(folder, words, said, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as error:
        sweep.main(list(words))
    assert said in str(error.value)


@pytest.mark.parametrize(
    "word, expected",
    [
        ("args.units=2..8", {"whole": True, "low": 2, "high": 8, "log": False}),
        ("args.units=0.5..8", {"whole": False, "low": 0.5, "high": 8, "log": False}),
        (
            "args.units=1e-4..1e-1:log",
            {"whole": False, "low": 1e-4, "high": 0.1, "log": True},
        ),
        ("args.units=-2..-1", {"whole": True, "low": -2, "high": -1, "log": False}),
        ("args.units=1,2.5,sum,true,null", {"choices": [1, 2.5, "sum", True, None]}),
    ],
)
def test_the_words_of_a_space(word, expected):
    assert search_space._dimension(word, {"args": {"units": 1}}) == (
        "args.units",
        expected,
    )
