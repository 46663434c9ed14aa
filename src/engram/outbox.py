"""What a tracking server was not told yet: kept on disk, sent when it answers again.

A line of JSON for each thing that happened to a run, in `mlruns/outbox/<run>.jsonl`.
Lines are sent in order, and forgotten when the server has them. A line that is sent
twice, since the answer to the first time was lost, changes nothing: points have the time
at which they were taken, and a server keeps one of two that are equal.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engram import store

PATIENCE = 10.0  # seconds after which a server that did not answer is asked again
Line = dict[str, Any]
Send = Callable[[Line], None]


class Outbox:
    """The lines of one run.

    Args:
        run_id: of the run.
        send: function that tells the server a line; raises `ConnectionError` if there is
            no answer.
    """

    def __init__(self, run_id: str, send: Send):
        self._folder = store.folder() / "outbox"
        self._file = self._folder / f"{run_id}.jsonl"
        self._send = send
        self._asked = -PATIENCE
        self._lines: list[Line] = []
        if self._file.is_file():
            text = self._file.read_text(encoding="utf-8")
            # one that was cut off by a crash was never acknowledged to anybody
            whole = text[: text.rfind("\n") + 1]
            self._lines = [json.loads(line) for line in whole.splitlines()]

    def put(self, line: Line) -> None:
        """Sends a line, or keeps it for later."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._lines.append(line)
        if time.monotonic() - self._asked >= PATIENCE or len(self._lines) == 1:
            self.deliver()

    def put_file(self, path: Path, folder: str) -> None:
        """Sends a copy of a file, or keeps it for later."""
        copy = self._file.with_suffix("") / f"{len(self._lines)}-{time.time_ns()}"
        copy.mkdir(parents=True)
        shutil.copy(path, copy)
        self.put({"kind": "file", "path": str(copy / path.name), "folder": folder})

    def deliver(self) -> int:
        """Sends what there is; returns how many lines are left."""
        sent = 0
        try:
            for line in self._lines:
                self._send(line)
                sent += 1
        except ConnectionError:
            self._asked = time.monotonic()
        if sent:
            self._forget(sent)
        return len(self._lines)

    def _forget(self, sent: int) -> None:
        gone, self._lines = self._lines[:sent], self._lines[sent:]
        if self._lines:
            new = self._file.with_suffix(".new")
            text = "".join(json.dumps(line) + "\n" for line in self._lines)
            new.write_text(text, encoding="utf-8")
            new.replace(self._file)
        else:
            self._file.unlink(missing_ok=True)
        for line in gone:
            if line["kind"] == "file":
                shutil.rmtree(Path(line["path"]).parent, ignore_errors=True)


def waiting() -> list[str]:
    """Returns the ids of runs that have lines to be sent."""
    folder = store.folder() / "outbox"
    return sorted(file.stem for file in folder.glob("*.jsonl"))
