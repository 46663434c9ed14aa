"""Pictures of the classes that a model tells: who is taken for whom, and the images."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

INK, MODEL = "#1f2933", "#0b7285"
MISTAKES = 12  # images that are drawn
WRITTEN = 20  # classes; of more, the matrix has colours and no numbers


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"confusion": confusion(found), "mistakes": mistakes(found)}
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def confusion(found: dict[str, Any]) -> plt.Figure:
    """How often each class is taken for each other one; the diagonal is right."""
    truth, told = found["truth"], found["logits"].argmax(-1)
    spec, classes = found["spec"], found["spec"]["classes"]
    counts = confusion_matrix(truth, told, labels=range(classes))
    wrong = counts - np.diag(counts.diagonal())
    figure, axis = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, wrong.max()))
    if classes <= WRITTEN:
        names = [_plain(name) for name in spec["names"]]
        turned = 90 if max(map(len, names)) > 2 else 0
        axis.set_xticks(range(classes), names, rotation=turned)
        axis.set_yticks(range(classes), names)
        _numbers(axis, counts, 0.6 * wrong.max())
    axis.set(xlabel="class told", ylabel="true class")
    share = f"{100 * (truth == told).mean():.2f} % right"
    axis.set_title(f"{share}, {_plain(spec['dataset'])}", loc="left", color=INK)
    return figure


def _numbers(axis: plt.Axes, counts: np.ndarray, dark: float) -> None:
    """Writes each count that is not zero, the right ones in bold, white on `dark`."""
    for row, column in np.argwhere(counts):
        count, right = counts[row, column], row == column
        axis.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            fontsize=8,
            color=MODEL if right else "white" if count > dark else INK,
            weight="bold" if right else "normal",
        )


def mistakes(found: dict[str, Any]) -> plt.Figure:
    """The images whose wrong class the model was surest of."""
    spec, truth = found["spec"], found["truth"]
    chances = softmax(found["logits"].astype(np.float64), axis=-1)  # (B, C)
    told, sure = chances.argmax(-1), chances.max(-1)
    order = np.argsort(-sure, kind="stable")
    chosen = order[truth[order] != told[order]][:MISTAKES]
    figure, axes = plt.subplots(2, MISTAKES // 2, figsize=(9, 3.6), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, n in zip(axes.flat, chosen, strict=False):
        axis.imshow(picture(found["inputs"][n], spec["white"]), "gray_r", vmin=0, vmax=1)
        right, wrong = (_plain(spec["names"][one]) for one in (truth[n], told[n]))
        words = f"{right} taken for\n{wrong}, {100 * sure[n]:.0f} % sure"
        axis.set_title(words, fontsize=8)
    title = f"Mistakes it was surest of, {_plain(spec['dataset'])}"
    figure.suptitle(title, color=INK)
    return figure


def picture(image: np.ndarray, white: int) -> np.ndarray:
    """Returns an image `(H, W, F)` from 0 to 1, without `F` if it is grey."""
    shown = image.astype(np.float64) / white
    return shown[..., 0] if shown.shape[-1] == 1 else shown


def _plain(text: str) -> str:
    """Returns a name that is not to be drawn as a formula."""
    return text.replace("$", r"\$")
