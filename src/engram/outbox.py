"""What a tracking server was not told yet: kept on disk, sent when it answers again.

A line of JSON for each thing that happened to a run, in `<folder>/<run>.jsonl`. Lines are
sent in order, and forgotten when the server has them. A line that is sent twice, since
the answer to the first time was lost, changes nothing: points have the time at which they
were taken, and a server keeps one of two that are equal. One that the server refuses goes
to `<run>.refused`, with its reason.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engram import store

PATIENCE = 10.0  # seconds after which a server that did not answer is asked again
Line = dict[str, Any]
Send = Callable[[Line], None]


class Outbox:
    """The lines of one run; several processes may have it at a time.

    Args:
        folder: of all runs of one server.
        run_id: of the run.
        send: function that tells the server a line; raises `ConnectionError` if there is
            no answer.
    """

    def __init__(self, folder: Path, run_id: str, send: Send):
        self._file = folder / f"{run_id}.jsonl"
        self._send = send
        self._asked = -PATIENCE

    def put(self, line: Line) -> None:
        """Sends a line, or keeps it for later."""
        with self._locked():
            first = self._file.stat().st_size == 0
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if first or time.monotonic() - self._asked >= PATIENCE:
                self._deliver()

    def put_file(self, path: Path, folder: str) -> None:
        """Sends a copy of a file, or keeps it for later."""
        copy = self._file.with_suffix("") / str(time.time_ns())
        copy.mkdir(parents=True)
        shutil.copy(path, copy)
        self.put({"kind": "file", "path": str(copy / path.name), "folder": folder})

    def lines(self) -> list[Line]:
        """Returns what waits to be sent."""
        with self._locked():
            return [json.loads(line) for line in self._file.read_text().splitlines()]

    def deliver(self) -> int:
        """Sends what there is; returns how many lines are left."""
        with self._locked():
            return self._deliver()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps others out, and ends the file with a whole line: a crash may cut one."""
        with store.alone(self._file.with_suffix(".lock")):
            with self._file.open("ab+") as file:
                file.seek(0)
                text = file.read()
                file.truncate(text.rfind(b"\n") + 1)
            yield

    def _deliver(self) -> int:
        lines = [json.loads(line) for line in self._file.read_text().splitlines()]
        sent = 0
        try:
            for line in lines:
                try:
                    self._send(line)
                except ConnectionError:
                    self._asked = time.monotonic()
                    break
                except Exception as error:  # no use in saying it again
                    self._refuse(line, error)
                if line["kind"] == "file":
                    shutil.rmtree(Path(line["path"]).parent, ignore_errors=True)
                sent += 1
        finally:
            if sent:
                self._write(lines[sent:])
        return len(lines) - sent

    def _refuse(self, line: Line, error: Exception) -> None:
        print(f"MLflow refuses a line of run {self._file.stem}: {error}")
        with self._file.with_suffix(".refused").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "refused": str(error)}) + "\n")

    def _write(self, lines: list[Line]) -> None:
        new = self._file.with_suffix(".new")
        text = "".join(json.dumps(line) + "\n" for line in lines)
        new.write_text(text, encoding="utf-8")
        new.replace(self._file)


def waiting(folder: Path) -> list[str]:
    """Returns the ids of runs that have lines to be sent."""
    files = sorted(folder.glob("*.jsonl"))
    return [file.stem for file in files if file.stat().st_size]
