"""Stages start from a process that has TensorFlow imported: five seconds less for each.

DVC runs `python pipeline/train.py <name>`. Inside `python()` that `python` is a script,
which asks a waiting process to fork; the fork runs the stage:

    dvc repro -> python (`ask`) - - socket - -> `serve` -> its fork's fork, the stage

The waiting process has loaded nothing of engram, so that a stage's code is as it is when
the stage starts. Until it waits, and for what is no script (`python -m`), the script is
Python itself. It stands for the stage: signals go on to it, the stage ends with it, its
exit code is that of the stage.

On Linux without a GPU alone: CUDA does not survive a fork.

    warm.py serve SOCKET            until standard input ends
    warm.py ask SOCKET SCRIPT ARGS
"""

import contextlib
import gc
import io
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Order = dict[str, Any]  # folder, environment and command of a stage
SEEN = (  # go on to the stage
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP),
)


@contextlib.contextmanager
def python() -> Iterator[Callable[[], None]]:
    """Puts the script first on `PATH`; yields a function that starts what it asks.

    Called again, the function does nothing. Nothing is done where it cannot work.
    """
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        yield lambda: None
        return
    servers: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory(prefix="warm-") as place:  # short: a socket's name
        address = f"{place}/socket"

        def start() -> None:
            if not servers:
                servers.append(_started(address))

        _write(Path(place, "python"), address)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{place}:{before}"
        try:
            yield start
        finally:
            os.environ["PATH"] = before
            for server in servers:
                server.kill()
                server.wait()
                assert server.stdin
                server.stdin.close()


def _started(address: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-P", __file__, "serve", address],
        stdin=subprocess.PIPE,  # ends with this process
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches a stage through `ask`, once
    )


def _write(script: Path, address: str) -> None:
    own, file, place = map(shlex.quote, (sys.executable, __file__, address))
    script.write_text(
        "#!/bin/sh\n"
        f'case "$1" in -*|"") exec {own} "$@";; esac\n'
        f'exec {own} -I -S {file} ask {place} "$@"\n'
    )
    script.chmod(0o755)


def ask(address: str, *command: str) -> None:
    """Lets a fork of the waiting process run a script, and ends as that ends."""
    order = {"folder": os.getcwd(), "environment": dict(os.environ), "command": command}
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    signal.pthread_sigmask(signal.SIG_BLOCK, SEEN)  # until the stage is there
    try:
        asked.connect(address)
        socket.send_fds(asked, [json.dumps(order).encode()], [0, 1, 2])
    except OSError:  # it does not wait yet, or not any more
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SEEN)
        os.execv(sys.executable, [sys.executable, *command])
    stage = int(asked.recv(32) or 0)
    if not stage:
        sys.exit(f"{' '.join(command)}: the process that should start it has died")

    def go_on(number, frame):
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGTSTP:  # Ctrl-Z: both wait
                os.kill(stage, signal.SIGSTOP)
                os.kill(os.getpid(), signal.SIGSTOP)
                number = signal.SIGCONT
            os.kill(stage, number)

    for number in SEEN:
        signal.signal(number, go_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SEEN)
    code = int(asked.recv(32) or -signal.SIGKILL)
    if code < 0:  # by a signal: so does this
        if -code in SEEN:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def serve(address: str, how: Callable[[Order], None]) -> None:
    """Waits for orders, with what a training needs imported; a fork runs each."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would be a thread
    import dvc.repo  # noqa: F401, to have it: that takes the time
    import keras  # noqa: F401
    import mlflow  # noqa: F401
    import tensorflow  # noqa: F401

    ours = [name for name in sys.modules if name.split(".")[0] == "engram"]
    assert not ours, ours
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
        waiting.bind(address + "-new")
        waiting.listen()
        os.rename(address + "-new", address)
        order = _order(waiting)
    if order:  # this is a stage
        how(order)


def _order(waiting: socket.socket) -> Order | None:
    """Returns the order to a stage's process; None when standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    while True:
        ready, _, _ = select.select([waiting, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        asked, _ = waiting.accept()
        if os.fork():
            asked.close()
            continue
        waiting.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        message, files, _, _ = socket.recv_fds(asked, 1 << 22, 3)
        if not message:
            os._exit(0)
        if stage := os.fork():
            _watch(asked, stage)
            os._exit(0)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        asked.close()
        return json.loads(message)


def _watch(asked: socket.socket, stage: int) -> None:
    """Tells who asked the stage's number and its end; kills it if they are gone."""
    with contextlib.suppress(OSError):
        asked.sendall(str(stage).encode())
        ended = os.pidfd_open(stage)
        ends: list[Any] = [asked, ended]
        if ended not in select.select(ends, [], [])[0]:
            os.kill(stage, signal.SIGKILL)
    _, status = os.waitpid(stage, 0)
    with contextlib.suppress(OSError):
        asked.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def run(order: Order) -> None:
    """Does what Python does with a script and its arguments."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = list(order["command"])
    script = os.path.abspath(sys.argv[0])
    extra = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    sys.path[:] = [os.path.dirname(script), *extra, *sys.path]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    word, address, *command = sys.argv[1:]
    if word == "serve":
        serve(address, run)
    else:
        ask(address, *command)
