"""What MLflow recorded of runs, read back to verify where results come from.

Reads only; no stage of the pipeline does.
"""

import dataclasses
from pathlib import Path

import mlflow

from engram import tracking


@dataclasses.dataclass
class Run:
    """A run as the store has it.

    Attributes:
        id: MLflow's.
        name: its name.
        status: `"FINISHED"`, `"FAILED"`, `"RUNNING"` or `"KILLED"`.
        began: when, in milliseconds since 1970.
        params: as recorded, all of them text.
        metrics: of each the last value.
        tags: as recorded.
        data: name and digest of the dataset that it was given.
    """

    id: str
    name: str
    status: str
    began: int
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    data: tuple[str, str] | None


def run(run_id: str) -> Run | None:
    """Returns a run; None if the store does not know it."""
    tracking.open_store()
    try:
        found = mlflow.get_run(run_id)
    except mlflow.MlflowException:
        return None
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


def failures(suite: str, experiments: list[str]) -> list[dict[str, str]]:
    """Returns the runs that failed after the last one of their experiment that did not.

    Each has `run`, `id` and `error`, the last line of its log. Trials of a sweep are not
    among them.
    """
    told = []
    for failed in find({"suite": suite}, "FAILED") + find({"suite": suite}, "KILLED"):
        name = failed.tags.get("experiment")
        if name not in experiments or "trial" in failed.tags:
            continue
        good = find({"suite": suite, "experiment": name}, "FINISHED")
        if not good or good[0].began < failed.began:
            log = (artifact(failed.id, "log.txt") or b"no log").decode(errors="replace")
            error = log.strip().splitlines()[-1]
            told.append({"run": failed.name, "id": failed.id, "error": error})
    return told


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
