"""Ties runs in MLflow to `dvc.lock`, and records what DVC brought back without a run.

    engram sync
    engram sync --suite studies/traffic

A result that comes from DVC's cache, from `dvc pull` or an old commit leaves no run,
since its command did not run. Here it gets one: its params, curves, metrics, model and
figures, marked by `restored_from`, the id of the run that it came from. What has a run
already gets none; `make repro` and `make study` end with this.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from engram import code_changes, locked, outbox, repository, store

BOOK = Path(".dvc", "tmp", "synced.json")  # what the last call saw, by suite
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
    suite = parser.parse_args(argv).suite.resolve()
    if not (suite / "dvc.yaml").is_file():
        sys.exit(f"{suite / 'dvc.yaml'}: no such file")
    if outbox.waiting():
        from engram import delivery, tracking

        tracking.open_store()
        for run_id, left in delivery.send_later().items():
            said = f"{left} lines are still to be sent" if left else "sent"
            print(f"run {run_id}: {said}")
    seen = _seen(suite)
    book = repository.root() / BOOK
    known = json.loads(book.read_text()) if book.is_file() else {}
    if known.get(str(suite)) == seen:
        return
    for line in synced(suite):
        print(line)
    book.parent.mkdir(parents=True, exist_ok=True)
    book.write_text(json.dumps(known | {str(suite): _seen(suite)}, indent=2))


def _seen(suite: Path) -> list[str]:
    """Returns what would have to change for a call to have something to do."""
    lock, database = suite / "dvc.lock", store.folder() / store.DATABASE
    digest = hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else "none"
    return [digest, str(database.stat().st_ino) if database.is_file() else "none"]


def synced(suite: Path) -> list[str]:
    """Ties and records runs of all stages; returns a line for each that was recorded."""
    lines = []
    for entry in locked.read(suite).values():
        if entry.stage.split("@")[0] in KINDS and _here(suite, entry):
            lines += _synced(suite, entry)
    return lines


def _here(suite: Path, entry: locked.Entry) -> bool:
    """Returns whether all outputs are there, as the lock has them."""
    return all(
        (suite / name).exists()
        and code_changes.digest_of(code_changes.read(suite / name)) == digest
        for name, digest in entry.outs.items()
    )


def _synced(suite: Path, entry: locked.Entry) -> list[str]:
    from engram import (
        recorded,
        tracking,
    )  # mlflow, which a call without work does not need

    lines = []
    for was, name, params in _expected(suite, entry):
        if was:
            run = recorded.kept(was)
        else:
            run = _latest(suite, entry, params)
        if run is None:
            run_id = _record(suite, entry, was, name, params)
            lines.append(f"{name}: recorded as restored, run {run_id}")
        elif run.tags.get("dvc.lock") == entry.digest:
            continue
        else:
            run_id = run.id
        tracking.tie(run_id, entry.digest, dataclasses.asdict(entry))
    return lines


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
    """Returns the newest finished run of a stage with these params, or None."""
    from engram import recorded, tracking

    wanted = {key: str(value) for key, value in tracking.flat(params).items()}
    for run in recorded.find({"dvc.stage": entry.stage, "suite": _name(suite)}):
        other = run.tags.get("dvc.lock", entry.digest) != entry.digest
        if run.status == "FINISHED" and run.params == wanted and not other:
            return run
    return None


def _record(
    suite: Path, entry: locked.Entry, was: str, name: str, params: dict[str, Any]
) -> str:
    """Records a result as a run and returns its id."""
    from engram import tracking

    prepared = suite / "data" / "prepared" / params["dataset"] / "spec.json"
    digest = next(iter(entry.outs.values()))
    commit = repository.commit_of(suite / "dvc.lock", digest)
    state = {"commit": commit, "dirty": "no"} if commit else repository.git_state()
    lock = repository.at(state["commit"], "requirements.lock")
    tags = {
        "git.commit": state["commit"],
        "git.dirty": state["dirty"],
        "suite": _name(suite),
        "dvc.stage": entry.stage,
        KINDS[entry.stage.split("@")[0]]: entry.item,
    }
    if "model" in params:
        tags["model"] = params["model"]
    with tracking.restored(
        was or "none",
        name,
        params["dataset"],
        params,
        tags,
        json.loads(prepared.read_text()),
        {"requirements.lock": hashlib.sha256(lock).hexdigest()},
    ) as (run_id, record):
        _fill(suite, entry, params, record)
    return run_id


def _fill(suite: Path, entry: locked.Entry, params: dict[str, Any], record) -> None:
    """Logs curves, final metrics, model and figures of a seed."""
    from engram import tracking

    if not entry.stage.startswith("train@"):
        tracking.log_files([suite / name for name in _pictures(suite, entry)], "figures")
        return
    seed, folder = str(params["seed"]), suite / "runs" / entry.item
    history = json.loads((folder / "history.json").read_text())[seed]
    for epoch, values in enumerate(zip(*history.values(), strict=True), 1):
        record(dict(zip(history, values, strict=True)), epoch)
    tracking.log_files([folder / "models" / f"seed-{seed}.keras"], "model")
    metrics = suite / "metrics" / f"{entry.item}.json"
    if metrics.is_file():
        found = json.loads(metrics.read_text())
        if found["seeds"] == [int(seed)]:  # a mean of several is no seed's
            tracking.log_results(found["metrics"])
        if found["seeds"][0] == int(seed):
            pictures = sorted((suite / "figures" / entry.item).glob("*.png"))
            tracking.log_files(pictures, "figures")


def _pictures(suite: Path, entry: locked.Entry) -> list[str]:
    return [name for name in entry.outs if name.endswith(".png")]


def _name(suite: Path) -> str:
    place = suite.relative_to(repository.root().resolve()).as_posix()
    return "tour" if place == "." else place
