"""Files of the runs that are open: locked while their process lives, whatever ends it.

mlruns/open/<store>/<run>.log      what the run says, while it trains
mlruns/open/<store>/<run>.again    nothing; the run is continued, to be evaluated
"""

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from engram import store, transcript

# How a log is read that may be cut anywhere; "r+", since NFS locks no other file.
CUT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": ""}


def log(run_id: str) -> Path:
    """Returns the file to which a run that is open writes its log."""
    return _folder() / f"{run_id}.log"


def again(run_id: str) -> Path:
    """Returns the file of a run that is continued; its log is in the store already."""
    return _folder() / f"{run_id}.again"


def files() -> list[Path]:
    """Returns the files of all runs, open ones and those left behind."""
    return [*sorted(_folder().glob("*.log")), *sorted(_folder().glob("*.again"))]


@contextlib.contextmanager
def alive(file: Path) -> Iterator[None]:
    """Keeps a run's file locked by this process, and removes it in the end."""
    with contextlib.ExitStack() as stack:
        with _alone():  # or `killed` could be first to lock it
            held = stack.enter_context(file.open("w"))
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def killed() -> Generator[tuple[Path, str]]:
    """Yields the file of each run whose process was killed, and what it holds.

    The file is forgotten when the next one is asked for.
    """
    for file in files():
        with (
            contextlib.suppress(FileNotFoundError),
            _alone(),
            file.open("r+", **CUT) as f,
        ):
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # it is alive
                continue
            if os.fstat(f.fileno()).st_nlink:  # or it ended well just now
                yield file, transcript.read(f)
                file.unlink()


def _folder() -> Path:
    return store.folder() / "open" / store.place()


def _alone() -> contextlib.AbstractContextManager[None]:
    """Lets one process at a time make files of runs, or look for those left behind."""
    return store.alone(_folder() / "open.lock")
