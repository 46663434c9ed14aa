"""A tracking server that is killed in mid-run has every point in the end, each once."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request

import pytest

from engram import outbox

EPOCHS = 12
TRAIN = """
import pathlib, sys, time
from engram import tracking
spec = {"dataset": "ring", "fingerprint": "f"}
with tracking.run("net", "ring", {"units": 3}, {}, spec) as (run_id, record):
    print(run_id, flush=True)
    for epoch in range(1, %d):
        record({"loss": 1 / epoch, "val_loss": 2 / epoch}, epoch, {"text": [f"t{epoch}"]})
        print("epoch", epoch, flush=True)
        sys.stdin.readline()
    tracking.log_results({"rmse": 0.5})
    tracking.log_files([pathlib.Path("model.bin")], "model")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("server")
    (place / "work/.dvc").mkdir(parents=True)
    (place / "work/dvc.yaml").write_text("stages: {}\n")
    (place / "work/model.bin").write_bytes(bytes(range(256)))
    return place


@pytest.fixture(scope="module")
def server(place):
    """Functions that start and kill an `mlflow server` with a database and artifacts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, running = f"http://127.0.0.1:{port}", []

    def start():
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port)]
        command += ["--backend-store-uri", f"sqlite:///{place}/server.db"]
        command += ["--artifacts-destination", str(place / "files"), "--workers", "1"]
        env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        env |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
        env |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (place / "log").open("a") as log:
            running.append(
                subprocess.Popen(
                    command,
                    cwd=place,
                    env=env,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                return
            time.sleep(0.3)
        raise TimeoutError((place / "log").read_text())

    def kill():
        for one in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()
        running.clear()

    start()
    yield address, start, kill
    kill()


def train(place, address):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
    env |= {"MLFLOW_TRACKING_URI": address, "MLFLOW_DISABLE_TELEMETRY": "true"}
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN % EPOCHS],
        cwd=place / "work",
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def step(process, times):
    """Lets a training go on for some epochs."""
    for _ in range(times):
        assert process.stdout.readline().startswith("epoch")
        process.stdin.write("\n")
        process.stdin.flush()


def sync(place, address):
    code = "from engram import sync; sync.main([])"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
    env |= {"MLFLOW_TRACKING_URI": address}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place / "work",
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(place, run_id):
    """Returns what the server has of a run: status, points, files."""
    store = sqlite3.connect(place / "server.db")
    query = "select status, artifact_uri from runs where run_uuid = ?"
    (status, _) = store.execute(query, (run_id,)).fetchone()
    points = store.execute(
        "select key, step, value from metrics"
        " where run_uuid = ? and key not like 'system%'",
        (run_id,),
    ).fetchall()
    (folder,) = (place / "files").glob(f"*/{run_id}/artifacts")
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.*")}
    files = {name: content for name, content in files.items() if name != "log.txt"}
    return status, sorted(points), files


@pytest.fixture(scope="module")
def undisturbed(place, server):
    address, _, _ = server
    process = train(place, address)
    run_id = process.stdout.readline().strip()
    step(process, EPOCHS - 1)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return told(place, run_id)


def test_a_run_is_told_whole(undisturbed):
    status, points, files = undisturbed
    assert status == "FINISHED"
    assert len(points) == 2 * (EPOCHS - 1) + 1
    assert ("loss", 4, 0.25) in points and ("rmse", 0, 0.5) in points
    assert files["model/model.bin"] == bytes(range(256))
    table = json.loads(files["samples.json"])
    assert table["columns"] == ["epoch", "text"] and table["data"][2] == [3, "t3"]


def test_a_server_that_comes_back_has_the_same_as_if_it_had_stayed(
    place, server, undisturbed
):
    address, start, kill = server
    process = train(place, address)
    run_id = process.stdout.readline().strip()
    step(process, 4)
    kill()
    step(process, 4)  # goes on without it
    assert outbox_lines(place, run_id) > 0
    start()
    time.sleep(outbox.PATIENCE)
    step(process, EPOCHS - 9)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert told(place, run_id) == undisturbed
    assert outbox_lines(place, run_id) == 0


def test_what_a_server_that_stays_away_missed_is_sent_by_sync(place, server, undisturbed):
    address, start, kill = server
    process = train(place, address)
    run_id = process.stdout.readline().strip()
    step(process, 3)
    kill()
    step(process, EPOCHS - 4)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"{address} does not answer" in said and "`engram sync` sends them" in said
    assert "lines are still to be sent" in sync(place, address)
    start()
    assert sync(place, address).endswith(f"run {run_id}: sent\n")
    assert told(place, run_id) == undisturbed
    assert sync(place, address) == ""


def outbox_lines(place, run_id):
    (file,) = (place / "work/mlruns/outbox").glob(f"*/{run_id}.jsonl")
    return len(file.read_text().splitlines())


@pytest.fixture
def box(tmp_path):
    """A function that opens an outbox, what was sent, and what the server does."""
    sent, server = [], ["answers"]

    def send(line):
        if server[0] != "answers":
            raise server[0]
        sent.append(line)

    return lambda: outbox.Outbox(tmp_path / "out", "abc", send), sent, server


def test_lines_are_sent_in_order_also_by_another_process(box, tmp_path):
    make, sent, server = box
    first = make()
    first.put({"kind": "a", "n": 0})
    server[0] = ConnectionError()
    for n in (1, 2, 3):
        first.put({"kind": "a", "n": n})
    (tmp_path / "file.txt").write_text("x")
    first.put_file(tmp_path / "file.txt", "folder")
    (tmp_path / "file.txt").unlink()  # a copy is kept
    assert outbox.waiting(tmp_path / "out") == ["abc"]
    server[0] = "answers"
    assert make().deliver() == 0
    assert [line.get("n") for line in sent] == [0, 1, 2, 3, None]
    assert sent[-1]["folder"] == "folder"
    assert outbox.waiting(tmp_path / "out") == []
    assert not list((tmp_path / "out").rglob("file.txt"))


def test_what_another_process_sent_is_not_sent_again(box):
    make, sent, server = box
    training = make()
    server[0] = ConnectionError()
    for n in (1, 2):
        training.put({"kind": "a", "n": n})
    server[0] = "answers"
    make().deliver()  # `engram sync`, while the training goes on
    training.put({"kind": "a", "n": 3})
    assert [line["n"] for line in sent] == [1, 2, 3]


def test_a_line_that_a_crash_cut_off_is_left_out(box, tmp_path):
    make, sent, server = box
    server[0] = ConnectionError()
    make().put({"kind": "a", "n": 1})
    with (tmp_path / "out/abc.jsonl").open("a") as file:
        file.write('{"kind": "a", "n"')
    make().put({"kind": "a", "n": 2})
    server[0] = "answers"
    assert make().deliver() == 0
    assert [line["n"] for line in sent] == [1, 2]


def test_a_line_that_is_refused_is_put_aside_and_holds_up_no_other(box, tmp_path, capsys):
    make, sent, server = box
    one = make()
    server[0] = ValueError("no such run")
    one.put({"kind": "a", "n": 1})
    server[0] = "answers"
    one.put({"kind": "a", "n": 2})
    assert [line["n"] for line in sent] == [2]
    assert "refuses a line of run abc: no such run" in capsys.readouterr().out
    refused = json.loads((tmp_path / "out/abc.refused").read_text())
    assert refused == {"kind": "a", "n": 1, "refused": "no such run"}


def test_a_server_that_is_away_is_not_asked_for_every_line(box):
    make, sent, server = box
    asked = []

    class Away(ConnectionError):
        def __init__(self):
            asked.append(1)

    server[0] = Away
    one = make()
    for n in range(5):
        one.put({"kind": "a", "n": n})
    assert len(asked) == 1
    one._asked -= outbox.PATIENCE
    one.put({"kind": "a", "n": 5})
    assert len(asked) == 2
