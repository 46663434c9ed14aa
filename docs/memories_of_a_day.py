"""Draws docs/memories_of_a_day.png: what both memories held during one day of traffic.

Takes the STLM that the tour trained (`make repro` first) and the last whole day of the
ring road's test part, at the detector whose speed varies most:

    python docs/memories_of_a_day.py
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import keras
import matplotlib.pyplot as plt
import numpy as np

from engram import models
from engram.layers import STLM
from engram.tasks import forecasting

ROOT = Path(__file__).parents[1]
INK = "#1f2933"


def main() -> None:
    """Reads the day, asks the layer for its memories and draws them."""
    prepared = ROOT / "data/prepared/ring_road"
    spec = json.loads((prepared / "spec.json").read_text())
    past, _, slot = forecasting.windows(prepared, spec, "test")  # (B, T, N), (B,)
    first = np.flatnonzero(slot == 0)[-2]  # the last day that is whole
    day = slice(first, first + spec["slots_per_day"])
    detector = int(np.nanargmax(np.nanstd(past[day, -1], axis=0)))
    model = models.load(
        "stlm", "forecasting", ROOT / "runs/traffic-stlm/models/seed-1.keras"
    )
    scaled = forecasting.fill((past[day] - spec["mean"]) / spec["std"])
    short, long = memories(model, scaled, slot[day], detector)
    figure = draw(past[day, -1, detector], short, long, spec)
    figure.savefig(
        ROOT / "docs/memories_of_a_day.png", dpi=120, metadata={"Software": None}
    )


def memories(
    model: keras.Model, readings: np.ndarray, slot: np.ndarray, detector: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `C_s` and `C_l` held after each window, `(B, U)` each."""
    layer = next(one for one in model.layers if isinstance(one, STLM))
    sequences = keras.Model(model.inputs, layer.input)  # (B N, T, 3)
    inputs = {"readings": readings, "slot": slot}
    count = readings.shape[-1]
    mine = keras.ops.convert_to_numpy(sequences(inputs))[detector::count]  # (B, T, 3)
    return tuple(np.asarray(held)[:, -1] for held in layer.memories(mine))


def draw(
    speed: np.ndarray, short: np.ndarray, long: np.ndarray, spec: dict
) -> plt.Figure:
    """Returns the figure: the speed above, a line of each memory's units below."""
    hours = np.arange(len(speed)) * spec["interval_minutes"] / 60
    figure, axes = plt.subplots(
        3,
        1,
        figsize=(9, 6.4),
        layout="constrained",
        sharex=True,
        height_ratios=[1, 1.4, 1.4],
    )
    axes[0].plot(hours, speed, color="#0b7285", linewidth=1.2)
    axes[0].set_ylabel(f"speed, {spec['unit']}")
    axes[0].set_ylim(0)
    named = (("short memory $C_s$", short), ("long memory $C_l$", long))
    for axis, (name, held) in zip(axes[1:], named, strict=True):
        order = np.argsort(held.std(axis=0))[::-1]  # the liveliest unit on top
        bound = float(np.abs(held).max())
        image = axis.imshow(
            held[:, order].T,
            aspect="auto",
            cmap="RdBu_r",
            vmin=-bound,
            vmax=bound,
            extent=(0, hours[-1], held.shape[1], 0),
            interpolation="nearest",
        )
        axis.set_ylabel(f"{name}\nunit")
        figure.colorbar(image, ax=axis, pad=0.01)
    axes[-1].set_xlabel("hour of the day")
    axes[-1].set_xticks(range(0, 25, 3))
    for axis in axes:
        axis.tick_params(colors=INK)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
