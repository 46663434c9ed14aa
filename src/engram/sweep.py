"""Looks for better params of an experiment: many trainings, judged on validation.

    engram sweep traffic-stlm args.units=8..32 train.learning_rate=0.001..0.1:log
    engram sweep traffic-stlm args.combine=concat,sum --trials 20 --parallel 2

A range is `low..high`, of whole numbers if both are, with `:log` behind it for a
logarithmic one; other values are listed, separated by commas. Optuna proposes the trials
and stops those that are worse than most after as many epochs. Each is a training of the
experiment's first seed, a run in MLflow below that of the sweep; what counts is the loss
on validation, the test part is not read.

The first trial has the params that are there, if they lie within the ranges. The same
command goes on where a stopped one was. In the end the best params are written to
`params.yaml`, unless those there are known to be better; `dvc repro` then gives the same
model.
"""

import argparse
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna

from engram import (
    locked,
    params,
    params_edit,
    search_space,
    stage_key,
    store,
    tracking,
)
from engram.search_space import Space


def main(argv: list[str] | None = None) -> None:
    """Runs a sweep, or goes on with it."""
    parser = argparse.ArgumentParser("engram sweep", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("experiment")
    parser.add_argument("space", nargs="+", metavar="name=values")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--parallel", type=int, default=1, help="trainings at a time")
    parser.add_argument("--keep", action="store_true", help="leave params.yaml as it is")
    given = parser.parse_args(argv)
    values = params.load_or_exit()
    try:
        block = _block(values, given.experiment)
        space = search_space.read(given.space, block)
        if given.trials < 1 or given.parallel < 1:
            raise ValueError("--trials and --parallel must be at least 1")
        search_space.check(given.experiment, block, space)
        if not given.keep:
            some = {name: search_space.ends(about)[0] for name, about in space.items()}
            _edited(given.experiment, some)
        digest = _digest(given.experiment, block, space)
        with _alone(digest) as lock:
            study = _study(given.experiment, digest, block, space, given.trials)
            _work(study, given.parallel, lock)
            best = _told(study)
            if not given.keep and not _better_now(given.experiment, block, study):
                _write(given.experiment, best)
            tracking.end(study.user_attrs["run_id"], "FINISHED", _numbers(study))
    except ValueError as error:
        sys.exit(f"sweep {given.experiment}: {error}")


def _block(values: dict[str, Any], name: str) -> dict[str, Any]:
    experiments = values["experiments"]
    if name not in experiments:
        raise ValueError(f"no such experiment. Known: {', '.join(experiments)}")
    block = experiments[name]
    if block["start"].endswith("chosen.json"):
        raise ValueError("it is fitted on validation, too: nothing is left to choose on")
    if not Path("data/prepared", block["dataset"], "spec.json").is_file():
        raise ValueError(
            f"its data is not here: dvc repro -s fetch@{block['dataset']}"
            f" prepare@{block['dataset']}"
        )
    return block


def _digest(name: str, block: dict[str, Any], space: Space) -> str:
    """Returns what makes two sweeps the same: other params, space, code and data."""
    others = {k: v for k, v in tracking.flat(block).items() if k not in space}
    return stage_key.of(f"train@{name}", others, space) or "no-stages"


@contextlib.contextmanager
def _alone(digest: str) -> Iterator[int]:
    """Keeps a second sweep of the same out, as long as a worker of this one is alive."""
    folder = store.folder()
    folder.mkdir(exist_ok=True)
    with (folder / f"sweep-{digest}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError("the same sweep is running, or a worker of it") from None
        yield file.fileno()


def address() -> str:
    """Returns the address of the studies, a SQLite file beside the runs."""
    return f"sqlite:///{store.folder() / 'sweeps.db'}"


def _study(
    name: str, digest: str, block: dict[str, Any], space: Space, trials: int
) -> optuna.Study:
    """Returns the study with as many trials waiting as are still to be done."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=address(), study_name=f"{name} {digest}", load_if_exists=True
    )
    if "run_id" not in study.user_attrs:
        study.set_user_attr("space", space)
        study.set_user_attr("block", block)
        study.set_user_attr("experiment", name)
        study.set_user_attr(
            "run_id", tracking.parent(f"sweep of {name}", block["dataset"], space)
        )
    for trial in study.get_trials(deepcopy=False):
        if trial.state == optuna.trial.TrialState.RUNNING:  # was killed: it waits again
            if run_id := trial.user_attrs.get("run_id"):
                tracking.end(run_id, "KILLED")
            study._storage.set_trial_state_values(
                trial._trial_id, optuna.trial.TrialState.WAITING
            )
    known = study.get_trials(deepcopy=False)
    first = {} if known else search_space.now(block, space) or {}
    for n in range(trials - len(known)):
        study.enqueue_trial({} if n else first)
    if known:
        done = sum(trial.state.is_finished() for trial in known)
        print(f"goes on: {done} of {max(trials, len(known))} trials are done", flush=True)
    return study


def _work(study: optuna.Study, parallel: int, lock: int) -> None:
    """Runs the waiting trials in as many processes.

    A worker that dies takes its trial with it, and another one goes on with the next.
    """
    gpus = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    command = [sys.executable, "-m", "engram.trials", study.study_name]

    def worker(n: int) -> subprocess.Popen:
        env = {**os.environ, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # they may share one
        if len(gpus) > 1:
            env["CUDA_VISIBLE_DEVICES"] = gpus[n % len(gpus)]
        return subprocess.Popen(command, env=env, pass_fds=[lock])

    workers = [worker(n) for n in range(parallel)]
    try:
        while workers:
            time.sleep(0.2)
            for n, one in enumerate(workers):
                if one.poll() is not None and not _bury(study, one):
                    workers.pop(n)
                    break
                if one.poll() is not None:
                    workers[n] = worker(n)
    except BaseException:
        for one in workers:
            one.terminate()
        raise


def _bury(study: optuna.Study, worker: subprocess.Popen) -> bool:
    """Lets the trial of a worker that died fail; returns whether there was one."""
    if worker.returncode == 0:
        return False
    for trial in study.get_trials(deepcopy=False):
        running = trial.state == optuna.trial.TrialState.RUNNING
        if running and trial.user_attrs.get("worker") == worker.pid:
            print(f"trial {trial.number}: its worker ended with {worker.returncode}")
            if run_id := trial.user_attrs.get("run_id"):
                tracking.end(run_id, "FAILED")
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            return True
    raise ValueError(f"a worker ended with {worker.returncode} before its first trial")


def _told(study: optuna.Study) -> dict[str, Any]:
    """Prints what was found and returns the best params.

    Raises:
        ValueError: if no trial came to its end.
    """
    states = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    print(f"{len(states)} trials: {', '.join(counts)}")
    if "complete" not in states:
        tracking.end(study.user_attrs["run_id"], "FAILED")
        raise ValueError("no trial came to its end")
    best = ", ".join(f"{key} {value}" for key, value in study.best_params.items())
    print(f"best: trial {study.best_trial.number}, val_loss {study.best_value}: {best}")
    return study.best_params


def _numbers(study: optuna.Study) -> dict[str, float]:
    return {"trials": len(study.get_trials()), "best_val_loss": study.best_value}


def _better_now(name: str, block: dict[str, Any], study: optuna.Study) -> bool:
    """Returns, and says, whether the params that are there led to a lower loss."""
    entry, file = locked.read(Path()).get(f"train@{name}"), Path("runs", name, "run.json")
    if entry is None or not file.is_file():
        return False
    if not locked.is_current(Path(), entry, {f"experiments.{name}": block}):
        return False
    seed = str(block["train"]["seeds"][0])
    loss = json.loads(file.read_text()).get(seed, {}).get("held_loss")
    if loss is None or loss >= study.best_value:
        return False
    print(f"params.yaml stays as it is: its params have val_loss {loss}, which is lower")
    return True


def _edited(name: str, best: dict[str, Any]) -> dict[str, Any]:
    """Returns the changes of `params.yaml`.

    Raises:
        ValueError: if they cannot be written there.
    """
    changes = {f"experiments.{name}.{key}": value for key, value in best.items()}
    try:
        params_edit.edited(Path("params.yaml").read_text(encoding="utf-8"), changes)
    except params_edit.NotEdited as error:
        raise ValueError(f"{error}; --keep leaves params.yaml as it is") from None
    return changes


def _write(name: str, best: dict[str, Any]) -> None:
    changes = _edited(name, best)
    params_edit.write(Path("params.yaml"), changes)
    for key, value in changes.items():
        print(f"params.yaml: {key}: {value}")
