"""Several workers, in processes of their own with sockets between them, train as one."""

import inspect
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import toy

from engram import cluster, workers
from engram.keras_repairs import REPAIRS

TRAINING = toy.ROOT / "tests" / "cluster_training.py"
OWN = ("TF_CONFIG", "ENGRAM_WORKERS", "ENGRAM_ADDRESS", "JOB_COMPLETION_INDEX")


@pytest.fixture(autouse=True)
def no_others(monkeypatch):
    for name in (*OWN, "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


def started(among, index, *command, **more):
    """Starts one worker of those `among`."""
    env = toy.environment(toy.ROOT, **{"ENGRAM_PATIENCE": 60} | more)
    env["PYTHONPATH"] += f":{TRAINING.parent}"
    env.pop("TF_CONFIG", None)
    if len(among) > 1:
        env["TF_CONFIG"] = cluster.Workers(among, index).as_tf_config()
    return subprocess.Popen(
        [sys.executable, *command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trained(count, *words):
    """Returns status, output and errors of each of `count` workers."""
    among, end = workers.addresses(count), time.monotonic() + 240
    running = [started(among, n, TRAINING, *words) for n in range(count)]
    found = []
    try:
        for one in running:
            out, errors = one.communicate(timeout=end - time.monotonic())
            found.append((one.returncode, out, errors))
    finally:
        for one in running:
            one.send_signal(signal.SIGKILL)  # TensorFlow lets others wait
    return found


@pytest.mark.parametrize("kind", ["lstm", "own_loss", "masked", "transformer", "gan"])
def test_two_workers_train_as_one_process_with_the_same_batches(kind):
    ((status, out, errors),) = trained(1, kind, "scope")
    assert status == 0, errors[-3000:]
    alone = json.loads(out.splitlines()[-1])
    assert alone["replicas"] == 1
    for status, out, errors in trained(2, kind, "scope"):
        assert status == 0, errors[-3000:]
        found = json.loads(out.splitlines()[-1])
        assert found["replicas"] == 2
        assert found["history"].keys() == alone["history"].keys()
        for part in ("history", "evaluated"):
            for name, expected in alone.get(part, {}).items():
                np.testing.assert_allclose(found[part][name], expected, 1e-5, 1e-5)
        for one, two in zip(alone["weights"], found["weights"], strict=True):
            np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)
        if kind == "lstm":
            both = found["predicted"], alone["predicted"]
            np.testing.assert_allclose(*both, rtol=0, atol=1e-5)


@pytest.mark.parametrize("owner, name, line", [one[:3] for one in REPAIRS])
def test_what_is_repaired_is_still_there(owner, name, line):
    # When this fails, Keras has changed: see whether the repair is still needed.
    assert line in inspect.getsource(getattr(owner, name))


def test_keras_alone_does_not_train_on_two_workers():
    for status, _, errors in trained(2, "lstm", "plain"):
        assert status and "PerReplica" in errors


def test_a_worker_that_never_appears_is_named():
    among = workers.addresses(2)
    code = "from engram import distribution; distribution.strategy('multi_worker')"
    env = {"ENGRAM_PATIENCE": 2}
    began = time.monotonic()
    one = started(among, 0, "-c", code, **env)
    _, errors = one.communicate(timeout=120)
    assert one.returncode == 1 and time.monotonic() - began < 60
    assert errors.splitlines()[-1] == (
        f"TimeoutError: worker 0 at {among[0]} waited 2 s in vain for worker 1 at"
        f" {among[1]}"
    )


def test_all_meet_whoever_comes_first():
    among, met = workers.addresses(3), []

    def arrives(n):
        time.sleep(0.3 * n)
        cluster.meet(cluster.Workers(among, n), 20)
        met.append(n)

    threads = [threading.Thread(target=arrives, args=[n]) for n in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(met) == [0, 1, 2]


def test_who_calls_and_is_no_worker_is_not_counted():
    among = workers.addresses(2)
    host, port = among[0].split(":")

    def calls():
        for said in (b"GET / HTTP/1.1", b"engram x", b"engram 9", b"engram 0", b""):
            time.sleep(0.2)
            with socket.create_connection((host, int(port))) as line:
                line.sendall(said)

    stranger = threading.Thread(target=calls)
    stranger.start()
    with pytest.raises(TimeoutError, match=f"in vain for worker 1 at {among[1]}"):
        cluster.meet(cluster.Workers(among, 0), 1.5)
    stranger.join()


def test_nobody_else_is_there_unless_the_environment_says_so(monkeypatch):
    assert cluster.workers() is None
    alone = cluster.Workers(("here:1",), 0).as_tf_config()
    monkeypatch.setenv("TF_CONFIG", alone)
    assert cluster.workers() is None


def test_tf_config_names_the_workers(monkeypatch):
    expected = cluster.Workers(("a:1", "b:2"), 1)
    monkeypatch.setenv("TF_CONFIG", expected.as_tf_config())
    assert cluster.workers() == expected and not expected.chief


def test_a_job_of_several_pods_names_the_workers(monkeypatch):
    monkeypatch.setenv("ENGRAM_WORKERS", "3")
    monkeypatch.setenv("ENGRAM_ADDRESS", "train-{index}.train:2222")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    pods = tuple(f"train-{n}.train:2222" for n in range(3))
    assert cluster.workers() == cluster.Workers(pods, 0)


def test_a_step_of_slurm_names_the_workers(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for nodes, tasks, expected in (
        ("n[1-2]", "1(x2)", ("n1:8888", "n2:8888")),
        ("n1", "2", ("n1:8888", "n1:8889")),
    ):
        step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
        step |= {"SLURM_STEP_NODELIST": nodes, "SLURM_STEP_TASKS_PER_NODE": tasks}
        for name, value in step.items():
            monkeypatch.setenv(name, value)
        assert cluster.workers() == cluster.Workers(expected, 1)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(
    "env, said",
    [
        ({"TF_CONFIG": "{"}, "`TF_CONFIG` must be like .* Received: {"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "`TF_CONFIG` must be like"),
        (
            {"TF_CONFIG": cluster.Workers(("a:1", "b:1"), 2).as_tf_config()},
            r"must be from 0 to 1\. Received: 2, of the workers \('a:1', 'b:1'\)",
        ),
        ({"SLURM_STEP_NUM_TASKS": "two"}, "`SLURM_STEP_NUM_TASKS` must be a whole num"),
        ({"ENGRAM_WORKERS": "2"}, "with {index} in it.* Received: '2', ''"),
    ],
)
def test_what_names_no_workers_is_refused(env, said, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said):
        cluster.workers()


def test_an_address_without_a_port_is_refused():
    with pytest.raises(ValueError, match="must be host:port. Received: 'b'"):
        cluster.meet(cluster.Workers(("a:1", "b"), 0), 1)


def test_who_waits_for_the_chief_names_it_and_the_chief_names_the_others():
    among, said = workers.addresses(3), {}

    def waits(n, seconds):
        with pytest.raises(TimeoutError) as error:
            cluster.meet(cluster.Workers(among, n), seconds)
        said[n] = str(error.value)

    waits(1, 1)
    assert said[1].endswith(f"in vain for worker 0 at {among[0]}")
    threads = [threading.Thread(target=waits, args=pair) for pair in ((0, 2), (1, 20))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for n in (0, 1):
        assert said[n].endswith(f"in vain for worker 2 at {among[2]}")
    with socket.create_server(("127.0.0.1", int(among[0].split(":")[1]))):
        with pytest.raises(OSError, match=f"worker 0 cannot listen at {among[0]}"):
            cluster.meet(cluster.Workers(among, 0), 1)


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory):
    """A repository with an experiment and its data."""
    folder = tmp_path_factory.mktemp("cluster") / "repository"
    toy.copy_repository(folder)
    train = toy.SOLVED | {"epochs": 2, "seeds": [1, 2]}
    block = toy.experiment("stlm", train=train)
    assert block["train"]["strategy"] == "auto"
    alone = toy.experiment("stlm", train=train | {"strategy": "one_device"})
    long = toy.experiment("stlm", train=train | {"epochs": 6, "batch_size": 12})
    suite = {"toy-stlm": block, "toy-alone": alone, "toy-long": long}
    toy.write_params(folder, suite, reference="stlm")
    env = toy.environment(folder)
    dvc = [sys.executable, "-m", "dvc"]
    for command in (
        ["git", "init", "--quiet"],
        [*dvc, "init", "--quiet"],
        [*dvc, "repro", "prepare@toy"],
    ):
        done = toy.call(command, folder, env)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(prepared_once, tmp_path):
    return shutil.copytree(prepared_once, tmp_path / "repository", symlinks=True)


def test_of_two_workers_one_writes_what_one_process_would(folder, tmp_path):
    env = toy.environment(folder)
    stage = [sys.executable, "pipeline/train.py", "toy-stlm"]
    done = toy.call(stage, folder, env)
    assert done.returncode == 0, done.stderr
    out = folder / "runs/toy-stlm"
    alone = json.loads((out / "history.json").read_text())
    shutil.move(out, tmp_path / "alone")

    among = workers.addresses(2)
    running = [
        subprocess.Popen(
            stage,
            cwd=folder,
            env=env | {"TF_CONFIG": cluster.Workers(among, n).as_tf_config()},
            stderr=subprocess.PIPE,
        )
        for n in range(2)
    ]
    try:
        for worker in running:
            _, errors = worker.communicate(timeout=200)
            assert worker.returncode == 0, errors.decode()[-3000:]
    finally:
        for worker in running:
            worker.kill()
    together = json.loads((out / "history.json").read_text())
    for seed, curves in alone.items():
        for name, curve in curves.items():
            np.testing.assert_allclose(together[seed][name], curve, rtol=0, atol=1e-5)
    (count,) = sqlite3.connect(folder / "mlruns/mlflow.db").execute(
        "select count(*) from runs where status = 'FINISHED'"
    )
    assert count == (4,)  # alone and together a run for each of two seeds


def _launch(folder, name, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "engram.workers", "2", name],
        cwd=folder,
        env=toy.environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _end_with(running, status):
    said, _ = running.communicate(timeout=240)
    assert running.returncode == status, said[-3000:]
    return said


def _children(running):
    listed = subprocess.run(
        ["pgrep", "--parent", str(running.pid)], capture_output=True, text=True
    )
    return [int(one) for one in listed.stdout.split()]


def test_what_several_workers_trained_is_in_dvc_lock(folder):
    said = _end_with(_launch(folder, "toy-stlm"), 0)
    assert said.count("Epoch 2/2") == 2  # of each seed, by the first worker
    done = toy.call(
        [sys.executable, "-m", "dvc", "status", "train@toy-stlm"],
        folder,
        toy.environment(folder),
    )
    assert "up to date" in done.stdout, done.stdout
    store = sqlite3.connect(folder / "mlruns/mlflow.db")
    query = "select status, value from runs join tags using (run_uuid) where key = ?"
    found = store.execute(query, ["dvc.stage"]).fetchall()
    assert found == 2 * [("FINISHED", "train@toy-stlm")]
    for n in range(2):
        log = folder / f".dvc/tmp/workers/toy-stlm/{n}.log"
        assert "Epoch 2/2" in log.read_text()


@pytest.fixture(scope="module")
def undisturbed(prepared_once, tmp_path_factory):
    """Losses and weights of two seeds, trained by two workers."""
    folder = tmp_path_factory.mktemp("undisturbed") / "repository"
    shutil.copytree(prepared_once, folder, symlinks=True)
    _end_with(_launch(folder, "toy-long"), 0)
    return _results(folder)


def _results(folder):
    out = folder / "runs/toy-long"
    models = [toy.arrays(out / f"models/seed-{seed}.keras") for seed in (1, 2)]
    return (out / "history.json").read_text(), models


@pytest.mark.parametrize("victim", [0, 1, None])
def test_workers_that_were_stopped_go_on_where_they_were(folder, undisturbed, victim):
    running, log = _launch(folder, "toy-long"), folder / ".dvc/tmp/workers/toy-long/0.log"
    while not log.is_file() or log.read_text().count("Epoch 3/") < 2:  # the second seed
        assert running.poll() is None, running.stdout.read()
        time.sleep(0.05)
    if victim is None:
        running.terminate()
        assert "asked to end; it goes on in epoch " in _end_with(running, 143)
    else:
        os.kill(_children(running)[victim], signal.SIGKILL)
        assert f"worker {victim} ended with -9; " in _end_with(running, 1)

    said = _end_with(_launch(folder, "toy-long"), 0)
    assert "seed 1, learning rate 0.001: trained before" in said
    assert "Epoch 1/6" not in said
    (history, models), (expected, others) = _results(folder), undisturbed
    assert history == expected
    for arrays, same in zip(models, others, strict=True):
        assert arrays.keys() == same.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, same[name], err_msg=name)
    store = sqlite3.connect(folder / "mlruns/mlflow.db")
    assert store.execute("select status from runs").fetchall() == 2 * [("FINISHED",)]


def test_what_several_workers_cannot_train_is_refused(folder):
    said = _end_with(_launch(folder, "toy-alone"), 1)
    assert "several workers need the `strategy` 'auto' or 'multi_worker'" in said
    said = _end_with(_launch(folder, "toy-st"), 1)
    assert "toy-st: no such experiment. Known: toy-stlm" in said
