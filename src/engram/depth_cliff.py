"""Depth cliff: how deep can a net be and still learn, and what moves that depth?

    of each net and depth    a training for each learning rate; validation keeps one
    accuracy                 share of the test part that it tells right, mean over seeds
    ratio                    log10 |dL/dW_1| / |dL/dW_depth| before the first step; null
                             if one of them is 0, as behind a closed ReZero, or no number
    rate                     the one kept; null if the loss became no number with any
    seconds                  of all trainings of the row

A seed whose loss becomes no number with the rate that was kept counts as chance.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from engram import callbacks, models, training
from engram.gradient_flow import chain_rule, measures
from engram.layers.rbm import rbm  # noqa: F401, registers RBM
from engram.models import deep_net
from engram.tasks import classification

IMAGES = 256  # by which gradients are measured
STEPS = 36  # in one call, since those of nets so narrow are short
HELD = 500  # images in a batch that is not trained on
INK = "#1f2933"
NAMES = {"sgd": "SGD with momentum", "adam": "Adam"}
COLOURS = (
    "#b5179e",
    "#7a5195",
    "#e07b00",
    "#c1121f",
    "#52606d",
    "#2b6cb0",
    "#0b7285",
    "#2d8a4e",
)
Row = dict[str, Any]


def measure(
    prepared: Path,
    start: Path,
    spec: dict[str, Any],
    depths: list[int],
    width: int,
    nets: dict[str, dict[str, Any]],
    train: dict[str, Any],
    known: list[Row],
) -> Iterator[Row]:
    """Yields a row for each net and depth.

    Args:
        prepared: folder that `classification.prepare` wrote.
        start: folder with a stack of RBMs for each seed, of nets that are `pretrained`.
            Nets deeper than the stack are left out.
        spec: contents of `spec.json`.
        depths: hidden layers of the nets, at least one.
        width: units of each hidden layer.
        nets: of each name the arguments of `very_deep_net` that are not here,
            `pretrained`, whether the stack's weights are what training starts from, and
            `learning_rate`, a list.
        train: `epochs`; `looks`, how often on the way validation is looked at, which
            keeps the best of these moments; `batch_size`, `optimizer` and `seeds`.
        known: rows that were measured before, yielded as they are.
    """
    measured = {(row["net"], row["depth"]): row for row in known}
    for name, net in nets.items():
        height = math.inf
        if net["pretrained"]:
            height = _height(start, train["seeds"][0])
        for depth in (one for one in depths if one <= height):
            if (row := measured.get((name, depth))) is None:
                build = _builder(spec, start, depth, width, net, train["optimizer"])
                rates, began = net["learning_rate"], time.perf_counter()
                found = _measured(build, prepared, spec, rates, train)
                seconds = round(time.perf_counter() - began, 1)
                row = {"net": name, "depth": depth, **found, "seconds": seconds}
            yield row


def numbers(row: Row) -> dict[str, float]:
    """Returns a row's numbers under its net's name, those that there are."""
    some = {f"{key}/{row['net']}": row[key] for key in ("accuracy", "ratio")}
    return {key: value for key, value in some.items() if value is not None}


def _builder(spec, start, depth, width, net, optimizer):
    ours = ("pretrained", "learning_rate")
    args = {key: value for key, value in net.items() if key not in ours}

    def build(rate, seed):
        model = models.build(
            "very_deep_net",
            spec,
            rate,
            depth=depth,
            width=width,
            optimizer=optimizer,
            **args,
        )
        model.steps_per_execution = STEPS
        if net["pretrained"]:
            deep_net.start(model, start / f"seed-{seed}.keras")
        return model

    return build


def _height(start: Path, seed: int) -> int:
    """Returns of how many RBMs the stack is."""
    path = start / f"seed-{seed}.keras"
    return len(keras.models.load_model(path, compile=False, safe_mode=True).layers)


def _measured(build, prepared: Path, spec: dict[str, Any], rates, train) -> Row:
    def fitted(seed, rate):
        how = training.Settings(
            parts=("train", "validation"),
            rates=[rate],
            epochs=train["looks"],
            stop_after=train["looks"],
            jit_compile=False,
            strategy="one_device",
        )
        try:
            return training.train(build, batches, how, [seed], training.unrecorded)[0]
        except callbacks.Diverged:
            return None

    def batches(part, seed=None):
        if part != "train":
            return classification.batches(prepared, part, HELD)
        data = classification.batches(prepared, part, train["batch_size"], seed)
        return data.repeat(train["epochs"] // train["looks"])

    first, *others = train["seeds"]
    tried = [one for rate in rates if (one := fitted(first, rate))]
    ratios = [gradient_ratio(build, prepared, spec, seed) for seed in train["seeds"]]
    some = [ratio for ratio in ratios if ratio is not None]
    ratio = mean(some) if len(some) == len(ratios) else None
    chance = 1 / spec["classes"]
    if not tried:
        return {"accuracy": chance, "std": None, "ratio": ratio, "rate": None}
    best = min(tried, key=lambda one: one.held_loss)
    kept = [best, *(fitted(seed, best.rate) for seed in others)]
    right = [accuracy(one.model, prepared, spec) if one else chance for one in kept]
    std = float(np.std(right, ddof=1)) if others else None
    return {"accuracy": mean(right), "std": std, "ratio": ratio, "rate": best.rate}


def accuracy(model: keras.Model, prepared: Path, spec: dict[str, Any]) -> float:
    """Returns the share of the test part that a model tells right."""
    _, truth = classification.arrays(prepared, spec, "test")
    logits = model.predict(classification.batches(prepared, "test", HELD), verbose=0)
    return float((logits.argmax(1) == truth).mean())


def gradient_ratio(
    build, prepared: Path, spec: dict[str, Any], seed: int
) -> float | None:
    """Returns `log10` of the first hidden layer's gradient over the last one's.

    None if one of them is 0 or no number.
    """
    keras.utils.set_random_seed(seed)
    model = build(0.1, seed)
    data = classification.batches(prepared, "train", IMAGES, seed)
    x, y = next(data.as_numpy_iterator())[:2]
    calls, found = measures.measure(model, x, y, training=True, jacobians=False)
    logs = {
        one.name: float(log) for one, log in zip(calls, found["gradient"], strict=True)
    }
    hidden = [log for name, log in logs.items() if name.startswith("hidden_")]
    ends = hidden[0], hidden[-1]
    if not all(
        math.isfinite(log) and log > float(chain_rule.NOTHING) / 4 for log in ends
    ):
        return None
    return (ends[0] - ends[1]) / math.log(10)


def draw(rows: list[Row], optimizer: str) -> Figure:
    """Returns the picture: accuracy and ratio over depth, a line for each net."""
    figure = Figure(figsize=(8.5, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    names = list(dict.fromkeys(row["net"] for row in rows))
    for n, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        own = [row for row in rows if row["net"] == name]
        form = {"color": colour, "linewidth": 5 - 0.6 * n, "markersize": 8 - 0.6 * n}
        for axis, key in ((above, "accuracy"), (below, "ratio")):
            told = [row for row in own if row[key] is not None]
            values = [row[key] * (100 if key == "accuracy" else 1) for row in told]
            depths = [row["depth"] for row in told]
            axis.plot(depths, values, "o-", label=name, **form)  # wide lines below
    above.set_ylabel("test accuracy, %", color=INK)
    above.set_ylim(0, 102)
    below.set_ylabel("log10 of first to last\nlayer's gradient, at the start", color=INK)
    below.set_xlabel(f"hidden layers, trained by {NAMES[optimizer]}", color=INK)
    below.axhline(0, color="#cbd2d9", linewidth=0.8, zorder=0)
    for axis in (above, below):
        axis.set_xscale("log")
        ticks = sorted({row["depth"] for row in rows})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.tick_params(colors=INK)
        axis.spines[["top", "right"]].set_visible(False)
    lines, labels = above.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right upper", frameon=False)
    return figure
