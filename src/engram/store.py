"""The store of runs moves with its folder: MLflow keeps absolute paths, these are mended.

    file:///before/mlruns/digits/<run>/artifacts    ->    file:///now/mlruns/digits/...

MLflow writes the whole path of a run's artifacts into its database (its issue 3144), so
that a folder that was moved or copied shows no file any more. `mend` is called whenever
the store is opened. It needs SQLite alone.
"""

import contextlib
import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

from engram import repository

FOLDER, DATABASE = "mlruns", "mlflow.db"
PLACES = {  # table -> columns with paths
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "logged_models": ["artifact_location"],
    "model_versions": ["source", "storage_location"],
}
KEPT = 3  # copies of the database
WAIT = 60  # seconds for another process that writes
# The store that the user named instead, or None; read here, since MLflow sets it itself.
ELSEWHERE = os.environ.get("MLFLOW_TRACKING_URI")


def folder() -> Path:
    """Returns the folder of the store."""
    return (repository.root() / FOLDER).resolve()


def address() -> str:
    """Returns the store's address, as MLflow wants it."""
    return f"sqlite:///{folder() / DATABASE}"


def place() -> str:
    """Returns the name of the folder for what concerns one store alone."""
    return quote(str(ELSEWHERE), safe="")


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Waits until no other process is inside; a lock ends with its process."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mend(where: Path) -> int:
    """Points the database in `where` to the artifacts beside it.

    A path is changed if what it names is also found here, at the same place below
    `mlruns`, or is found nowhere. All of them change or none; the database before is kept
    as `mlflow-<time>.db`.

    Args:
        where: folder of the database.

    Returns:
        How many paths were changed.
    """
    database = where / DATABASE
    if not database.is_file():
        return 0
    with contextlib.closing(sqlite3.connect(database, timeout=WAIT)) as store:
        if not _moved(store, where):
            return 0
        store.isolation_level = None  # the transaction is ours
        store.execute("BEGIN IMMEDIATE")
        try:
            moved = _moved(store, where)  # another process may have been first
            if moved:
                _keep(database)
            for table, column, was, now in moved:
                store.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (now, was)
                )
            store.execute("COMMIT")
        except BaseException:
            store.execute("ROLLBACK")
            raise
    return len(moved)


def _moved(store: sqlite3.Connection, where: Path) -> list[tuple[str, str, str, str]]:
    """Returns table, column, old and new value of each path that has to change."""
    found = []
    for table, columns in PLACES.items():
        known = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
        for column in columns:
            if column not in known:  # MLflow has not made the table yet
                continue
            for (was,) in store.execute(f"SELECT DISTINCT {column} FROM {table}"):
                now = _here(was, where)
                if now and now != was:
                    found.append((table, column, was, now))
    return found


def _here(was: str | None, where: Path) -> str | None:
    """Returns where an address is now; None for one that is not a path below `mlruns`."""
    is_uri = str(was).startswith("file:")
    if was is None or not (is_uri or was.startswith("/")):
        return None
    old = Path(unquote(urlparse(was).path) if is_uri else was)
    if FOLDER not in old.parts or old.is_relative_to(where):
        return None
    depth = len(old.parts) - old.parts[::-1].index(FOLDER)
    new = where.joinpath(*old.parts[depth:])
    if old.exists() and not new.exists():
        return None
    return new.as_uri() if is_uri else str(new)


def _keep(database: Path) -> None:
    """Copies the database; of the copies before, the last few stay."""
    for old in sorted(database.parent.glob(f"{database.stem}-*"))[: 1 - KEPT]:
        old.unlink()
    name = f"{database.stem}-{time.strftime('%Y%m%d-%H%M%S')}{database.suffix}"
    with (
        contextlib.closing(sqlite3.connect(database)) as now,
        contextlib.closing(sqlite3.connect(database.with_name(name))) as kept,
    ):
        now.backup(kept)


def main() -> None:
    """Mends the store and prints its address, for the commands of MLflow."""
    if moved := mend(folder()):
        print(f"mlruns: {moved} paths of artifacts mended", file=sys.stderr)
    print(address())


if __name__ == "__main__":
    main()
