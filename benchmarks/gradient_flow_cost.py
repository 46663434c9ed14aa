"""What `GradientFlow` with `every=50` adds to the time of training an MLP.

The same net trains for an epoch without the callback and with it, in turn, in one
process, after warm-up; the callback looks at 64 rows, a step trains on 128. The ratio is
of medians over rounds; tracing, once for each `fit`, is told by itself.

    python benchmarks/gradient_flow_cost.py   # writes results/gradient_flow_cost.json
"""

import json
import os
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from engram import repository
from engram.gradient_flow import GradientFlow

EVERY, STEPS, ROUNDS, WARM_UP = 50, 200, 7, 1
PIXELS, CLASSES = 784, 10
LOOKED_AT = 64  # rows
CASES = (
    {"depth": 3, "width": 256, "batch": 128},
    {"depth": 10, "width": 256, "batch": 128},
)


class Clock(keras.callbacks.Callback):
    """Seconds of the first epoch, in which everything is traced, and from its end on."""

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        if epoch == 0:
            self.began, self.first = now, now - self.start
        self.seconds = now - self.began

    def on_train_begin(self, logs=None):
        self.start = time.perf_counter()


def main() -> None:
    """Measures, prints the table and writes the results file."""
    rows = [measured(**case) for case in CASES]
    ratios = [row["ratio"] for row in rows]
    content = {
        "rows": rows,
        "geomean": statistics.geometric_mean(ratios),
        "geomeans": {rows[0]["pair"]: statistics.geometric_mean(ratios)},
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "rounds": ROUNDS,
        "steps_of_a_round": STEPS,
        "rows_looked_at": LOOKED_AT,
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy")},
    }
    out = Path(__file__).parent / "results" / "gradient_flow_cost.json"
    out.write_text(json.dumps(content, indent=2) + "\n")


def measured(depth: int, width: int, batch: int) -> dict:
    """Returns a line of the table."""
    draw = np.random.default_rng(1)
    x = draw.random((batch * STEPS, PIXELS), np.float32)
    y = draw.integers(0, CLASSES, len(x))
    models = {name: mlp(depth, width) for name in ("without", "with")}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    first: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(WARM_UP + ROUNDS):
        for name, model in models.items():
            clock, watch = Clock(), []
            if name == "with":
                watch = [GradientFlow(x[:LOOKED_AT], y[:LOOKED_AT], every=EVERY)]
            model.fit(
                x, y, batch, epochs=2, verbose=0, shuffle=False, callbacks=[clock, *watch]
            )
            seconds[name].append(clock.seconds)
            first[name].append(clock.first)
    steps = {
        name: STEPS / statistics.median(all_[WARM_UP:]) for name, all_ in seconds.items()
    }
    traced = statistics.median(
        a - b
        for a, b in zip(first["with"][WARM_UP:], first["without"][WARM_UP:], strict=True)
    )
    row = {
        "case": f"MLP, {depth} layers of {width}, batch {batch}, every {EVERY} steps",
        "pair": "with GradientFlow against without",
        "ours": steps["with"],
        "peer": steps["without"],
        "ratio": steps["with"] / steps["without"],
        "unit": "steps/s",
        "cost": steps["without"] / steps["with"] - 1,
        "seconds_to_trace": traced,
    }
    print(
        f"{row['case']}: {row['cost']:.1%} more time, {traced:.1f} s to trace", flush=True
    )
    return row


def mlp(depth: int, width: int) -> keras.Model:
    """Returns a compiled classifier."""
    layers = [keras.layers.Dense(width, "relu") for _ in range(depth)]
    model = keras.Sequential(
        [keras.Input((PIXELS,)), *layers, keras.layers.Dense(CLASSES)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss)
    return model


if __name__ == "__main__":
    main()
