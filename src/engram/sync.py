"""Ties runs in MLflow to `dvc.lock`, and records what DVC brought back without a run.

    engram sync
    engram sync --suite studies/traffic

A result that comes from DVC's cache, from `dvc pull` or an old commit leaves no run,
since its command did not run. Here it gets one: its params, curves, model and figures,
and its metrics if it has one seed, marked by `restored_from`, the id of the run that it
came from. What has a run already gets none; `make repro` and `make study` end with this.
What a tracking server was not told is sent first, and runs whose process was killed are
ended.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from engram import code_changes, locked, open_runs, outbox, repository, store

BOOK = Path(".dvc", "tmp", "synced.json")  # what the last call saw, by suite
REPORT = "results/report.html"
KINDS = {  # stages that leave runs -> the tag that names what was run
    "train": "experiment",
    "pretrain": "pretraining",
    "depth_cliff": "depth_cliff",
    "trainability_map": "trainability_map",
}


def main(argv: list[str] | None = None) -> None:
    """Brings the store in line with a suite's `dvc.lock`."""
    parser = argparse.ArgumentParser("engram sync", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--suite", type=Path, default=Path(), help="folder with dvc.yaml, default: here"
    )
    suite = parser.parse_args(argv).suite.absolute()
    if not (suite / "dvc.yaml").is_file():
        sys.exit(f"{suite / 'dvc.yaml'}: no such file")
    os.chdir(suite)  # the repository is that of the suite
    if open_runs.files() or any(store.folder().glob("outbox/*/*.jsonl")):
        _send()
    book = repository.root() / BOOK
    known = json.loads(book.read_text()) if book.is_file() else {}
    if known.get(str(suite)) == _seen(suite):
        return
    with store.alone(store.folder() / "sync.lock"):  # or a result is recorded twice
        whole = _synced_all(suite)
    if whole:
        book.parent.mkdir(parents=True, exist_ok=True)
        new = book.with_suffix(".new")
        new.write_text(json.dumps(known | {str(suite): _seen(suite)}, indent=2))
        new.replace(book)


def _send() -> None:
    from engram import delivery, tracking

    for folder in sorted((store.folder() / "outbox").glob("*")):
        if folder != delivery.unsent() and (runs := outbox.waiting(folder)):
            print(f"{len(runs)} runs of another server wait in {folder}")
    tracking.open_store()
    for run_id in delivery.bury():
        print(f"run {run_id}: its process was killed; what it said is its log.txt")
    for run_id, left in delivery.send_later().items():
        said = f"{left} lines are still to be sent" if left else "sent"
        print(f"run {run_id}: {said}")


def _seen(suite: Path) -> list[str]:
    """Returns what would have to change for a call to have something to do."""
    lock, database = suite / "dvc.lock", store.folder() / store.DATABASE
    digest = hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else "none"
    known = str(database.stat().st_ino) if database.is_file() else "none"
    return [digest, store.place(), known]


def _synced_all(suite: Path) -> bool:
    """Ties and records runs of all stages; returns whether all results were here."""
    whole = True
    for entry in locked.read(suite).values():
        if entry.stage == "compare" and _here(suite, entry):
            _tie_comparison(suite, entry)
        if entry.stage.split("@")[0] in KINDS:
            here = _here(suite, entry)
            whole &= here
            if here:
                _sync(suite, entry)
                _forget_checkpoints(suite, entry)
    return whole


def _tie_comparison(suite: Path, entry: locked.Entry) -> None:
    """Ties the newest run that has this very report; one from a cache has none."""
    from engram import recorded, tracking

    report = (suite / REPORT).read_bytes()
    for run in recorded.find({"dvc.stage": "compare", "suite": repository.suite(suite)}):
        if recorded.artifact(run.id, Path(REPORT).name) == report:
            if run.tags.get("dvc.lock") != entry.digest:
                tracking.tie(run.id, entry.digest, dataclasses.asdict(entry))
            return


def _forget_checkpoints(suite: Path, entry: locked.Entry) -> None:
    """Removes those of a stage that is in `dvc.lock` with what it wrote."""
    from engram import restarts  # numpy, which a call without work does not need

    folder = restarts.folder_of(entry.stage, suite)
    for file in folder.glob(f"*/{restarts.DONE}"):
        restarts.forget(file.parent)


def _here(suite: Path, entry: locked.Entry) -> bool:
    """Returns whether outputs and data are there, as the lock has them."""
    data = {name: md5 for name, md5 in entry.deps.items() if name.startswith("data/")}
    return all(
        code_changes.is_still(suite / name, digest)
        for name, digest in {**entry.outs, **data}.items()
    )


def _sync(suite: Path, entry: locked.Entry) -> None:
    from engram import (  # mlflow, which a call without work does not need
        recorded,
        tracking,
    )

    for was, name, params in _expected(suite, entry):
        run = recorded.kept(was) if was else _latest(suite, entry, params)
        if run and run.tags.get("dvc.lock") == entry.digest:
            continue
        if run is None:
            run_id = _record(suite, entry, was, name, params)
            print(f"{name}: recorded as restored, run {run_id}")
        else:
            run_id = run.id
        tracking.tie(run_id, entry.digest, dataclasses.asdict(entry))


def _expected(suite: Path, entry: locked.Entry) -> list[tuple[str, str, dict[str, Any]]]:
    """Returns of each run that a stage leaves its id if known, name and params."""
    (block,) = entry.params.values()
    if entry.stage.startswith("train@"):
        kept = json.loads((suite / "runs" / entry.item / "run.json").read_text())
        return [
            (
                about["run_id"],
                f"{entry.item} seed {seed} rate {about['rate']:g}",
                {**block, "seed": int(seed), "learning_rate": about["rate"]},
            )
            for seed, about in kept.items()
        ]
    if entry.stage.startswith("pretrain@"):
        return [
            ("", f"{entry.item} seed {seed}", {**block, "seed": seed})
            for seed in block["train"]["seeds"]
        ]
    return [("", entry.item, block)]


def _latest(suite: Path, entry: locked.Entry, params: dict[str, Any]):
    """Returns the run of a stage that names this entry, or the newest that names none.

    Its params and data are those of the entry; it is of no experiment of DVC's.
    """
    from engram import recorded, tracking

    wanted = {key: str(value) for key, value in tracking.flat(params).items()}
    spec = suite / "data" / "prepared" / params["dataset"] / "spec.json"
    fingerprint = json.loads(spec.read_text())["fingerprint"]
    fitting = [
        run
        for run in recorded.find(
            {"dvc.stage": entry.stage, "suite": repository.suite(suite)}
        )
        if run.status == "FINISHED"
        and run.params == wanted
        and run.data
        and fingerprint.startswith(run.data[1])
    ]
    for run in fitting:
        if run.tags.get("dvc.lock") == entry.digest:
            return run
    for run in fitting:
        if "dvc.lock" not in run.tags and run.tags.get("dvc.experiment") == "none":
            return run
    return None


def _record(
    suite: Path, entry: locked.Entry, was: str, name: str, params: dict[str, Any]
) -> str:
    """Records a result as a run and returns its id."""
    from engram import tracking

    kind = entry.stage.split("@")[0]
    # of outputs that no other stage has: `run.json` names runs, the last one of others
    digest = entry.outs.get(f"runs/{entry.item}/run.json", list(entry.outs.values())[-1])
    commit = repository.commit_of(suite / "dvc.lock", digest)
    lock = repository.at(commit, "requirements.lock") if commit else None
    tags = {
        "git.commit": commit or "unknown",
        "git.dirty": "no",
        "suite": repository.suite(suite),
        "dvc.stage": entry.stage,
        KINDS[kind]: entry.item,
    }
    if "model" in params:
        tags["model"] = params["model"]
    spec = suite / "data" / "prepared" / params["dataset"] / "spec.json"
    with tracking.restored(
        was or "none",
        name,
        params["dataset"],
        params,
        tags,
        json.loads(spec.read_text()),
        {"requirements.lock": hashlib.sha256(lock).hexdigest() if lock else None},
    ) as (run_id, record):
        if kind == "train":
            _fill(suite, entry.item, params, record)
        else:
            pictures = [name for name in entry.outs if name.endswith(".png")]
            tracking.log_files([suite / name for name in pictures], "figures")
    return run_id


def _fill(suite: Path, name: str, params: dict[str, Any], record) -> None:
    """Logs curves, final metrics, model and figures of a seed."""
    from engram import tracking

    seed, folder = str(params["seed"]), suite / "runs" / name
    history = json.loads((folder / "history.json").read_text())[seed]
    for epoch, values in enumerate(zip(*history.values(), strict=True), 1):
        record(dict(zip(history, values, strict=True)), epoch)
    tracking.log_files([folder / "models" / f"seed-{seed}.keras"], "model")
    metrics = suite / "metrics" / f"{name}.json"
    if not metrics.is_file():
        return
    found = json.loads(metrics.read_text())
    if found["seeds"] == [int(seed)]:  # a mean of several is no seed's
        tracking.log_results(found["metrics"])
    if found["seeds"][0] == int(seed):
        pictures = sorted((suite / "figures" / name).glob("*.png"))
        tracking.log_files(pictures, "figures")
