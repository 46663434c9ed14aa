"""Trains an experiment with several workers on this machine, as a cluster would.

    python -m engram.workers 2 digits-conv-lstm      # `make cluster WORKERS=2 NAME=...`

Each worker is a process of its own, with real sockets between them. The first one writes
files and talks to MLflow, and what it says is shown; what each says is kept in
`.dvc/tmp/workers/<experiment>/<n>.log`. When one ends badly the others are ended. If it
is called again, training goes on at the last checkpoint. In the end the stage is entered
in `dvc.lock`, so that `dvc repro` goes on with its evaluation.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from engram import cluster, params, repository

LOGS = Path(".dvc", "tmp", "workers")  # in the repository's folder
PAUSE = 0.2  # seconds between two looks
LEAVE = 30.0  # seconds that the others may take to end, which is what Kubernetes gives
TAIL = 15  # lines of the log of a worker that failed


def main(argv: list[str] | None = None) -> None:
    """Trains with as many workers as the command says."""
    parser = argparse.ArgumentParser("python -m engram.workers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("count", type=int, metavar="WORKERS")
    parser.add_argument("experiment")
    given = parser.parse_args(argv)
    experiments = params.load_or_exit()["experiments"]
    if given.experiment not in experiments:
        known = ", ".join(experiments)
        sys.exit(f"{given.experiment}: no such experiment. Known: {known}")
    strategy = experiments[given.experiment]["train"]["strategy"]
    if strategy not in cluster.STRATEGIES:
        sys.exit(
            f"{given.experiment}: several workers need the `strategy` 'auto' or"
            f" 'multi_worker'. Received: {strategy!r}"
        )
    if given.count < 2:
        sys.exit(f"WORKERS must be at least 2. Received: {given.count}")
    stage = f"train@{given.experiment}"
    shutil.rmtree(Path("runs", given.experiment), ignore_errors=True)  # as DVC does
    if code := train(given.count, given.experiment):
        sys.exit(code)
    done = subprocess.run([sys.executable, "-m", "dvc", "commit", "--force", stage])
    sys.exit(done.returncode)


def train(count: int, experiment: str) -> int:
    """Runs the workers until all have ended; returns 0 or the code of one that failed."""
    folder = repository.root() / LOGS / experiment
    folder.mkdir(parents=True, exist_ok=True)
    workers = _started(count, experiment, folder)
    threading.Thread(target=_show, args=[workers[0], folder / "0.log"]).start()
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: asked.append(number))
    failed: int | None = None
    while any(one.poll() is None for one in workers) and failed is None and not asked:
        time.sleep(PAUSE)
        failed = _failed(workers)
    _end(workers, signal.SIGTERM if asked else signal.SIGKILL)
    codes = [one.wait() for one in workers]
    if asked:
        return 128 + asked[0]
    failed = _failed(workers) if failed is None else failed
    if failed is not None:
        print(f"worker {failed} ended with {codes[failed]}; {folder / f'{failed}.log'}:")
        lines = (folder / f"{failed}.log").read_text(errors="replace").splitlines()
        print("\n".join(lines[-TAIL:]))
        return 1
    return 0


def _failed(workers: list[subprocess.Popen]) -> int | None:
    return next((n for n, one in enumerate(workers) if one.poll()), None)


def addresses(count: int) -> tuple[str, ...]:
    """Returns addresses on this machine at which nobody listens."""
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in doors)
    for one in doors:
        one.close()
    return found


def _started(count: int, experiment: str, folder: Path) -> list[subprocess.Popen]:
    among = addresses(count)
    env = {**os.environ, "DVC_STAGE": f"train@{experiment}"}
    workers = []
    for n in range(count):
        log = (folder / f"{n}.log").open("wb")
        one = subprocess.Popen(
            [sys.executable, repository.here() / "pipeline/train.py", experiment],
            env=env | {"TF_CONFIG": cluster.Workers(among, n).as_tf_config()},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches them through this process, once
        )
        log.close()
        workers.append(one)
    return workers


def _show(worker: subprocess.Popen, log: Path) -> None:
    for text in _lines(worker, log):
        print(text, end="", flush=True)


def _lines(worker: subprocess.Popen, log: Path) -> Iterator[str]:
    """Yields what a worker says, until it has ended."""
    with log.open(errors="replace") as file:
        while worker.poll() is None:
            yield file.read()
            time.sleep(PAUSE)
        yield file.read()


def _end(workers: list[subprocess.Popen], number: int) -> None:
    """Ends those that are still there; TensorFlow may not hear of SIGTERM."""
    for one in workers:
        if one.poll() is None:
            one.send_signal(number)
    end = time.monotonic() + LEAVE
    while any(one.poll() is None for one in workers) and time.monotonic() < end:
        time.sleep(PAUSE)
    for one in workers:
        one.kill()


if __name__ == "__main__":
    main()
