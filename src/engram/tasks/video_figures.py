"""Pictures of predicted frames: film strips, and the error frame by frame."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np

INK, SOFT, NEXT, FREE = "#1f2933", "#7b8794", "#0b7285", "#d9480f"
ROWS = {  # what is drawn, its name and colour
    "frames": ("true", INK),
    "following": ("predicted after\ntrue frames", NEXT),
    "free": ("predicted after\nits own frames", FREE),
}
GAP = 2  # pixels between two frames


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "forecast_strips": strips(found),
        "error_by_frame": error_by_frame(found),
    }
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def strips(found: dict[str, Any]) -> plt.Figure:
    """A film strip for each shown clip: truth, and both predictions, frame by frame."""
    spec = found["spec"]
    shown, total = found["frames"].shape[:2]
    first = max(0, spec["history"] - spec["horizon"] // 2)
    size = (0.64 * (total - first) + 1.3, 2.15 * shown + 0.5)
    figure, axes = plt.subplots(shown, 1, figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    for clip, axis in enumerate(np.atleast_1d(axes)):
        _strip(axis, found, clip, first)
    figure.suptitle(
        f"{shown} clips of the test part of {_plain(spec['dataset'])}, from frame"
        f" {first + 1}; the model has seen {spec['history']} frames of each",
        color=INK,
        fontsize=11,
    )
    return figure


def _strip(axis: plt.Axes, found: dict[str, Any], clip: int, first: int) -> None:
    """Draws the rows of one clip, frames next to each other from number `first` on."""
    total, height, width = found["frames"].shape[1:]
    down, across = height + GAP, width + GAP
    paper = np.full((len(ROWS) * down - GAP, (total - first) * across - GAP), np.nan)
    for row, key in enumerate(ROWS):
        for back, frame in enumerate(found[key][clip][::-1]):  # the last one first
            left = (total - first - 1 - back) * across
            if left >= 0:
                paper[row * down :, left:][:height, :width] = frame
    axis.imshow(paper, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    numbers = list(range(first + 1, total + 1))
    places = np.arange(len(numbers)) * across + width / 2
    axis.set_xticks(places, [str(number) for number in numbers], fontsize=8)
    axis.set_yticks(
        np.arange(len(ROWS)) * down + height / 2, [n for n, _ in ROWS.values()]
    )
    axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for label, (_, colour) in zip(axis.get_yticklabels(), ROWS.values(), strict=True):
        label.set(color=colour, fontsize=8.5)
    for label, number in zip(axis.get_xticklabels(), numbers, strict=True):
        label.set_color(INK if number > found["spec"]["history"] else SOFT)
    axis.spines[:].set_visible(False)


def error_by_frame(found: dict[str, Any]) -> plt.Figure:
    """MSE of each predicted frame, after true frames and after predicted ones."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    lines = zip(found["details"]["curves"], (NEXT, FREE), strict=True)
    for curve, colour in lines:
        axis.plot(curve["x"], curve["y"], "o-", ms=4, color=colour)
        axis.annotate(
            curve["title"].removeprefix("Error "),
            (curve["x"][-1], curve["y"][-1]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="right",
            color=colour,
            fontsize=9,
        )
    first = found["details"]["curves"][0]
    axis.set_xticks(first["x"])
    axis.set_xlabel(first["x_label"])
    axis.set_ylabel(first["y_label"])
    axis.set_ylim(bottom=0)
    axis.margins(y=0.12)
    axis.set_title("Error by frame", loc="left", color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _plain(text: str) -> str:
    """Returns text that matplotlib draws as it stands, not as mathematics."""
    return text.replace("$", r"\$")
