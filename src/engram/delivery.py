"""Delivers what happens to a run to MLflow: at once, or when its server answers again."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A server that does not answer is asked again by the outbox, not by MLflow for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
import mlflow
import requests
from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from engram import open_runs, outbox, store, transcript

POINTS = 1000  # in a batch, MLflow's limit
SECONDS = {"points": 10, "end": 10}  # to wait for an answer; else MLflow's 120
OPENING = 600  # seconds that a run waits for a server that does not answer


def is_server() -> bool:
    """Returns whether the store is a server, which may not answer."""
    return str(store.ELSEWHERE).startswith(("http:", "https:"))


def unsent() -> Path:
    """Returns the folder of what this server was not told."""
    return store.folder() / "outbox" / store.place()


@contextlib.contextmanager
def opened(again: bool = False, **how) -> Iterator[str]:
    """Opens a run as `mlflow.start_run` does; it ends when the server hears of it.

    Args:
        again: whether its log is in the store already.
        **how: of `mlflow.start_run`.
    """
    run_id = patiently(functools.partial(mlflow.start_run, **how)).info.run_id
    status = "FAILED"
    try:
        file = open_runs.again(run_id) if again else open_runs.log(run_id)
        with open_runs.alive(file):
            try:
                yield run_id
                status = "FINISHED"
            except SystemExit as error:
                status = "KILLED" if transcript.was_asked(error) else status
                raise
            finally:
                _end(run_id, status, time.time())
    finally:
        try:
            mlflow.end_run(status)
        except mlflow.MlflowException as error:
            if not down(error):
                raise
        if is_server() and (left := _outbox(run_id).deliver()):
            print(
                f"{mlflow.get_tracking_uri()} does not answer: {left} lines of run"
                f" {run_id} are kept, `engram sync` sends them"
            )


def bury() -> list[str]:
    """Ends the runs whose process was killed, as `"KILLED"`; returns their ids.

    One that the store does not know any more, or does not let end, is forgotten.
    """
    found = []
    with contextlib.closing(open_runs.killed()) as killed:  # it holds a lock
        for file, text in killed:
            try:
                _end_killed(file, text)
                found.append(file.stem)
            except mlflow.MlflowException as error:
                print(f"run {file.stem} was killed and cannot be ended: {error.message}")
    return found


def _end_killed(file: Path, text: str) -> None:
    again = file == open_runs.again(file.stem)
    text += "\n" if text and not text.endswith("\n") else ""
    text += f"Its process was killed{' while it was evaluated' if again else ''}.\n"
    path = "evaluate.log.txt" if again else "log.txt"
    put(file.stem, {"kind": "text", "text": text, "path": path})
    _end(file.stem, "KILLED", file.stat().st_mtime)


def _end(run_id: str, status: str, seconds: float) -> None:
    put(run_id, {"kind": "end", "status": status, "time": int(seconds * 1000)})


def patiently(ask: Callable[[], Any]) -> Any:
    """Asks a server until it answers, for at most `OPENING` seconds."""
    end, told = time.monotonic() + OPENING, False
    while True:
        try:
            return ask()
        except (mlflow.MlflowException, OSError) as error:
            if not down(error) or time.monotonic() > end:
                raise
            if not told:
                print(f"{store.ELSEWHERE} does not answer; waiting", flush=True)
            told = True
            time.sleep(outbox.PATIENCE / 2)


def put(run_id: str, line: outbox.Line) -> None:
    """Tells the store a line; a server that does not answer is told later."""
    if not is_server():
        _tell(run_id, line)
    elif line["kind"] == "file":
        _outbox(run_id).put_file(Path(line["path"]), line["folder"])
    else:
        _outbox(run_id).put(line)


def told(run_id: str) -> set[tuple[str, int]]:
    """Returns name and step of each point that a run has, or that waits to be sent."""
    client = mlflow.MlflowClient()
    names = patiently(lambda: client.get_run(run_id)).data.metrics
    found = {
        (name, point.step)
        for name in names
        for point in patiently(functools.partial(client.get_metric_history, run_id, name))
    }
    points = [
        point for line in _waiting_lines(run_id) for point in line.get("points", [])
    ]
    return found | {(name, step) for name, _, _, step in points}


def waiting(run_id: str, path: str) -> outbox.Line | None:
    """Returns the newest text or table of a run that waits to be sent to a path."""
    lines = [one for one in _waiting_lines(run_id) if one["kind"] in ("text", "table")]
    return next((one for one in reversed(lines) if one["path"] == path), None)


def _waiting_lines(run_id: str) -> list[outbox.Line]:
    return _outbox(run_id).lines() if is_server() else []


def send_later() -> dict[str, int]:
    """Sends what a server was not told; returns how many lines of each run are left."""
    return {run_id: _outbox(run_id).deliver() for run_id in outbox.waiting(unsent())}


@functools.cache
def _outbox(run_id: str) -> outbox.Outbox:
    return outbox.Outbox(unsent(), run_id, functools.partial(_tell, run_id))


def _tell(run_id: str, line: outbox.Line) -> None:
    """Tells the store a line.

    Raises:
        ConnectionError: if there is no answer.
    """
    client = mlflow.MlflowClient()
    try:
        with _waiting(SECONDS.get(line["kind"], 120)):
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
                    client.log_artifact(run_id, line["path"], line["folder"] or None)
                case "end":
                    client.set_terminated(run_id, line["status"], line["time"])
    except (mlflow.MlflowException, OSError) as error:  # those of `requests` are OSErrors
        if not down(error):
            raise
        raise ConnectionError(str(error)) from error


@contextlib.contextmanager
def _waiting(seconds: int) -> Iterator[None]:
    """Lets MLflow wait some seconds for an answer, if the environment says nothing."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name)
    os.environ.setdefault(name, str(seconds))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def down(error: Exception) -> bool:
    """Returns whether an error says that a server does not answer, or not now."""
    if not is_server():
        return False
    if isinstance(error, requests.RequestException):
        return getattr(error.response, "status_code", 503) >= 500
    code = getattr(error, "error_code", "")
    return code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
