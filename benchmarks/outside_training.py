"""Where the time of a `make repro` goes that is not training, in the tour's own runs.

    python benchmarks/outside_training.py      # after `make repro`, in its folder

Of each kind of stage the seconds that DVC waited for it, and those of its fits, which
MLflow has; beside them what a start costs: a script that imports what a stage imports, in
a process of its own and in a fork of the one that waits, in turns. Writes
results/outside_training.json.
"""

import json
import os
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from engram import progress, repository, store, warm

SCRIPT = "import keras, tensorflow, mlflow\n"
STARTS = 7


def main() -> None:
    """Measures, prints the table and writes the results file."""
    book = repository.root() / progress.BOOK
    if not book.is_file():
        print("no stage has run here: after `make repro` this tells their times, too")
    kinds = stages(json.loads(book.read_text()) if book.is_file() else {})
    print(f"{'stages':20}{'number':>8}{'seconds':>9}{'of them training':>18}")
    for kind, row in kinds.items():
        trained = row["training"]
        print(f"{kind:20}{row['number']:8}{row['seconds']:9.0f}{trained:18.0f}")
    cold, waiting = starts()
    print(f"a start: {cold:.2f} s; from the process that waits: {waiting:.2f} s")
    found = {"stages": kinds, "start": {"cold": cold, "warm": waiting}}
    file = Path(__file__).parent / "results" / "outside_training.json"
    file.write_text(json.dumps(found, indent=2) + "\n")


def stages(seconds: dict[str, float]) -> dict[str, dict[str, float]]:
    """Returns number, seconds and seconds of training of each kind of stage."""
    found: dict[str, dict[str, float]] = {}
    for stage, spent in seconds.items():
        kind = stage.split("@")[0]
        row = found.setdefault(kind, {"number": 0, "seconds": 0.0, "training": 0.0})
        row["number"] += 1
        row["seconds"] += spent
        row["training"] += trained(stage, spent)
    return found


def trained(stage: str, seconds: float) -> float:
    """Returns the seconds of the fits that ended while the stage last ran."""
    database = sqlite3.connect(store.folder() / store.DATABASE)
    fits = database.execute(
        "select m.value, r.end_time / 1000.0 from runs r join tags t using (run_uuid)"
        " join latest_metrics m using (run_uuid) where t.key = 'dvc.stage'"
        " and (t.value = ? or t.value like ?) and m.key = 'seconds'"
        " and r.lifecycle_stage = 'active' order by r.start_time desc",
        (stage, f"%:{stage}"),
    ).fetchall()
    total, last = 0.0, None
    for spent, ended in fits:  # the newest first
        last = last or ended
        if last - ended > seconds:
            break
        total += spent
    return total


def starts() -> tuple[float, float]:
    """Returns the median seconds of a cold and a warm start."""
    with tempfile.TemporaryDirectory() as place, warm.python() as start:
        script = Path(place, "script.py")
        script.write_text(SCRIPT)
        start()
        waiting = Path(os.environ["PATH"].split(":")[0], "socket")
        end = time.monotonic() + 120
        while not waiting.exists():
            if time.monotonic() > end:
                raise SystemExit("no process waits: on Linux without a GPU alone")
            time.sleep(0.1)
        here = os.environ["PATH"]
        found: dict[str, list[float]] = {"cold": [], "warm": []}
        for _ in range(STARTS):
            for kind in found:
                path = here if kind == "warm" else here.split(":", 1)[1]
                began = time.perf_counter()
                env = {**os.environ, "PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
                command = ["python", script]
                subprocess.run(command, env=env, check=True, stderr=subprocess.DEVNULL)
                found[kind].append(time.perf_counter() - began)
    return statistics.median(found["cold"]), statistics.median(found["warm"])


if __name__ == "__main__":
    main()
