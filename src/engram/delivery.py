"""Delivers what happens to a run to MLflow: at once, or when its server answers again."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

# A server that does not answer is asked again by the outbox, not by MLflow for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
import mlflow
import requests
from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from engram import outbox

POINTS = 1000  # in a batch, MLflow's limit
# Looked up here, because mlflow.set_tracking_uri sets the variable itself.
STORE_OF_ONES_OWN = os.environ.get("MLFLOW_TRACKING_URI")


@contextlib.contextmanager
def opened(**how) -> Iterator[str]:
    """Opens a run as `mlflow.start_run` does; it ends when the server hears of it."""
    run_id = mlflow.start_run(**how).info.run_id
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    finally:
        now = int(time.time() * 1000)
        put(run_id, {"kind": "end", "status": status, "time": now})
        try:
            mlflow.end_run(status)
        except mlflow.MlflowException as error:
            if not _down(error):
                raise
        if left := run_id in outbox.waiting() and _outbox(run_id).deliver():
            print(
                f"{mlflow.get_tracking_uri()} does not answer: {left} lines of run"
                f" {run_id} are kept, `engram sync` sends them"
            )


def put(run_id: str, line: outbox.Line) -> None:
    """Tells the store a line; a server that does not answer is told later."""
    if not is_server():
        _tell(run_id, line)
    elif line["kind"] == "file":
        _outbox(run_id).put_file(Path(line["path"]), line["folder"])
    else:
        _outbox(run_id).put(line)


def is_server() -> bool:
    """Returns whether the store is a server, which may not answer."""
    return str(STORE_OF_ONES_OWN).startswith(("http:", "https:"))


@functools.cache
def _outbox(run_id: str) -> outbox.Outbox:
    return outbox.Outbox(run_id, functools.partial(_tell, run_id))


def _tell(run_id: str, line: outbox.Line) -> None:
    """Tells the store a line.

    Raises:
        ConnectionError: if there is no answer.
    """
    client = mlflow.MlflowClient()
    try:
        match line["kind"]:
            case "points":
                points = [Metric(*point) for point in line["points"]]
                for n in range(0, len(points), POINTS):
                    client.log_batch(run_id, metrics=points[n : n + POINTS])
            case "table":
                columns = line["columns"]
                rows = [list(row) for row in zip(*columns.values(), strict=True)]
                content = {"columns": list(columns), "data": rows}
                client.log_dict(run_id, content, line["path"])
                about = [{"path": line["path"], "type": "table"}]
                client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps(about))
            case "text":
                client.log_text(run_id, line["text"], line["path"])
            case "file":
                client.log_artifact(run_id, line["path"], line["folder"])
            case "end":
                client.set_terminated(run_id, line["status"], line["time"])
    except (mlflow.MlflowException, OSError) as error:  # those of `requests` are OSErrors
        if not _down(error):
            raise
        raise ConnectionError(str(error)) from error


def _down(error: Exception) -> bool:
    """Returns whether an error says that a server does not answer, or not now."""
    if not is_server():
        return False
    if isinstance(error, requests.RequestException):
        status = getattr(error.response, "status_code", 503)
        return status >= 500
    code = getattr(error, "error_code", "")
    return code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


def send_later() -> dict[str, int]:
    """Sends what a server was not told; returns how many lines of each run are left."""
    return {run_id: _outbox(run_id).deliver() for run_id in outbox.waiting()}
