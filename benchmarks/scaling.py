"""How much faster two workers train than one, each with a core of its own.

Processes on this machine with sockets between them train the tour's CNN and Transformer,
with the batch of one worker shared (`fixed`) and with a batch for each (`grown`). A round
is one worker, then two; throughput is over the epochs after the first, which traces.
Communication is what a step of two takes longer than one worker's with the same share.

    python benchmarks/scaling.py            # writes results/scaling.json
    python benchmarks/scaling.py worker EXPERIMENT FOLDER BATCH CORE    # by itself
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import logging_cost
import yaml

EXPERIMENTS = {"digits-cnn": 256, "french-transformer": 4096}  # rows, tokens in a batch
STEPS, EPOCHS, ROUNDS = 40, 4, 2
ROOT = logging_cost.ROOT


def main() -> None:
    """Measures, prints the table and writes the results file."""
    from engram import repository

    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    rows = []
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for name, batch in EXPERIMENTS.items():
            prepared = logging_cost._prepared(
                values["experiments"][name]["dataset"], values["datasets"]
            )
            rows += measured(name, prepared.resolve(), batch)
    content = {
        "rows": rows,
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("keras", "tensorflow")},
    }
    out = ROOT / "benchmarks/results/scaling.json"
    out.write_text(json.dumps(content, indent=2) + "\n")


def measured(name: str, prepared: Path, batch: int) -> list[dict]:
    """Returns a line for the fixed batch and one for the grown one."""
    cases = {"one": (1, batch), "half": (1, batch // 2)}
    cases |= {"fixed": (2, batch), "grown": (2, 2 * batch)}
    found: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case, (count, size) in cases.items():
            found[case].append(step(name, prepared, count, size))
    ms = {case: 1e3 * statistics.median(each) for case, each in found.items()}
    rows = []
    for case, share, grown in (("fixed", "half", 1), ("grown", "one", 2)):
        rows.append(
            {
                "case": f"{name}, {case}, batch {batch * grown}",
                "ratio": grown * ms["one"] / ms[case],
                "step_ms": ms[case],
                "alone_ms": ms[share],
                "communication": 1 - ms[share] / ms[case],
                "spread": max(found[case]) / min(found[case]),
            }
        )
        print(
            f"{rows[-1]['case']}: {rows[-1]['ratio']:.2f} times one worker's throughput,"
            f" {ms[case]:.1f} ms a step, {rows[-1]['communication']:.0%} communication",
            flush=True,
        )
    return rows


def step(name: str, prepared: Path, count: int, batch: int) -> float:
    """Returns the seconds of a step with so many workers."""
    from engram import cluster, workers

    among = workers.addresses(count)
    running = []
    for n in range(count):
        env = dict(os.environ)
        if count > 1:
            env["TF_CONFIG"] = cluster.Workers(among, n).as_tf_config()
        command = [sys.executable, __file__, "worker", name, prepared, str(batch), str(n)]
        running.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        )
    said = [one.communicate(timeout=600)[0] for one in running]
    assert not any(one.returncode for one in running), said
    return float(said[0].splitlines()[-1])


def worker(name: str, prepared: str, batch: str, core: str) -> None:
    """Trains on one core, and prints the seconds of a step."""
    os.sched_setaffinity(0, {int(core)})
    import keras

    from engram import distribution, models, tasks, training

    block = yaml.safe_load((ROOT / "params.yaml").read_text())["experiments"][name]
    spec = json.loads(Path(prepared, "spec.json").read_text())
    batches = tasks.task(block["task"]).batches
    data = functools.partial(batches, Path(prepared), batch_size=int(batch))
    with distribution.scope():  # before TensorFlow is used for anything
        some = training._shared(data("train").repeat())
        keras.utils.set_random_seed(1)
        model = models.build(block["model"], spec, 0.001, **block["args"])
        model.jit_compile = False
        clock = clocked()
        model.fit(
            some,
            epochs=EPOCHS,
            steps_per_epoch=STEPS,
            callbacks=[clock],
            shuffle=False,
            verbose=0,
        )
    print(statistics.median(clock.seconds[1:]) / STEPS)


def clocked():
    """Returns a callback that keeps the seconds of each epoch."""
    import keras

    class Seconds(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seconds = []

        def on_epoch_begin(self, epoch, logs=None):
            self._began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds.append(time.perf_counter() - self._began)

    return Seconds()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    else:
        main()
