"""Promoted models in MLflow: logged with a signature, registered under an alias."""

import contextlib
import importlib.metadata
import io
import logging
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

from engram.serving import Served
from engram.serving.fields import TEXT, Field

# Of a served model. Engram is not among them: an index may have a stranger's package of
# that name, and MLflow would install it.
SERVING = ("mlflow", "tensorflow", "keras")
COLUMNS = {  # what MLflow calls them
    TEXT: DataType.string,
    "int64": DataType.long,
    "float32": DataType.float,
    "float64": DataType.double,
}


def log_model(
    run_id: str, code: Path, folder: Path, served: Served, packages: tuple[str, ...]
) -> str:
    """Logs a model that answers requests and returns its address.

    Args:
        run_id: of the run that it is of, which has ended and stays as it is.
        code: Python file that hands the model to `mlflow.models.set_model`.
        folder: what `serving.keep` wrote.
        served: what it returned.
        packages: that this model needs besides.
    """
    needed = [*SERVING, *packages]
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tries the example
    mlflow.set_experiment(experiment_id=mlflow.get_run(run_id).info.experiment_id)
    # as `mlflow.pyfunc.log_model` does, which knows no run but an open one
    return mlflow.models.Model.log(
        None,
        name="model",
        flavor=mlflow.pyfunc,
        run_id=run_id,
        python_model=str(code),
        artifacts={"served": str(folder)},
        signature=ModelSignature(
            _request(served.given), Schema(list(map(_column, served.answered)))
        ),
        input_example=_example(served),
        pip_requirements=[f"{one}=={importlib.metadata.version(one)}" for one in needed],
    ).model_uri


def has_alias(name: str, alias: str) -> dict[str, str] | None:
    """Returns the tags of the version that has an alias; None if there is none."""
    try:
        found = mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    except mlflow.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return dict(found.tags)


def register(
    address: str, name: str, alias: str, card: str, tags: dict[str, str]
) -> tuple[str, str | None]:
    """Puts a model into the registry and gives it the alias.

    Args:
        address: as `log_model` returned it.
        name: of the registered model, which may be new.
        alias: which may be another version's; it then moves.
        card: description in Markdown.
        tags: of the version.

    Returns:
        The version, and the version that had the alias, or None.
    """
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    before = client.get_registered_model(name).aliases.get(alias)
    with contextlib.redirect_stderr(io.StringIO()):  # it says what the caller says
        version = mlflow.register_model(address, name, tags=tags).version
    client.update_model_version(name, version, card)
    client.set_registered_model_alias(name, alias, version)
    return str(version), before and str(before)


def _columns(fields: list[Field]) -> bool:
    """Returns whether a request is a table of single values; else it is of tensors."""
    return not any(field.shape for field in fields)


def _request(fields: list[Field]) -> Schema:
    """Returns what MLflow checks of a request; a field that is alone has no name."""
    names = [field.name if len(fields) > 1 else None for field in fields]
    pairs = list(zip(fields, names, strict=True))
    if _columns(fields):
        return Schema([ColSpec(COLUMNS[one.dtype], name) for one, name in pairs])
    return Schema(
        [TensorSpec(np.dtype(one.dtype), (-1, *one.shape), name) for one, name in pairs]
    )


def _example(served: Served) -> Any:
    """Returns the example's request as MLflow takes it."""
    request = served.example["request"]
    if not _columns(served.given):
        request = {f.name: np.array(request[f.name], f.dtype) for f in served.given}
    if len(served.given) == 1:
        (alone,) = request.values()
        return alone
    return pd.DataFrame(request) if _columns(served.given) else request


def _column(field: Field) -> ColSpec:
    kind: Any = COLUMNS[field.dtype]
    for _ in field.shape:
        kind = Array(kind)
    return ColSpec(kind, field.name)
