"""Measures what of a gradient is left some steps before.

    python docs/gradient_over_time.py     # writes gradient_over_time.json and .png

The layers are as they start, and read noise. Numbers have 64 bits, so that what vanishes
is drawn and does not become 0.
"""

import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from engram.layers import STLM, ParallelSTLM
from engram.models.chrono_lstm import ChronoBias

INK = "#1f2933"
STEPS, UNITS, FEATURES, ROWS = 400, 32, 8, 16
HORIZON = 100  # steps, of all layers that take one


def main() -> None:
    """Measures each layer and writes both files."""
    found = {name: by_lag(*layer) for name, layer in layers().items()}
    page = Path(__file__)
    rows = {name: told(values) for name, values in found.items()}
    page.with_suffix(".json").write_text(json.dumps(rows, indent=2) + "\n")
    picture = page.with_suffix(".png")
    draw(found).savefig(picture, dpi=120, metadata={"Software": None})


def told(logs: np.ndarray) -> dict[str, float]:
    """Returns what is left at some lags, decimal logarithms, and how fast it falls.

    steps_to_a_tenth   over which nine tenths are lost, between lags 20 and 100
    """
    rows = {f"lag {k}": round(float(logs[k]), 2) for k in (1, 10, 100, STEPS - 1)}
    return rows | {"steps_to_a_tenth": round(80 / float(logs[20] - logs[100]), 1)}


def layers() -> dict[str, tuple[keras.layers.Layer, slice]]:
    """Returns layers by name, and which of their outputs are asked."""
    how = {"units": UNITS, "dtype": "float64"}
    horizons = {"short_horizon": 4, "long_horizon": HORIZON, "seed": 1}
    chrono = {"unit_forget_bias": False, "bias_initializer": ChronoBias(HORIZON, seed=1)}
    every, short, long = slice(None), slice(0, UNITS), slice(UNITS, None)
    stlm = STLM(**how, **horizons)
    parallel = ParallelSTLM(**how, **horizons)
    return {
        "SimpleRNN": (keras.layers.SimpleRNN(**how), every),
        "GRU": (keras.layers.GRU(**how), every),
        "LSTM": (keras.layers.LSTM(**how), every),
        "LSTM, chrono": (keras.layers.LSTM(**how, **chrono), every),
        "STLM, short memory": (stlm, short),
        "STLM, long memory": (stlm, long),
        "ParallelSTLM, short memory": (parallel, short),
        "ParallelSTLM, long memory": (parallel, long),
    }


def by_lag(layer: keras.layers.Layer, asked: slice, seed: int = 1) -> np.ndarray:
    """Returns `log10` of the root mean square of `d (u h_T) / d x_{T-k}`, k = 0, 1, ...

    `u` are random signs, 0 for outputs that are not `asked`.
    """
    keras.utils.set_random_seed(seed)
    draw = np.random.default_rng(seed)
    x = tf.constant(draw.normal(size=(ROWS, STEPS, FEATURES)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        h = layer(x)[:, asked]
        loss = tf.reduce_sum(h * draw.choice([-1.0, 1.0], h.shape))
    squares = np.asarray(tape.gradient(loss, x)) ** 2
    return np.log10(squares.mean(axis=(0, 2)))[::-1] / 2


def draw(found: dict[str, np.ndarray]) -> Figure:
    """Returns the picture: a line for each layer over the steps between."""
    figure = Figure(figsize=(8.5, 4.4), layout="constrained")
    axis = figure.subplots()
    colours = "#b5179e #e07b00 #52606d #2b6cb0 #5fb3b3 #0b7285 #8fbc5a #2d8a4e".split()
    widths = (2, 2, 2, 5, 2, 2, 2, 2)  # chrono's line lies below that of STLM
    for (name, values), *form in zip(found.items(), colours, widths, strict=True):
        axis.plot(values, color=form[0], linewidth=form[1], label=name)
    axis.set_ylim(-12, 0.5)
    axis.set_xlim(0, STEPS)
    axis.set_xlabel("steps between an input and the output that is asked", color=INK)
    axis.set_ylabel("log10 of the gradient", color=INK)
    axis.tick_params(colors=INK)
    axis.spines[["top", "right"]].set_visible(False)
    lines, labels = axis.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right upper", frameon=False)
    return figure


if __name__ == "__main__":
    main()
