"""What `GradientFlow` with `every=50` adds to the time of training a net.

Nets: the tour's CNN with its batches of 32 digits, and an MLP on images of 784 pixels. In
one training every second block of 50 steps begins with a look, at as many rows as a step
trains on, 64 at most; the cost is the median of what such a block takes more than the
mean of its two neighbours, so that whatever slows the machine slows both. The first
epoch, with all tracing, is left out.

    python benchmarks/gradient_flow_cost.py   # writes results/gradient_flow_cost.json
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import yaml

from engram import repository
from engram.gradient_flow import GradientFlow
from engram.models import cnn

EVERY, BLOCKS, EPOCHS = 50, 10, 68
CLASSES = 10
LOOKED_AT = 64  # rows
IMAGE = (8, 8, 1)
PARAMS = Path(__file__).parents[1] / "params.yaml"


class Clock(keras.callbacks.Callback):
    """Seconds of each block of steps in each epoch, but for its last."""

    def __init__(self):
        super().__init__()
        self.blocks: list[list[float]] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.times = []

    def on_train_batch_begin(self, batch, logs=None):
        if batch % EVERY == 0:
            self.times.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None):
        self.blocks.append(np.diff(self.times))


def main() -> None:
    """Measures, prints the table and writes the results file."""
    rows = [
        measured("The tour's CNN", tours_cnn, 32, IMAGE),
        measured("An MLP of 3 layers of 256", mlp, 128, (784,)),
    ]
    ratios = {row["pair"]: row["ratio"] for row in rows}
    content = {
        "rows": rows,
        "geomean": statistics.geometric_mean(ratios.values()),
        "geomeans": ratios,
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "looks": (EPOCHS - 1) * (BLOCKS // 2 - 2),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy")},
    }
    out = Path(__file__).parent / "results" / "gradient_flow_cost.json"
    out.write_text(json.dumps(content, indent=2) + "\n")


def measured(name: str, net: Callable, batch: int, shape: tuple[int, ...]) -> dict:
    """Returns a line of the table."""
    draw = np.random.default_rng(1)
    x = draw.random((batch * EVERY * BLOCKS, *shape), np.float32)
    y = draw.integers(0, CLASSES, len(x))
    rows = min(batch, LOOKED_AT)
    clock, watch = Clock(), GradientFlow(x[:rows], y[:rows], every=2 * EVERY)
    how = {"verbose": 0, "shuffle": False, "callbacks": [clock, watch]}
    net().fit(x, y, batch, EPOCHS, **how)
    seconds = np.array(clock.blocks)  # (EPOCHS, BLOCKS - 1)
    looked, plain = seconds[1:, 2:-1:2], seconds[1:, 1::2]
    cost = float(np.median(looked / (plain[:, :-1] + plain[:, 1:]) * 2)) - 1
    speed = EVERY / float(np.median(plain))
    row = {
        "case": f"batch {batch}, a look at {rows} rows every {EVERY} steps",
        "pair": f"{name}, watched against not",
        "ours": speed / (1 + cost),
        "peer": speed,
        "ratio": 1 / (1 + cost),
        "unit": "steps/s",
        "cost": cost,
    }
    print(f"{name}, {row['case']}: {cost:.1%} more time", flush=True)
    return row


def tours_cnn() -> keras.Model:
    """Returns the compiled net of the tour's `digits-cnn`."""
    block = yaml.safe_load(PARAMS.read_text())["experiments"]["digits-cnn"]
    spec = {"shape": IMAGE, "classes": CLASSES}
    return cnn.build(spec, learning_rate=0.001, **block["args"])


def mlp() -> keras.Model:
    """Returns a compiled classifier."""
    layers = [keras.layers.Dense(256, "relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss)
    return model


if __name__ == "__main__":
    main()
