"""Rows of a long measurement, kept one by one, so that one that was stopped goes on."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

Row = dict[str, Any]


def like(block: dict[str, Any], data: list[Path], code: list[ModuleType]) -> Row:
    """Returns what rows of a stopped run must have in common with those of this one.

    Args:
        block: of `params.yaml`.
        data: folders that are read.
        code: modules that a row depends on.
    """
    files = [file for folder in data for file in sorted(folder.rglob("*"))]
    return {
        "block": block,
        "data": _digest([file for file in files if file.is_file()]),
        "code": _digest([Path(str(module.__file__)) for module in code]),
        "keras": keras.__version__,
    }


def _digest(files: list[Path]) -> str:
    parts = (hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(parts)).hexdigest()


@contextlib.contextmanager
def rows(
    path: Path, like: Row, measure: Callable[..., Iterator[Row]]
) -> Iterator[Iterator[Row]]:
    """Gives the rows of a measurement, each of which is written before it is given.

    The file is written as a whole or not at all, and removed once the block has ended
    well.

    Args:
        path: file of rows.
        like: of the function of that name.
        measure: takes `known`, the rows that a stopped run left in `path`, and yields
            them as they are, and all others.
    """
    yield _kept(path, like, measure)
    path.unlink(missing_ok=True)


def _kept(path: Path, like: Row, measure: Callable[..., Iterator[Row]]) -> Iterator[Row]:
    known, given = _known(path, like), []
    for row in measure(known=known):
        given.append(row)
        if len(given) > len(known):
            _keep(path, {"like": like, "rows": given})
        yield row


def _known(path: Path, like: Row) -> list[Row]:
    if not path.is_file():
        return []
    kept = json.loads(path.read_text())
    if kept["like"] != like:
        print(f"{path}: from other params, data or code, so not used", flush=True)
        return []
    print(f"{path}: goes on after {len(kept['rows'])} rows", flush=True)
    return kept["rows"]


def _keep(path: Path, content: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content))
    new.replace(path)
