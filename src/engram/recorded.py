"""What MLflow recorded of runs, read back to verify where results come from.

Reads only. Of the stages `compare` alone does, for the runs that failed.
"""

import dataclasses
import time
from pathlib import Path

import mlflow

from engram import tracking

FAILURES = 20  # that are listed


@dataclasses.dataclass
class Run:
    """A run as the store has it.

    Attributes:
        id: MLflow's.
        name: its name.
        status: `"FINISHED"`, `"FAILED"`, `"RUNNING"` or `"KILLED"`.
        began: when, in milliseconds since 1970.
        ended: when it last did; 0 while it is running.
        params: as recorded, all of them text.
        metrics: of each the last value.
        tags: as recorded.
        data: name and digest of the dataset that it was given.
    """

    id: str
    name: str
    status: str
    began: int
    ended: int
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    data: tuple[str, str] | None


def run(run_id: str) -> Run | None:
    """Returns a run; None if the store does not know it."""
    tracking.open_store()
    try:
        found = mlflow.get_run(run_id)
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise  # a server that does not answer
    return _run(found) if found.info.lifecycle_stage == "active" else None


def find(tags: dict[str, str], status: str | None = None) -> list[Run]:
    """Returns all runs with these tags, and that status if one is given, newest first."""
    tracking.open_store()
    texts = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    texts += [f"attributes.status = '{status}'"] if status else []
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=" and ".join(texts),
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )
    return [_run(one) for one in found]


def failures(suite: str) -> list[dict[str, str]] | None:
    """Returns the last runs that failed, or whose process was killed, newest first.

    Trials of a sweep are not among them. Each has `run`, `ended`, `id` and `how`, the end
    of its log. None is returned if the store does not answer.
    """
    try:
        found = find({"suite": suite}, "FAILED") + find({"suite": suite}, "KILLED")
    except (mlflow.MlflowException, OSError):
        return None
    found = [run for run in found if "trial" not in run.tags]
    found.sort(key=lambda run: run.began, reverse=True)
    return [
        {"run": run.name, "ended": _day(run.ended), "id": run.id, "how": _how(run)}
        for run in found[:FAILURES]
    ]


def _day(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(milliseconds / 1000))


def _how(run: Run) -> str:
    texts = (artifact(run.id, name) for name in ("evaluate.log.txt", "log.txt"))
    log = next((text for text in texts if text), b"").decode(errors="replace")
    if "Traceback (most recent call last)" in log or run.status == "KILLED":
        return (log.strip().splitlines() or ["its log is empty"])[-1]
    if run.name.startswith("sweep of "):
        return "no trial came to its end"
    return "after training, while it was evaluated"


def kept(run_id: str) -> Run | None:
    """Returns the run that `run.json` names, or the one that stands for it here."""
    if found := run(run_id):
        return found
    for one in find({"restored_from": run_id}) + find({"continues": run_id}):
        if one.status == "FINISHED":  # one whose recording was cut off is none
            return one
    return None


def _run(found) -> Run:
    inputs = found.inputs.dataset_inputs if found.inputs else []
    return Run(
        found.info.run_id,
        found.info.run_name,
        found.info.status,
        found.info.start_time,
        found.info.end_time or 0,
        dict(found.data.params),
        dict(found.data.metrics),
        {k: v for k, v in found.data.tags.items() if not k.startswith("mlflow.")},
        (inputs[0].dataset.name, inputs[0].dataset.digest) if inputs else None,
    )


def of_model(address: str) -> str | None:
    """Returns the id of the run that logged a model, such as `models:/name@alias`."""
    tracking.open_store()
    try:
        return mlflow.models.get_model_info(address).run_id
    except mlflow.MlflowException:
        return None


def served(address: str, name: str) -> bytes | None:
    """Returns a file that a promoted model answers with; None if it cannot be opened."""
    try:
        place = f"{address}/artifacts/served/{name}"
        return Path(mlflow.artifacts.download_artifacts(place)).read_bytes()
    except (mlflow.MlflowException, OSError):
        return None


def artifact(run_id: str, path: str) -> bytes | None:
    """Returns the content of one of a run's artifacts; None if it cannot be opened."""
    try:
        local = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path)
        return Path(local).read_bytes()
    except (mlflow.MlflowException, OSError):
        return None
