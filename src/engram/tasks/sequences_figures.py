"""Pictures of what models tell after a sequence: sums, recalled symbols, digits."""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np

from engram.tasks import sequences

INK, SOFT, MODEL = "#1f2933", "#9aa5b1", "#0b7285"
RECALLED = 6  # sequences whose recall is drawn
MISTAKES = 12  # images that are drawn


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    if found["spec"]["target"] == "number":
        drawings = {"sums": sums(found), "error_by_age": error_by_age(found)}
    elif found["spec"]["target"] == "class":
        drawings = {"confusion": confusion(found), "mistakes": mistakes(found)}
    else:
        drawings = {"recall": recall(found), "recall_by_place": recall_by_place(found)}
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def sums(found: dict[str, Any]) -> plt.Figure:
    """The sum that is told against the true one, a dot for each test sequence."""
    truth, told = found["truth"][:, 0], found["output"][:, 0]
    figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
    axis.plot([0, 2], [0, 2], color=INK, lw=1, label="right")
    axis.axhline(1, color=SOFT, lw=1.2, ls="--", label="always 1: MSE 0.167")
    mse = float(((told - truth) ** 2).mean())
    axis.plot(truth, told, ".", color=MODEL, ms=3, alpha=0.5, label=f"MSE {mse:.2g}")
    axis.set(xlim=(0, 2), ylim=(-0.1, 2.1), xlabel="true sum", ylabel="sum told")
    axis.set_aspect("equal")
    axis.set_title(_title(found, "Sums of the two marked numbers"), loc="left", color=INK)
    axis.legend(frameon=False, loc="upper left", markerscale=3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def error_by_age(found: dict[str, Any]) -> plt.Figure:
    """MSE by how long the first number had to be remembered, mean over seeds."""
    figure, axis = _curve(found)
    axis.axhline(1 / 6, color=SOFT, lw=1.2, ls="--", label="always 1")
    least = min(found["details"]["curves"][0]["y"])
    axis.set_yscale("log")
    axis.set_ylim(min(1e-4, least / 2), 0.5)
    axis.legend(frameon=False)
    return figure


def recall_by_place(found: dict[str, Any]) -> plt.Figure:
    """Share of the symbols recalled at each place, mean over seeds."""
    figure, axis = _curve(found)
    symbols = found["spec"]["classes"] - 1
    axis.axhline(100 / symbols, color=SOFT, lw=1.2, ls="--", label="guessed")
    axis.set_ylim(0, 103)
    axis.set_xticks(found["details"]["curves"][0]["x"])
    axis.legend(frameon=False)
    return figure


def recall(found: dict[str, Any]) -> plt.Figure:
    """The chances given to each symbol at the last steps; dots are the symbols shown."""
    count = int((found["truth"][0] > 0).sum())  # to recall
    truth = found["truth"][:RECALLED, -count:]  # (R, n)
    chances = _softmax(found["output"][:RECALLED, -count:])[..., 1:]  # (R, n, symbols)
    figure, axes = plt.subplots(
        2, RECALLED // 2, figsize=(9, 5), layout="constrained", sharex=True, sharey=True
    )
    for axis, right, given in zip(axes.flat, truth, chances, strict=False):
        image = axis.imshow(
            given.T,
            cmap="GnBu",
            vmin=0,
            vmax=1,
            aspect="auto",
            origin="lower",
            extent=(0.5, count + 0.5, 0.5, given.shape[1] + 0.5),
        )
        axis.plot(np.arange(1, count + 1), right, "o", color=INK, ms=5, mfc="white")
        axis.set(xticks=range(1, count + 1), yticks=range(1, given.shape[1] + 1))
        axis.tick_params(labelsize=8)
    figure.colorbar(image, ax=axes, label="probability told", shrink=0.8)
    figure.supxlabel("place of the symbol", fontsize=10)
    figure.supylabel("symbol", fontsize=10)
    figure.suptitle(_title(found, "Recall of test sequences (circles: shown)"))
    return figure


def confusion(found: dict[str, Any]) -> plt.Figure:
    """How often each class is taken for each other one; the diagonal is right."""
    truth, told = found["truth"][:, 0], found["output"].argmax(-1)
    classes = found["spec"]["classes"]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (truth, told), 1)
    wrong = counts * (1 - np.eye(classes, dtype=int))
    figure, axis = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, wrong.max()))
    for (row, column), count in np.ndenumerate(counts):
        right = row == column
        strong = not right and count > 0.6 * wrong.max()
        colour = MODEL if right else "white" if strong else INK
        if count:
            axis.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                fontsize=8,
                color=colour,
                weight="bold" if right else "normal",
            )
    axis.set(xticks=range(classes), yticks=range(classes))
    axis.set(xlabel="class told", ylabel="true class")
    share = 100 * float((truth == told).mean())
    axis.set_title(_title(found, f"{share:.2f} % right"), loc="left", color=INK)
    return figure


def mistakes(found: dict[str, Any]) -> plt.Figure:
    """The images whose wrong class the model was surest of."""
    chances = _softmax(found["output"])  # (B, C)
    truth, told = found["truth"][:, 0], chances.argmax(-1)
    (wrong,) = np.nonzero(truth != told)
    chosen = wrong[np.argsort(-chances.max(-1)[wrong], kind="stable")][:MISTAKES]
    figure, axes = plt.subplots(2, MISTAKES // 2, figsize=(9, 3.6), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, n in zip(axes.flat, chosen, strict=False):
        axis.imshow(picture(found["inputs"][n], found["spec"]["read"]), cmap="gray_r")
        sure = 100 * chances[n, told[n]]
        axis.set_title(f"{truth[n]} taken for {told[n]}\n{sure:.0f} % sure", fontsize=8)
    figure.suptitle(_title(found, "Mistakes it was surest of"), color=INK)
    return figure


def picture(inputs: np.ndarray, read: str) -> np.ndarray:
    """Returns the image `(height, width)` that a sequence `(T, F)` was made of."""
    if read == "rows":
        return inputs
    pixels = inputs[:, 0]
    if read == "permuted_pixels":
        pixels = pixels[np.argsort(sequences.permutation(len(pixels)))]
    side = math.isqrt(len(pixels))
    return pixels.reshape(side, side)


def _curve(found: dict[str, Any]) -> tuple[plt.Figure, plt.Axes]:
    curve = found["details"]["curves"][0]
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axis.plot(curve["x"], curve["y"], "o-", color=MODEL, label="mean over seeds")
    axis.set(xlabel=curve["x_label"], ylabel=curve["y_label"])
    axis.set_title(_title(found, curve["title"]), loc="left", color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _title(found: dict[str, Any], text: str) -> str:
    """Returns the text and the dataset's name, which is not to be drawn as a formula."""
    name = found["spec"]["dataset"].replace("$", r"\$")
    return f"{text}, {name}"
