"""Where a `dvc repro` is: stage k of n, time gone, and about how long it still takes.

    python -m engram.progress dvc repro

The command's own output passes through; stages start as `warm` tells. How long each took
is kept in `.dvc/tmp/seconds.json` for the next estimate; `engram explain` reads it, too.
"""

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from engram import repository, warm

STAGE = re.compile(rb"(Running stage|Stage) '(?:[^':]*:)?([\w@.-]+)'")
# What TensorFlow says at every start on a machine without a GPU; no switch of its own
# silences it.
NOISE = re.compile(
    rb"^(WARNING: All log messages before absl|[IW]0000 |E0000 .*cuInit"
    rb"|To enable the following instructions).*\r?\n",
    re.MULTILINE,
)
GUESS = 15.0  # seconds of a stage that never ran here
BOOK = Path(".dvc", "tmp", "seconds.json")  # in the repository's folder


class Progress:
    """Counts the stages named in DVC's output."""

    def __init__(
        self,
        stages: list[str],
        seconds: dict[str, float],
        begin: Callable[[], None] = lambda: None,
    ):
        self.begin = begin  # called when a stage starts
        self.left = list(stages)
        self.total = len(stages)
        self.seconds = dict(seconds)
        self.running: tuple[str, float] | None = None
        self.began = time.monotonic()

    def see(self, text: bytes) -> bytes:
        """Returns `text` with a line before each stage that starts, without noise."""
        return STAGE.sub(self._line, NOISE.sub(b"", text))

    def finish(self) -> None:
        """Notes how long the stage that was running took."""
        if self.running:
            stage, began = self.running
            self.seconds[stage] = round(time.monotonic() - began, 1)
            self.running = None

    def _line(self, found: re.Match) -> bytes:
        stage = found[2].decode()
        if stage not in self.left:
            return found[0]
        self.finish()
        self.left.remove(stage)
        if found[1] == b"Stage":  # "Stage 'x' didn't change, skipping"
            return found[0]
        self.begin()
        self.running = (stage, time.monotonic())
        place = f"[{self.total - len(self.left)}/{self.total}]"
        gone, left = time.monotonic() - self.began, self._estimate(stage)
        note = f"{place} {stage}: {clock(gone)} gone, about {clock(left)} left"
        return b"\n" + note.encode() + b"\r\n" + found[0]

    def _estimate(self, stage: str) -> float:
        return sum(expected(name, self.seconds) for name in [stage, *self.left])


def expected(stage: str, seconds: dict[str, float]) -> float:
    """Returns the seconds of a stage: its last ones, or else the mean of its kind."""
    kind = stage.split("@")[0]
    alike = [s for name, s in seconds.items() if name.split("@")[0] == kind]
    mean = sum(alike) / len(alike) if alike else GUESS
    return seconds.get(stage, mean)


def stages(dvc_yaml: Path) -> list[str]:
    """Returns the stage instances of a `dvc.yaml` that uses `foreach: ${block}`."""
    params = yaml.safe_load(dvc_yaml.with_name("params.yaml").read_text())
    names = []
    for stage, block in yaml.safe_load(dvc_yaml.read_text())["stages"].items():
        over = re.fullmatch(r"\$\{(\w+)\}", str(block.get("foreach", "")))
        names += [f"{stage}@{item}" for item in params[over[1]]] if over else [stage]
    return names


def run(command: list[str]) -> int:
    """Runs the command with the progress lines; returns its exit code."""
    book = repository.root() / BOOK
    seconds = json.loads(book.read_text()) if book.is_file() else {}
    with warm.python() as begin:
        progress = Progress(stages(Path("dvc.yaml")), seconds, begin)
        code = (
            _on_terminal(command, progress)
            if sys.stdout.isatty()
            else _piped(command, progress)
        )
    if code == 0:
        progress.finish()
    book.parent.mkdir(parents=True, exist_ok=True)
    book.write_text(json.dumps(progress.seconds, indent=2, sort_keys=True))
    return code


def _on_terminal(command: list[str], progress: Progress) -> int:
    # A terminal of its own, so that Keras still draws its progress bar.
    status = pty.spawn(command, lambda master: progress.see(os.read(master, 65536)))
    return os.waitstatus_to_exitcode(status)


def _piped(command: list[str], progress: Progress) -> int:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                sys.stdout.buffer.write(progress.see(line))
                sys.stdout.buffer.flush()
        except KeyboardInterrupt:  # DVC and its stage got it too and end by themselves
            sys.stdout.buffer.write(child.stdout.read())
    return child.returncode


def clock(seconds: float) -> str:
    """Returns `m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
