"""The record of every run in MLflow; nothing reads a result back from it.

The store is `mlruns/mlflow.db` with artifacts beside it, in the repository's folder;
`MLFLOW_TRACKING_URI` names another. Besides `delivery`, which writes to the store,
`recorded`, which reads it, and `registry`, the only module that imports mlflow, but for
what MLflow itself runs (`served_model`) and the process that stages start from (`warm`).
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
import mlflow
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset

from engram import delivery, open_runs, repository, store, transcript

LINES: dict[str, Any] = {"buffering": 1, "encoding": "utf-8", "newline": ""}
PACKAGES = ("engram", "tensorflow", "keras", "tensorflow-datasets", "numpy", "mlflow")
SECONDS_BETWEEN_SYSTEM_METRICS = 2
SECONDS_BETWEEN_POINTS = 2.0
# It says at the start and end of each run that it starts and ends.
logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)


@contextlib.contextmanager
def run(
    name: str,
    group: str,
    params: dict[str, Any],
    tags: dict[str, Any],
    spec: dict[str, Any],
    kept: Path | None = None,
) -> Iterator[tuple[str, Callable[..., None]]]:
    """Opens a run and yields its id and `record(metrics, step, table=None, now=False)`.

    The columns of a table go under those of the steps before, in `samples.json`. What is
    printed inside is kept as `log.txt`, code that is not committed as `code.diff`.

    An exception inside marks the run FAILED and goes on its way. One whose process is
    asked to end or killed is KILLED; if it was killed, it has its log once
    `delivery.bury` looks after it.

    Args:
        name: name of the run, such as `"traffic-gru seed 1"`.
        group: MLflow experiment, such as `"ring_road"`.
        params: nested dict; keys are joined with dots.
        tags: tags of the run, beside commit, DVC stage and environment.
        spec: the dataset's `spec.json`; its fingerprint identifies the data.
        kept: file for the run's id. If it has one that the store knows, that run is
            continued: points that it has are not recorded twice, its log goes on.
    """
    open_store(group)
    delivery.bury()
    was = kept.read_text() if kept and kept.is_file() else ""
    known = bool(was) and _knows(was)
    before = _text(was, "log.txt") if known else ""
    how = {"run_id": was} if known else {"run_name": name, "tags": _tags(tags)}
    with delivery.opened(**how, log_system_metrics=True) as run_id:
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(run_id)
        if not known:
            delivery.patiently(lambda: _describe(params, spec, _environment()))
            _attach_changes()
        record, rest = _recorder(run_id, known)
        # Line by line: what is there when the process is killed is all there is.
        with open_runs.log(run_id).open("w+", **LINES) as log:
            log.write(before)
            try:
                with transcript.kept(log):
                    yield run_id, record
            finally:
                line = {"kind": "text", "text": transcript.read(log), "path": "log.txt"}
                delivery.put(run_id, line)
                rest()


def _describe(params: dict, spec: dict, environment: dict) -> None:
    """Logs what the open run is of; again, it is the same."""
    mlflow.log_params(flat(params))
    mlflow.log_input(_dataset(spec), context="training")
    mlflow.log_dict(environment, "environment.json")


@contextlib.contextmanager
def resumed(
    run_id: str,
    name: str,
    group: str,
    params: dict[str, Any],
    tags: dict[str, Any],
    spec: dict[str, Any],
) -> Iterator[str]:
    """Continues the run `run_id`, or opens one like it if the store does not know it.

    What was trained keeps its commit and stage; the commit and stage of what is logged
    now stand beside them, as `evaluate.git.commit` and so on.

    Args:
        run_id: id of the run.
        name: as in `run`, of a new run; so are the others.
        group: as in `run`.
        params: as in `run`.
        tags: as in `run`.
        spec: as in `run`.
    """
    open_store(group)
    if not _knows(run_id):
        with run(name, group, params, {**tags, "continues": run_id}, spec) as (new, _):
            yield new
        return
    code = {f"evaluate.{key}": value for key, value in _code().items()}
    with delivery.opened(again=True, run_id=run_id, tags=code):
        yield run_id


@contextlib.contextmanager
def restored(
    was: str,
    name: str,
    group: str,
    params: dict[str, Any],
    tags: dict[str, Any],
    spec: dict[str, Any],
    environment: dict[str, Any],
) -> Iterator[tuple[str, Callable[..., None]]]:
    """Opens a run for a result that DVC brought back and yields as `run` does.

    Args:
        was: id of the run that the result came from, elsewhere or before.
        name: as in `run`.
        group: as in `run`.
        params: as in `run`.
        tags: all tags, the code's and the stage's among them.
        spec: as in `run`.
        environment: what is known of the environment it came from.
    """
    open_store(group)
    told = {key: str(value) for key, value in tags.items()}
    with delivery.opened(run_name=name, tags={**told, "restored_from": was}) as run_id:
        _describe(params, spec, environment)
        record, rest = _recorder(run_id)
        yield run_id, record
        rest()


@contextlib.contextmanager
def summing_up(name: str, group: str) -> Iterator[str]:
    """Opens a run that no model comes from, such as a comparison, and yields its id."""
    open_store(group)
    with delivery.opened(run_name=name, tags=_tags({})) as run_id:
        delivery.patiently(lambda: mlflow.log_dict(_environment(), "environment.json"))
        _attach_changes()
        yield run_id


def _attach_changes() -> None:
    if changes := repository.changes():
        with tempfile.TemporaryDirectory() as folder:
            patch = Path(folder, "code.diff")
            patch.write_bytes(changes)
            log_files([patch], "")


def parent(name: str, group: str, params: dict[str, Any]) -> str:
    """Opens a run for others to stand below, and returns its id."""
    open_store(group)
    with mlflow.start_run(run_name=name, tags=_tags({})) as active:
        mlflow.log_params(flat(params))
    mlflow.MlflowClient().set_terminated(active.info.run_id, "RUNNING")
    return active.info.run_id


def end(run_id: str, status: str, metrics: dict[str, float] | None = None) -> None:
    """Logs final numbers of a run that is not open here, and ends it.

    Args:
        run_id: of the run.
        status: `"FINISHED"`, `"FAILED"` or `"KILLED"`.
        metrics: the numbers.
    """
    open_store()
    client = mlflow.MlflowClient()
    for key, value in (metrics or {}).items():
        client.log_metric(run_id, key, value)
    client.set_terminated(run_id, status)


def tie(run_id: str, digest: str, entry: dict[str, Any]) -> None:
    """Lets a run name the entry of `dvc.lock` that it belongs to, and attaches that."""
    client = mlflow.MlflowClient()
    client.log_dict(run_id, entry, "dvc.lock.json")
    client.set_tag(run_id, "dvc.lock", digest)


def log_results(metrics: dict[str, float]) -> None:
    """Logs final numbers in the open run."""
    delivery.put(_active(), {"kind": "points", "points": _points(metrics, 0)})


def log_files(files: list[Path], folder: str) -> None:
    """Copies files into the open run's artifacts."""
    for file in files:
        line = {"kind": "file", "path": str(file), "folder": folder}
        delivery.put(_active(), line)


def address() -> str | None:
    """Returns the store's address; None if the environment names it already."""
    return None if store.ELSEWHERE else mlflow.get_tracking_uri()


def _recorder(
    run_id: str, known: bool = False
) -> tuple[Callable[..., None], Callable[[], None]]:
    """Returns `record` of a run, and `rest`, which sends the points that still wait.

    Points of epochs that take a moment go together: a call of MLflow takes 4 ms. Until
    the next epoch ends, or the run does, they are in memory alone. Of a run that is
    `known` to the store, points and rows of a table that it has are not added again.
    """
    columns: dict[str, list[Any]] = _columns(run_id) if known else {}
    told = delivery.told(run_id) if known else set()
    waiting: list[tuple[str, float, int, int]] = []
    sent = -SECONDS_BETWEEN_POINTS

    def record(metrics, step, table: dict[str, list[str]] | None = None, now=False):
        points = _points(metrics, step)
        waiting.extend(one for one in points if (one[0], step) not in told)
        if now or time.monotonic() - sent >= SECONDS_BETWEEN_POINTS:
            rest()
        if table and step not in columns.get("epoch", []):
            rows = len(next(iter(table.values())))
            for name, cells in {"epoch": [step] * rows, **table}.items():
                columns.setdefault(name, []).extend(cells)
            line = {"kind": "table", "columns": columns, "path": "samples.json"}
            delivery.put(run_id, line)

    def rest():
        nonlocal sent
        with contextlib.suppress(FileNotFoundError):
            os.utime(open_runs.log(run_id))  # it was alive then
        if waiting:
            delivery.put(run_id, {"kind": "points", "points": [*waiting]})
        waiting.clear()
        sent = time.monotonic()

    return record, rest


def _columns(run_id: str) -> dict[str, list[Any]]:
    """Returns the columns of a run's table so far."""
    if line := delivery.waiting(run_id, "samples.json"):
        return line["columns"]
    table = json.loads(_text(run_id, "samples.json") or '{"columns": [], "data": []}')
    columns = [list(column) for column in zip(*table["data"], strict=True)]
    return dict(zip(table["columns"], columns, strict=True))


def _text(run_id: str, path: str) -> str:
    """Returns a run's artifact, also one that waits to be sent; nothing without one."""
    if line := delivery.waiting(run_id, path):
        return line["text"]
    place = f"runs:/{run_id}/{path}"
    try:
        return delivery.patiently(lambda: mlflow.artifacts.load_text(place))
    except (mlflow.MlflowException, OSError) as error:
        if delivery.down(error):
            raise
        return ""


def _points(metrics: dict[str, float], step: int) -> list[tuple[str, float, int, int]]:
    now = int(time.time() * 1000)  # sent again, it is the same point
    return [(name, float(value), now, step) for name, value in metrics.items()]


def _active() -> str:
    return mlflow.active_run().info.run_id


def open_store(group: str | None = None) -> None:
    """Points MLflow at the store; selects the experiment `group`, which may be new."""
    folder = store.folder()
    if not store.ELSEWHERE:
        folder.mkdir(exist_ok=True)
        _make(folder)
        store.mend(folder)
        mlflow.set_tracking_uri(store.address())
    if group is None:
        return
    mlflow.set_system_metrics_sampling_interval(SECONDS_BETWEEN_SYSTEM_METRICS)
    mlflow.set_system_metrics_samples_before_logging(1)
    delivery.patiently(lambda: _select(group, folder))


def _make(folder: Path) -> None:
    """Makes the database whole or not at all, for one process while others wait.

    MLflow makes it table by table where it stands: a second process finds some of them
    and fails, and so does each later one if the first was killed.
    """
    database = folder / store.DATABASE
    if database.is_file():
        return
    with store.alone(folder / "making.lock"):
        if database.is_file():  # another process was first
            return
        unfinished = folder / "making.db"
        unfinished.unlink(missing_ok=True)
        mlflow.MlflowClient(f"sqlite:///{unfinished}").search_experiments()
        unfinished.replace(database)


def _select(group: str, folder: Path) -> None:
    if mlflow.get_experiment_by_name(group) is None:
        place = (folder / group.replace("/", "-")).as_uri()
        mlflow.create_experiment(
            group,
            artifact_location=None if store.ELSEWHERE else place,
            # The interface then opens on the table of runs, not on language-model traces.
            tags={"mlflow.experimentKind": "custom_model_development"},
        )
    mlflow.set_experiment(group)


def _knows(run_id: str) -> bool:
    try:
        found = delivery.patiently(lambda: mlflow.get_run(run_id))
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return found.info.lifecycle_stage == "active"


def _tags(tags: dict[str, Any]) -> dict[str, str]:
    return {
        **_code(),
        "suite": repository.suite(Path.cwd()),
        **{key: str(value) for key, value in tags.items()},
    }


def _code() -> dict[str, str]:
    """Returns which code runs, and for what."""
    git = repository.git_state()
    return {
        "git.commit": git["commit"],
        "git.dirty": git["dirty"],
        "dvc.stage": os.environ.get("DVC_STAGE", "none").split(":")[-1],
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", "none"),
    }


def flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested params as one dict; keys are joined with dots."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _dataset(spec: dict[str, Any]) -> MetaDataset:
    # MLflow takes digests of at most 36 characters.
    source = CodeDatasetSource({"mlflow.source.name": "data/prepared"})
    return MetaDataset(source, name=spec["dataset"], digest=spec["fingerprint"][:36])


def _environment() -> dict[str, Any]:
    lock = repository.here() / "requirements.lock"
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "processor": repository.processor(),
        "cores": os.cpu_count(),
        "packages": versions,
        "requirements.lock": hashlib.sha256(lock.read_bytes()).hexdigest()
        if lock.is_file()
        else None,
    }
