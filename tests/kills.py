"""Kills a training at random moments and lets it go on; is it the one never stopped?

    python tests/kills.py MOMENTS [SEED] >> benchmarks/results/kills.log    # `make soak`

A repository of its own has one experiment with ten epochs. In a copy nothing is stopped.
In another `dvc repro` is stopped at random moments, from a second before its first
epoch on, by one of `WAYS`. After the last, undisturbed `dvc repro`, weights,
optimizer and losses have to be those of the first copy to the last bit, MLflow has to
show one finished run with one point for each epoch.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import toy

NAME = "toy-stlm"
EPOCHS = 10
BUSY = "is at it already"  # the training of a `dvc` that was killed alone
PATIENCE = 120.0  # seconds for one `dvc repro`
AGAIN = 100  # attempts that may find the last one still running


def group(running):
    """The whole process group, as an out-of-memory kill or a power cut."""
    os.killpg(running.pid, signal.SIGKILL)


def asked(running):
    """The whole process group is asked to end, as by a cluster that takes a node back."""
    os.killpg(running.pid, signal.SIGTERM)


def alone(running):
    """`dvc` alone; its training goes on."""
    running.kill()


WAYS = (group, asked, alone)


def repository(folder: Path) -> Path:
    """Makes a git and DVC repository with data that is prepared already."""
    toy.copy_repository(folder)
    train = toy.SOLVED | {"epochs": EPOCHS, "batch_size": 1, "seeds": [1]}
    block = toy.experiment("stlm", train=train)
    block["args"] = block["args"] | {"units": 192}  # an epoch of a second
    toy.write_params(folder, {NAME: block}, reference="stlm")
    for command in (["git", "init", "--quiet"], [*dvc(), "init", "--quiet"]):
        done = toy.call(command, folder, toy.environment(folder))
        assert done.returncode == 0, done.stderr
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    done = toy.call([*dvc(), "repro", "prepare@toy"], folder, toy.environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def dvc():
    return [sys.executable, "-m", "dvc"]


def started(folder: Path, **more) -> subprocess.Popen:
    """Starts `dvc repro` of the training in a process group of its own."""
    return subprocess.Popen(
        [*dvc(), "repro", f"train@{NAME}"],
        cwd=folder,
        env=toy.environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def undisturbed(folder: Path) -> tuple[float, float]:
    """Trains to the end; returns the seconds to the first epoch, and to the end."""
    began, first, said = time.monotonic(), 0.0, ""
    with started(folder) as running:
        assert running.stdout
        for line in running.stdout:
            said += line
            if line.startswith("Epoch 1/"):
                first = time.monotonic() - began
    assert running.returncode == 0 and first, said
    return first, time.monotonic() - began


def disturbed(folder: Path, moments: int, ways, seconds, draw: random.Random):
    """Stops `dvc repro` at so many moments, then lets it end; yields what was done."""
    first, end = seconds
    for n in range(moments):
        gone = draw.uniform(-1.0, 2.0 * (end - first) / moments)  # in all, the training
        way, moment = ways[n % len(ways)], first + gone
        with started(folder) as running:
            time.sleep(moment)
            ended = running.poll()
            if ended is None:
                way(running)
            said = running.stdout.read() if way is not alone else ""
            running.wait()
        yield f"{moment:5.1f} s, {way.__name__}: {place(said, ended)}"
    for _ in range(AGAIN):
        with started(folder) as running:
            said, _ = running.communicate(timeout=PATIENCE)
        if BUSY not in said:
            break
        time.sleep(1.0)
    assert running.returncode == 0, said
    yield f"undisturbed: {place(said, 0)}"


def place(said: str, ended: int | None) -> str:
    """Returns where a training was, as it said."""
    if BUSY in said:
        return "the one before is still at it"
    epochs = [line for line in said.splitlines() if line.startswith("Epoch ")]
    where = f"{epochs[0]} to {epochs[-1]}" if epochs else "before its first epoch"
    return where if ended is None else f"{where}, ended with {ended}"


def verify(folder: Path, whole: Path) -> None:
    """Compares a training that was stopped with one that was not."""
    history = Path("runs", NAME, "history.json")
    assert (folder / history).read_text() == (whole / history).read_text()
    model = Path("runs", NAME, "models/seed-1.keras")
    one, other = toy.arrays(folder / model), toy.arrays(whole / model)
    assert one.keys() == other.keys() and len(one) > 10
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    store = sqlite3.connect(folder / "mlruns/mlflow.db")
    runs = store.execute("select status, run_uuid from runs").fetchall()
    assert [status for status, _ in runs] == ["FINISHED"], runs
    query = "select key, step, count(*) from metrics where key like '%loss' group by 1, 2"
    points = {(key, step): count for key, step, count in store.execute(query)}
    steps = range(1, EPOCHS + 1)
    assert points == {(key, n): 1 for key in ("loss", "val_loss") for n in steps}
    told = dict(store.execute("select key, value from metrics where step = 10"))
    kept = json.loads((folder / history).read_text())["1"]
    assert told["loss"] == kept["loss"][-1]


def main(moments: str, seed: str = "1") -> None:
    """Stops one training so often, a third of the moments in each way."""
    draw = random.Random(int(seed))
    with tempfile.TemporaryDirectory() as place:
        whole = repository(Path(place, "whole"))
        folder = shutil.copytree(whole, Path(place, "stopped"), symlinks=True)
        seconds = undisturbed(whole)
        first, end = seconds
        print(f"seed {seed}: undisturbed, epochs are from {first:.1f} to {end:.1f} s")
        for said in disturbed(folder, int(moments), WAYS, seconds, draw):
            print(said, flush=True)
        verify(folder, whole)
    print(f"stopped {moments} times, the same to the last bit, one run")


if __name__ == "__main__":
    main(*sys.argv[1:])
