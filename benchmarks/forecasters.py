"""One training step of each forecaster against the LSTM's, at about equal parameters.

Ours is any forecaster of the tour, the peer the same forecaster with `keras.layers.LSTM`.
All steps run in one process, interleaved, after warm-up; the table has medians.

    python benchmarks/forecasters.py        # writes benchmarks/results/forecasters.json
"""

import json
import math
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from engram import models, params, repository

SPEC = {
    "task": "forecasting",
    "history": 12,
    "horizon": 12,
    "detectors": [str(n) for n in range(207)],
    "slots_per_day": 288,
}
TOUR = params.load(Path(__file__).parents[1] / "params.yaml")["experiments"]
SIZES = {
    TOUR[f"traffic-{name}"]["model"]: TOUR[f"traffic-{name}"]["args"]
    for name in ("lstm", "mlp", "simple-rnn", "gru", "stlm")
}
WINDOWS, ROUNDS = 8, 40


def main() -> None:
    """Measures, prints the table and writes the results file."""
    rows = []
    for jit_compile in (False, True):
        seconds, parameters = measure(jit_compile)
        rows += [
            {
                "case": f"{word}, XLA {'on' if jit_compile else 'off'}",
                "ours": 1000 * seconds[word],
                "peer": 1000 * seconds["lstm"],
                "ratio": seconds["lstm"] / seconds[word],
                "parameters": parameters[word],
            }
            for word in SIZES
            if word != "lstm"
        ]
    show(rows)
    write(rows)


def measure(jit_compile: bool) -> tuple[dict[str, float], dict[str, int]]:
    """Returns the median seconds of a training step, and the parameters, per model."""
    batch, steps = data(), {}
    for word, args in SIZES.items():
        keras.utils.set_random_seed(1)
        steps[word] = models.build(word, SPEC, 0.003, **args)
        steps[word].jit_compile = jit_compile
    seconds: dict[str, list[float]] = {word: [] for word in SIZES}
    for _ in range(ROUNDS + 5):
        for word, model in steps.items():
            began = time.perf_counter()
            loss = model.train_on_batch(*batch)
            seconds[word].append(time.perf_counter() - began)
            assert math.isfinite(loss), f"{word} diverged"
    medians = {word: statistics.median(times[5:]) for word, times in seconds.items()}
    return medians, {word: model.count_params() for word, model in steps.items()}


def data() -> tuple:
    """Returns one batch as the forecasting task makes it: inputs, target, weight."""
    random = np.random.default_rng(1)
    shape = (WINDOWS, 12, 207)
    past, future = random.standard_normal((2, *shape)).astype(np.float32)
    inputs = {"readings": past, "slot": np.arange(WINDOWS, dtype=np.int32)}
    return inputs, future, np.ones(shape, np.float32)


def show(rows: list[dict]) -> None:
    """Prints the table."""
    print(f"{'case':24}{'ours ms':>10}{'LSTM ms':>10}{'speed of ours / LSTM':>22}")
    for row in rows:
        print(
            f"{row['case']:24}{row['ours']:10.1f}{row['peer']:10.1f}{row['ratio']:22.2f}"
        )


def write(rows: list[dict]) -> None:
    """Writes the results file, with the machine and the versions."""
    content = {
        "rows": rows,
        "geomean": statistics.geometric_mean(
            row["ratio"] for row in rows if row["case"].startswith("stlm")
        ),
        "machine": repository.processor(),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy")},
    }
    out = Path(__file__).parent / "results" / "forecasters.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
