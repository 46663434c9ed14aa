"""What the record in MLflow adds to the time of training, in the tour's own experiments.

Each trains as its stage does, the first seed and rate; opening a run, each call of
`record` and ending the run are timed, and so is `fit`. The store is opened before: that
is time of the stage, not of training. System metrics are sampled by a thread beside
training: its share is what an idle process with an open run takes of a core.

    python benchmarks/logging_cost.py   # writes results/logging_cost.json
"""

import contextlib
import functools
import json
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import yaml

from engram import datasets, models, repository, tasks, tracking, training

EXPERIMENTS = ("digits-cnn", "traffic-gru", "french-gru")
IDLE = 30.0  # seconds
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measures, prints the table and writes the results file."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["DVC_ROOT"] = place
        Path("mlruns").mkdir()
        tracking.open_store("warm")
        rows = [measured(name, values) for name in EXPERIMENTS]
        share = idle()
    print(f"system metrics: {share:.2%} of a core")
    content = {
        "rows": rows,
        "geomean": statistics.geometric_mean(row["ratio"] for row in rows),
        "system_metrics": share,
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("mlflow", "keras", "tensorflow")},
    }
    out = ROOT / "benchmarks/results/logging_cost.json"
    out.write_text(json.dumps(content, indent=2) + "\n")


def measured(name: str, values: dict) -> dict:
    """Returns a line of the table."""
    block = values["experiments"][name]
    spent: dict[str, float] = {"opening": 0.0, "record": 0.0, "ending": 0.0}

    def timed(what, call, *arguments, **more):
        began = time.perf_counter()
        found = call(*arguments, **more)
        spent[what] += time.perf_counter() - began
        return found

    @contextlib.contextmanager
    def recorder(seed, rate, kept):
        spec = json.loads(Path("prepared", block["dataset"], "spec.json").read_text())
        params = {**block, "seed": seed, "learning_rate": rate}
        run = tracking.run(name, block["dataset"], params, training.devices(), spec)
        run_id, record = timed("opening", run.__enter__)
        yield run_id, functools.partial(timed, "record", record)
        timed("ending", run.__exit__, None, None, None)

    found = fit(name, values, recorder)
    whole = sum(spent.values())
    plain = found.seconds - spent["record"]  # `fit` has the calls of `record` in it
    cost = whole / plain
    print(f"{name}: {whole:.2f} s beside {plain:.1f} s, {cost:.1%}", flush=True)
    return {
        "case": f"{block['train']['epochs']} epochs in {plain:.0f} s",
        "pair": f"{name}, recorded against not",
        "ours": 1 / (plain + whole),
        "peer": 1 / plain,
        "ratio": 1 / (1 + cost),
        "unit": "fits/s",
        "cost": cost,
    }


def fit(name: str, values: dict, recorder, folder: Path | None = None):
    """Returns what the first seed and rate of an experiment come to."""
    block = values["experiments"][name]
    prepared = _prepared(block["dataset"], values["datasets"])
    spec = json.loads((prepared / "spec.json").read_text())
    task, train = tasks.task(block["task"]), block["train"]
    rates = train["learning_rate"]
    one = {**train, "learning_rate": rates[0] if isinstance(rates, list) else rates}
    batches = functools.partial(task.batches, prepared, batch_size=train["batch_size"])

    def build(learning_rate, seed):
        return models.build(block["model"], spec, learning_rate, **block["args"])

    how, seeds = training.settings(block["start"], one), train["seeds"][:1]
    watch = None
    if hasattr(task, "watch"):
        watch = functools.partial(task.watch, prepared=prepared)
    (found,) = training.train(build, batches, how, seeds, recorder, watch, folder)
    return found


def idle() -> float:
    """Returns the share of a core that an open run takes while nothing is trained."""
    spec = {"dataset": "none", "fingerprint": "none"}
    with tracking.run("idle", "warm", {}, {}, spec):
        time.sleep(2 * tracking.SECONDS_BETWEEN_SYSTEM_METRICS)
        began = time.process_time(), time.perf_counter()
        time.sleep(IDLE)
        used, passed = time.process_time() - began[0], time.perf_counter() - began[1]
    return used / passed


def _prepared(name: str, blocks: dict) -> Path:
    block, raw, out = blocks[name], Path("raw", name), Path("prepared", name)
    if not out.exists():
        datasets.fetch(block["source"], raw, file=block["file"], **block["fetch"])
        tasks.task(block["task"]).prepare(raw, out, **block["prepare"])
    return out


if __name__ == "__main__":
    main()
