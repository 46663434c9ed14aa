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

KEPT = 2  # generations
Arrays = dict[str, np.ndarray]


class Checkpoint(NamedTuple):
    """Arrays by name, and what JSON can hold."""

    arrays: Arrays
    about: dict[str, Any]


class Busy(RuntimeError):
    """Another process writes to the same folder."""


class NotWritten(RuntimeError):
    """A checkpoint could not be written; those before are as they were."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder as long as this one is inside, or lives.

    Raises:
        Busy: if another one is inside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Busy(f"process {file.read() or 'unknown'} is at it already") from None
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
    folder.mkdir(parents=True, exist_ok=True)
    before = _files(folder)
    number = 1 + int(before[-1].name.split("-")[0]) if before else 1
    digest = hashlib.sha256(content.getbuffer()).hexdigest()
    unfinished = folder / "unfinished"
    try:
        with unfinished.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / f"{number:06}-{digest}.npz")
        _settle(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise NotWritten(
            f"no checkpoint of {content.tell():,} bytes could be written to {folder}:"
            f" {error.strerror}"
        ) from error
    for old in _files(folder)[:-KEPT]:
        old.unlink()


def read(folder: Path) -> Checkpoint | None:
    """Returns the newest checkpoint that is as it was written; None without one."""
    for file in reversed(_files(folder)):
        content = file.read_bytes()
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
        return Checkpoint(arrays, json.loads(arrays.pop("about").tobytes()))
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
