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
        params: as recorded, all of them text.
        metrics: of each the last value.
        tags: as recorded.
        data: name and digest of the dataset that it was given.
    """

    id: str
    name: str
    status: str
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


def find(tags: dict[str, str]) -> list[Run]:
    """Returns all runs with these tags, the newest first."""
    tracking.open_store()
    text = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=text,
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )
    return [_run(one) for one in found]


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
