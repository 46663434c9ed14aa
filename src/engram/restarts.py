"""Where a stage's checkpoints are, and which of them its next start may use.

    .dvc/tmp/checkpoints/<suite>/<stage>/<key>/

Another key for each version of what the stage follows from: its code, data and params.
The folder is none of the stage's outputs, which DVC removes before a start. It goes when
the stage is in `dvc.lock`, or after a week in which the stage had other keys.
"""

import contextlib
import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engram import checkpoints, locked, repository, stage_key
from engram.stops import Stopped

PLACE = Path(".dvc", "tmp", "checkpoints")  # in the repository's folder
KEPT = 7 * 24 * 3600  # seconds that checkpoints of another key are kept
PACKAGES = ("tensorflow", "keras", "numpy")  # others would round in another way
DONE = "done"  # a file in the folder of a stage that has written all its outputs


@contextlib.contextmanager
def kept(stage: str, params: dict[str, Any], alone: bool = True) -> Iterator[Path | None]:
    """Yields the folder for the checkpoints of a stage; what may stop it is one line.

    Where DVC knows of no stages there is none.

    Args:
        stage: such as `"train@traffic-gru"`, of the `dvc.yaml` in this folder.
        params: dotted names and values, as `dvc.lock` has them.
        alone: whether to keep other processes out; not for all workers but one.

    Raises:
        SystemExit: if another process does this stage with the same key, or a training
            is stopped inside.
    """
    folder = folder_of(stage, Path.cwd())
    versions = [importlib.metadata.version(name) for name in PACKAGES]
    key = stage_key.of(stage, params, versions)
    own = folder / key if key else None
    try:
        with _alone(stage, params, own) if own and alone else contextlib.nullcontext():
            yield own
    except Stopped as error:
        sys.exit(f"{stage.replace('@', ' ')}: {error}")
    for one in others(folder, own) if own and alone else []:
        if time.time() - one.stat().st_mtime > KEPT:
            forget(one)


@contextlib.contextmanager
def _alone(stage: str, params: dict[str, Any], own: Path) -> Iterator[None]:
    with checkpoints.alone(own):
        if (own / DONE).exists() and not _lost(stage, params):
            _empty(own)  # this is another training of the same
        left = [one for one in others(own.parent, own) if not (one / DONE).exists()]
        if any(next(one.glob("*/*.npz"), None) for one in left):
            print(f"{stage}: its checkpoints of other params, code or data are not used")
        try:
            yield
        finally:
            os.utime(own)
        (own / DONE).touch()


def folder_of(stage: str, suite: Path) -> Path:
    """Returns the folder of all keys of a stage."""
    return repository.root() / PLACE / repository.suite(suite) / stage


def others(folder: Path, own: Path) -> list[Path]:
    """Returns the folders of other keys."""
    return sorted(one for one in folder.iterdir() if one.is_dir() and one != own)


def forget(folder: Path) -> None:
    """Removes the checkpoints of a key, unless a process is at them."""
    with contextlib.suppress(checkpoints.Busy), checkpoints.alone(folder):
        shutil.rmtree(folder)


def _lost(stage: str, params: dict[str, Any]) -> bool:
    """Returns whether DVC runs a stage that was done before, but is not in `dvc.lock`."""
    entry = locked.read(Path()).get(stage)
    known = entry and locked.is_current(Path(), entry, params)
    return "DVC_STAGE" in os.environ and not known


def _empty(folder: Path) -> None:
    for one in folder.iterdir():
        if one.is_dir():
            shutil.rmtree(one)
    (folder / DONE).unlink()
