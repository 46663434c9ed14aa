"""Checkpoints on disk: written whole or not at all, two kept, each verified when read.

    <folder>/000007-<SHA-256 of the content>.npz

A file has its name once all of it is on the disk, so that one that is found was written
to its end; what has changed since does not match its name and is not used.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engram.stops import Stopped

KEPT = 2  # generations
Arrays = dict[str, np.ndarray]


class Checkpoint(NamedTuple):
    """Arrays by name, what JSON can hold, and the name of the file."""

    arrays: Arrays
    about: dict[str, Any]
    name: str


class Busy(Stopped):
    """Another process writes to the same folder."""


class NotWritten(Stopped):
    """A checkpoint could not be written; those before are as they were."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder as long as this one is inside, or lives.

    Raises:
        Busy: if another one is inside.
    """
    with contextlib.ExitStack() as stack:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((folder / "lock").open("a+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                pid = file.read() or "unknown"
                raise Busy(f"process {pid} is at it already") from None
            if os.fstat(file.fileno()).st_nlink:  # or it was removed just now
                break
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write(folder: Path, arrays: Arrays, about: dict[str, Any]) -> None:
    """Writes a checkpoint and removes all but the last two.

    Raises:
        NotWritten: with the reason, such as a full disk.
    """
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    content = io.BytesIO()
    np.savez(content, about=text, **arrays)  # type: ignore[arg-type]
    digest = hashlib.sha256(content.getbuffer()).hexdigest()
    unfinished = folder / "unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _files(folder)
        number = 1 + int(before[-1].name.split("-")[0]) if before else 1
        with unfinished.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / f"{number:06}-{digest}.npz")
        _settle(folder)
        for old in _files(folder)[:-KEPT]:
            old.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise NotWritten(
            f"no checkpoint of {content.tell():,} bytes could be written to {folder}:"
            f" {error.strerror}"
        ) from error


def read(folder: Path) -> Checkpoint | None:
    """Returns the newest checkpoint that is as it was written; None without one."""
    for file in reversed(_files(folder)):
        try:
            content = file.read_bytes()
        except FileNotFoundError:  # another worker has refused it
            continue
        if hashlib.sha256(content).hexdigest() != file.stem.split("-")[1]:
            print(
                f"{file} is not what was written: it is refused, if there is one before"
                " that is used"
            )
            with contextlib.suppress(OSError):  # another worker was first
                file.replace(file.with_suffix(".refused"))
            continue
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        return Checkpoint(arrays, json.loads(arrays.pop("about").tobytes()), file.name)
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-*.npz"))


def _settle(folder: Path) -> None:
    """Lets the names of a folder's files be on the disk, too."""
    there = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(there)
    finally:
        os.close(there)
