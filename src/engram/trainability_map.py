"""Trainability map: to which depth does a net of random weights still learn?

    of each sigma_w^2 and depth   a plain net, weights N(0, sigma_w^2 / fan_in) and biases
                                  N(0, sigma_b^2), is trained for a few steps
    accuracy                      share of training images that it then tells right; null
                                  where the two depths before were no better than chance
    seconds                       of the net, its training and telling
    xi                            depth scale of theory: trainable to about 6 xi layers

Source: Schoenholz et al. 2017, Deep information propagation, fig. 5, arXiv:1611.01232.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from engram.gradient_flow import theory
from engram.tasks import classification

TRAINED = 0.5  # accuracy from which on a net counts as trained
IMAGES = 2000  # of the training part, told after training
INK = "#1f2933"
Row = dict[str, Any]


def measure(
    prepared: Path,
    spec: dict[str, Any],
    activation: str,
    width: int,
    depths: list[int],
    sigma_w2: list[float],
    sigma_b2: float,
    train: dict[str, Any],
    known: list[Row],
) -> Iterator[Row]:
    """Yields `{"sigma_w2", "depth", "accuracy", "seconds"}`, the shallowest nets first.

    All nets of a depth start from the same normal numbers, each times its own sigma.

    Args:
        prepared: folder that `classification.prepare` wrote.
        spec: contents of `spec.json`.
        activation: of all hidden layers, a word of `theory.ACTIVATIONS`.
        width: int, units of each hidden layer.
        depths: hidden layers of the nets.
        sigma_w2: variances of weights, each times the inputs of a unit.
        sigma_b2: float, variance of biases.
        train: `steps`, `batch_size`, `seed`, and `learning_rate` of plain SGD, which is
            divided by the depth: where gradients stay as they are, each of `depth` layers
            moves the logits by as much.
        known: rows that were measured before, yielded as they are.
    """
    found = {(row["sigma_w2"], row["depth"]): row for row in known}
    x, y = _seen(prepared, spec)
    for depth in sorted(depths):
        model = None
        for variance in sigma_w2:
            key = variance, depth
            if key not in found:
                accuracy, began = None, time.perf_counter()
                if not _given_up(found, variance, depth, spec["classes"]):
                    model = model or net(spec, activation, width, depth, train)
                    start(model, variance, sigma_b2, train["seed"])
                    fit(model, prepared, train)
                    told = model.predict(x, batch_size=500, verbose=0).argmax(1)
                    accuracy = float((told == y).mean())
                seconds = round(time.perf_counter() - began, 1)
                row = {"sigma_w2": variance, "depth": depth, "accuracy": accuracy}
                found[key] = row | {"seconds": seconds}
            yield found[key]


def _seen(prepared: Path, spec: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    data = classification.batches(prepared, "train", IMAGES)
    return next(data.as_numpy_iterator())[:2]


def _given_up(found: dict, variance: float, depth: int, classes: int) -> bool:
    """Returns whether the two depths before were no better than twice chance."""
    before = sorted(d for v, d in found if v == variance and d < depth)[-2:]
    told = [found[variance, d]["accuracy"] for d in before]
    return len(told) == 2 and all(one is None or one < 2 / classes for one in told)


def net(
    spec: dict[str, Any], activation: str, width: int, depth: int, train: dict[str, Any]
) -> keras.Model:
    """Returns a compiled classifier of images, pixels from -0.5 to 0.5."""
    model = keras.Sequential([keras.Input(spec["shape"]), keras.layers.Flatten()])
    model.add(keras.layers.Rescaling(1.0, offset=-0.5))
    for _ in range(depth):
        model.add(keras.layers.Dense(width, activation))
    model.add(keras.layers.Dense(spec["classes"]))
    model.compile(
        keras.optimizers.SGD(train["learning_rate"] / depth),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


def start(model: keras.Model, sigma_w2: float, sigma_b2: float, seed: int) -> None:
    """Draws all weights `N(0, sigma_w2 / fan_in)` and biases `N(0, sigma_b2)`."""
    draw = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        wide = len(weight.shape) == 2
        scale = math.sqrt(sigma_w2 / weight.shape[0] if wide else sigma_b2)
        weight.assign(scale * draw.standard_normal(weight.shape, np.float32))


def fit(model: keras.Model, prepared: Path, train: dict[str, Any]) -> None:
    """Trains for `steps` batches, the same ones for every net."""
    data = classification.batches(prepared, "train", train["batch_size"], train["seed"])
    model.fit(data.repeat().take(train["steps"]), shuffle=False, verbose=0)


def scales(rows: list[Row], activation: str, sigma_b2: float) -> list[dict[str, Any]]:
    """Returns for each `sigma_w2` the deepest net that trained, beside theory.

    xi        depth scale of theory; null where it is endless
    deepest   depth; null if none trained
    crossing  depth at which accuracy falls below `TRAINED`, on a line from `deepest` to
              the next depth; null if none trained, or all did
    ratio     crossing / xi, or deepest / xi if it is open; theory says about 6
    open      whether `deepest` is the deepest net of all, so that more may train
    """
    last = max(row["depth"] for row in rows)
    found = []
    for variance in dict.fromkeys(row["sigma_w2"] for row in rows):
        own = [row for row in rows if row["sigma_w2"] == variance]
        trained = [row["depth"] for row in own if (row["accuracy"] or 0) >= TRAINED]
        deepest = max(trained, default=None)
        crossing = _crossing(own, deepest) if deepest not in (None, last) else None
        reached = crossing or deepest
        xi = theory.correlation_depth(activation, variance, sigma_b2)
        found.append(
            {
                "sigma_w2": variance,
                "xi": xi if xi < math.inf else None,
                "deepest": deepest,
                "crossing": crossing,
                "ratio": reached / xi if reached and 0 < xi < math.inf else None,
                "open": deepest == last,
            }
        )
    return found


def _crossing(rows: list[Row], deepest: int) -> float:
    """Returns the depth behind `deepest` at which accuracy is `TRAINED`."""
    after = min(row["depth"] for row in rows if row["depth"] > deepest)
    told = {row["depth"]: row["accuracy"] or 0 for row in rows}
    share = (told[deepest] - TRAINED) / (told[deepest] - told[after])
    return deepest + share * (after - deepest)


def draw(rows: list[Row], activation: str, sigma_b2: float) -> Figure:
    """Returns the picture: accuracy over sigma_w^2 and depth, theory's line over it."""
    variances, depths = (sorted({row[k] for row in rows}) for k in ("sigma_w2", "depth"))
    seen = np.full((len(depths), len(variances)), np.nan)
    for row in rows:
        place = depths.index(row["depth"]), variances.index(row["sigma_w2"])
        seen[place] = np.nan if row["accuracy"] is None else 100 * row["accuracy"]
    figure = Figure(figsize=(8.5, 4.8), layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor("#e4e7eb")
    across, up = _borders(variances), _borders(depths)
    mesh = axis.pcolormesh(across, up, seen, cmap="viridis", vmin=0, vmax=100)
    bar = figure.colorbar(mesh, label="training images told right, %")
    bar.outline.set_visible(False)
    fine = np.linspace(across[0], across[-1], 120)
    limit = [
        theory.TRAINABLE * theory.correlation_depth(activation, one, sigma_b2)
        for one in fine
    ]
    name = f"{theory.TRAINABLE} depth scales of theory"
    axis.plot(fine, np.minimum(limit, 10 * up[-1]), color="#e07b00", lw=2.5, label=name)
    ends = [one for one in scales(rows, activation, sigma_b2) if one["crossing"]]
    axis.plot(
        [one["sigma_w2"] for one in ends],
        [one["crossing"] for one in ends],
        "o",
        color="white",
        mec=INK,
        label=f"measured: {100 * TRAINED:.0f} %",
    )
    axis.set_xlim(across[0], across[-1])
    axis.set_ylim(up[0], up[-1])
    axis.set_xlabel("variance of weights times inputs of a unit, σ_w²", color=INK)
    axis.set_ylabel(f"hidden layers, {activation}", color=INK)
    axis.tick_params(colors=INK)
    figure.legend(loc="outside upper left", frameon=False)
    return figure


def _borders(centres: list[float]) -> np.ndarray:
    """Returns the borders of cells around `centres`, the outer ones as wide as inside."""
    middle = np.convolve(centres, [0.5, 0.5], "valid")
    return np.array(
        [2 * centres[0] - middle[0], *middle, 2 * centres[-1] - middle[-1]], float
    )
