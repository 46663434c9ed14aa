"""Links from a result to its runs in MLflow, and from a run to what it recorded."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from engram import locked, recorded, repository, tracking
from engram.recorded import Run
from engram.stage_links import SHORT, Link
from engram.sync import KINDS, REPORT


def of_stage(
    suite: Path, entries: dict[str, locked.Entry], entry: locked.Entry
) -> Iterator[Link]:
    """Yields the links to the runs of the experiment that a file belongs to."""
    kind = entry.stage.split("@")[0]
    if kind in ("train", "evaluate"):
        yield from _of_experiment(suite, entries, entry.item)
    elif kind in KINDS:
        runs = recorded.find({"dvc.lock": entry.digest})
        if not runs:
            yield Link(1, "MLflow knows no run of it: `engram sync` records it", False)
        for run in runs:
            yield from of_run(run, entry, suite, 1)
    elif kind == "compare":
        yield from _of_comparison(suite, entry)


def _of_comparison(suite: Path, entry: locked.Entry) -> Iterator[Link]:
    runs = recorded.find({"dvc.lock": entry.digest})
    if not runs:
        yield Link(1, "MLflow knows no run of it: it may come from DVC's cache")
    for run in runs:
        yield from of_run(run, None, suite, 1)
        report = recorded.artifact(run.id, Path(REPORT).name)
        same = report is not None and report == (suite / REPORT).read_bytes()
        yield Link(2, f"its report is {'' if same else 'not '}{REPORT}", same)


def _of_experiment(
    suite: Path, entries: dict[str, locked.Entry], name: str
) -> Iterator[Link]:
    folder, trained = suite / "runs" / name, entries.get(f"train@{name}")
    if trained is None or not (folder / "run.json").is_file():
        yield Link(
            1, f"runs/{name}/run.json is missing: nothing leads to its runs", False
        )
        return
    for seed, about in json.loads((folder / "run.json").read_text()).items():
        run = recorded.kept(about["run_id"])
        if run is None:
            said = f"MLflow does not know run {about['run_id']}"
            yield Link(1, f"{said}: `engram sync` records it", False)
            continue
        yield from of_run(run, trained, suite, 1)
        yield _model(run, folder / "models" / f"seed-{seed}.keras")


def of_run(
    run: Run, entry: locked.Entry | None, suite: Path, depth: int
) -> Iterator[Link]:
    """Yields the links from a run to its params, data, commit and packages.

    Args:
        run: as MLflow has it.
        entry: of `dvc.lock`, that the run should belong to.
        suite: folder with `dvc.yaml`.
        depth: of the first line.
    """
    restored = ", restored" if "restored_from" in run.tags else ""
    yield Link(depth, f"run {run.id} {run.name!r}{restored}")
    depth += 1
    yield Link(depth, f"it is {run.status.lower()}", run.status == "FINISHED")
    if entry:
        yield _params(run, entry, depth)
        same = run.tags.get("dvc.lock") == entry.digest
        said = "names" if same else "does not name (`engram sync` mends it)"
        yield Link(depth, f"it {said} the entry {entry.stage} of dvc.lock", same)
    if run.data:
        yield _data(run, suite, depth)
    yield _commit(run, depth)
    yield _packages(run, depth)


def _params(run: Run, entry: locked.Entry, depth: int) -> Link:
    (block,) = entry.params.values()
    other = [
        key
        for key, value in tracking.flat(block).items()
        # the run has the one rate that it took, the entry all that were to be tried
        if key not in ("seed", "learning_rate") and run.params.get(key) != str(value)
    ]
    same = not other
    said = f"not those of dvc.lock: {', '.join(other)}" if other else "those of dvc.lock"
    return Link(depth, f"its params are {said}", same)


def _data(run: Run, suite: Path, depth: int) -> Link:
    assert run.data
    name, digest = run.data
    file = suite / "data" / "prepared" / name / "spec.json"
    if not file.is_file():
        return Link(depth, f"its data, {name}, is not prepared here", False)
    same = json.loads(file.read_text())["fingerprint"].startswith(digest)
    said = f"{name} as prepared here, fingerprint {digest[:12]}"
    return Link(depth, f"its data is {'' if same else 'not '}{said}", same)


def _commit(run: Run, depth: int) -> Link:
    commit, dirty = (run.tags.get(f"git.{key}", "none") for key in ("commit", "dirty"))
    known = repository.has(commit)
    said = f"its commit, {commit[:SHORT]}, is {'' if known else 'not '}in git"
    if dirty == "no":
        return Link(depth, said, known)
    attached = recorded.artifact(run.id, "code.diff") is not None
    more = "attached" if attached else "not recorded"
    return Link(depth, f"{said}; what differed from it is {more}", known and attached)


def _packages(run: Run, depth: int) -> Link:
    content = recorded.artifact(run.id, "environment.json")
    if content is None:
        return Link(depth, "its environment.json cannot be opened", False)
    wanted, name = json.loads(content)["requirements.lock"], "requirements.lock"
    lock = repository.root() / name
    here = lock.read_bytes() if lock.is_file() else None
    there = repository.at(run.tags.get("git.commit", "none"), name)
    places = {"": here, " in its commit, not here": there}
    for place, known in places.items():
        if known and hashlib.sha256(known).hexdigest() == wanted:
            return Link(depth, f"its packages are those of {name}{place}", True)
    return Link(depth, f"its packages are those of no {name} that is known", False)


def _model(run: Run, file: Path) -> Link:
    there = recorded.artifact(run.id, f"model/{file.name}")
    same = there is not None and file.is_file() and there == file.read_bytes()
    said = "is" if same else "cannot be opened, or is not"
    return Link(2, f"its model {said} {file.name}", same)


def of_model(address: str, run: Run) -> Iterator[Link]:
    """Yields whether what a promoted model answers with is of its run: model and data."""
    name = f"seed-{run.params.get('seed')}.keras"
    kept = recorded.artifact(run.id, f"model/{name}")
    there = recorded.served(address, "model.keras")
    same = there is not None and there == kept
    said = "is" if same else "cannot be opened, or is not"
    yield Link(1, f"its model.keras {said} the {name} of the run", same)
    spec = json.loads(recorded.served(address, "spec.json") or b"{}")
    digest = run.data[1] if run.data else "unknown"
    same = spec.get("fingerprint", "").startswith(digest)
    said = "is" if same else "cannot be opened, or is not"
    yield Link(1, f"its spec.json {said} of the run's data", same)
