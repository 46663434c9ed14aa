"""Pictures of reconstructions: images beside what became of them, and errors by class."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np

INK, SOFT, MODEL = "#1f2933", "#9aa5b1", "#0b7285"
SHOWN = 3  # images of each class
CLASSES = 10  # classes that are drawn, at most


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"reconstructions": reconstructions(found), "classes": classes(found)}
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def reconstructions(found: dict[str, Any]) -> plt.Figure:
    """The first test images of each class, and below each its reconstruction."""
    columns = [
        np.flatnonzero(found["labels"] == one)[:SHOWN]
        for one in np.unique(found["labels"])[:CLASSES]
    ]
    size = 0.75 * len(columns) + 0.3, 1.5 * SHOWN + 0.6
    figure, axes = plt.subplots(
        2 * SHOWN, len(columns), figsize=size, layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for column, places in enumerate(columns):
        for line, n in enumerate(places):
            for below, key in enumerate(("rows", "reconstructions")):
                shown = picture(found[key][n], found["spec"]["shape"])
                axes[2 * line + below, column].imshow(shown, "gray_r", vmin=0, vmax=1)
    title = "Test images, and below each its reconstruction"
    figure.suptitle(_title(found, title), color=INK, fontsize=10)
    return figure


def picture(row: np.ndarray, shape: list[int]) -> np.ndarray:
    """Returns a row `(V,)` as an image `(H, W, F)` from 0 to 1, without `F` if grey."""
    image = row.clip(0, 1).reshape(shape)
    return image[..., 0] if shape[-1] == 1 else image


def classes(found: dict[str, Any]) -> plt.Figure:
    """Squared errors of the images of each class: half of them are within the box."""
    labels, error = found["labels"], found["squared_error"].mean(axis=0)  # (B,)
    known = np.unique(labels)
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    axis.boxplot(
        [error[labels == one] for one in known],
        tick_labels=known.tolist(),
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": SOFT, "edgecolor": SOFT},
        medianprops={"color": MODEL, "linewidth": 2},
    )
    axis.set(xlabel="class", ylabel="squared error an image", ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    title = f"Squared error by class: {error.mean():.2f} on average"
    axis.set_title(_title(found, title), loc="left", color=INK)
    return figure


def _title(found: dict[str, Any], text: str) -> str:
    """Returns the text and the dataset's name, which is not to be drawn as a formula."""
    name = found["spec"]["dataset"].replace("$", r"\$")
    return f"{text}, {name}"
