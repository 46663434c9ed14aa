"""A worker of a sweep: takes a trial that waits, trains it, tells what came out."""

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from engram import store, sweep, tracking


def main(name: str) -> None:
    """Works on the study `name` until no trial waits."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=name,
        storage=sweep.address(),
        sampler=optuna.samplers.TPESampler(constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    while trial := _next(study):
        try:
            value = _trained(study, trial)
            study.tell(trial, value)
            print(
                f"trial {trial.number}: val_loss {value:.6g} {trial.params}", flush=True
            )
        except optuna.TrialPruned as stop:
            study.tell(trial, state=TrialState.PRUNED)
            print(f"trial {trial.number}: stopped, {stop} {trial.params}", flush=True)
        except Exception as error:  # the next one may do better
            trial.set_user_attr("error", traceback.format_exc())
            study.tell(trial, state=TrialState.FAIL)
            print(f"trial {trial.number}: failed, {error} {trial.params}", flush=True)


def _next(study: optuna.Study) -> optuna.Trial | None:
    """Returns a trial that waited; None if there is none."""
    with store.alone(store.folder() / "sweeps.lock"):  # or two workers take one trial
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = study.ask()
            trial.set_user_attr("worker", os.getpid())
            return trial
    return None


def proposed(trial: optuna.Trial, space: sweep.Space) -> dict[str, Any]:
    """Returns what Optuna proposes for each dimension."""
    found: dict[str, Any] = {}
    for name, about in space.items():
        if "choices" in about:
            found[name] = trial.suggest_categorical(name, about["choices"])
        else:
            suggest = trial.suggest_int if about["whole"] else trial.suggest_float
            found[name] = suggest(name, about["low"], about["high"], log=about["log"])
    return found


def _trained(study: optuna.Study, trial: optuna.Trial) -> float:
    """Trains the experiment with a trial's params as its stage does; returns the loss."""
    from engram import distribution, models, params, params_edit, tasks, training

    name, block = study.user_attrs["experiment"], study.user_attrs["block"]
    block = params_edit.changed(block, proposed(trial, study.user_attrs["space"]))
    params.check_experiment(name, block)
    train, seed = block["train"], block["train"]["seeds"][0]
    if lacking := distribution.lacking(train.get("require")):
        raise ValueError(lacking)
    prepared = Path("data/prepared", block["dataset"])
    spec = json.loads((prepared / "spec.json").read_text())
    task = tasks.task(block["task"])
    build = functools.partial(models.of_experiment, block, spec)
    batches = functools.partial(task.batches, prepared, batch_size=train["batch_size"])

    recorder = functools.partial(_recorder, study, trial, name, block, spec)
    how = training.settings(block["start"], train)
    (best,) = training.train(build, batches, how, [seed], recorder)
    assert best.held_loss is not None
    return best.held_loss


@contextlib.contextmanager
def _recorder(
    study, trial, name, block, spec, seed, rate, kept
) -> Iterator[tuple[str, Any]]:
    """Opens a trial's run below the sweep's, and stops a trial that is hopeless."""
    several = isinstance(block["train"]["learning_rate"], list)
    tags = {"mlflow.parentRunId": study.user_attrs["run_id"], "trial": trial.number}
    opened = tracking.run(
        name=f"{name} trial {trial.number}",
        group=block["dataset"],
        params={**block, "seed": seed, "learning_rate": rate},
        tags={"experiment": name, "model": block["model"], **tags},
        spec=spec,
    )
    stopped = None
    with opened as (run_id, record):
        trial.set_user_attr("run_id", run_id)

        def watched(metrics, step, table=None, now=False):
            record(metrics, step, table, now)
            if "val_loss" in metrics and not several:
                trial.report(metrics["val_loss"], step)
                if trial.should_prune():
                    raise optuna.TrialPruned(f"epoch {step}")

        try:
            yield run_id, watched
        except optuna.TrialPruned as stop:
            stopped = stop
    if stopped:
        tracking.end(run_id, "KILLED")
        raise stopped


if __name__ == "__main__":
    main(sys.argv[1])
