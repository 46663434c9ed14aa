"""Pictures of generated images, of what lies between two, and of the game behind them."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np

INK, REAL, MADE, AMISS = "#1f2933", "#868e96", "#0b7285", "#e07b00"
ROWS, COLUMNS = 8, 10  # of images in a picture
STEPS = 10  # from one noise to another
SEED = 28  # of the noise of all pictures
FEW = 20  # modes that are drawn one by one


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "images": images(found),
        "between": between(found),
        "modes": modes(found),
        "game": game(found),
    }
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def images(found: dict[str, Any]) -> plt.Figure:
    """Real images beside generated ones, none chosen."""
    count = ROWS * COLUMNS
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), layout="constrained")
    real = f"real, {_plain(found['spec']['dataset'])}"
    left.set_title(f"{real}: the first of the test part", loc="left", color=INK)
    _show(left, found["real"][:count], COLUMNS)
    right.set_title("generated: the first, none chosen", loc="left", color=INK)
    _show(right, found["model"].generate(count, SEED), COLUMNS)
    return figure


def between(found: dict[str, Any]) -> plt.Figure:
    """Images of noise on the way from one to another, a row for each of a few ways.

    Noise of many numbers lies near a sphere, so the way is along it: Shoemake 1985.
    """
    model = found["model"]
    width = model.generator.input_shape[-1]
    ends = np.random.default_rng(SEED).standard_normal((2, ROWS, width))
    lengths = np.linalg.norm(ends, axis=-1, keepdims=True)
    cosine = (ends[0] * ends[1]).sum(-1) / (lengths[0] * lengths[1])[:, 0]
    angle = np.arccos(np.clip(cosine, -1, 1))[:, None, None]  # (ROWS, 1, 1)
    t = np.linspace(0, 1, STEPS)[:, None]
    parts = np.sin((1 - t) * angle), np.sin(t * angle)  # (ROWS, STEPS, 1)
    way = sum(part * end[:, None] for part, end in zip(parts, ends, strict=True))
    noise = (way / np.sin(angle)).reshape(-1, width).astype(np.float32)
    figure, axis = plt.subplots(figsize=(5, 4.3), layout="constrained")
    axis.set_title("From one noise to another", loc="left", color=INK)
    _show(axis, model.predict(noise, verbose=0), STEPS)
    return figure


def modes(found: dict[str, Any]) -> plt.Figure:
    """How often the judge tells each mode, or how many it tells how often."""
    count = found["spec"]["modes"]
    told = np.bincount(found["modes"], minlength=count)
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    if count <= FEW:
        axis.bar(range(count), 100 * told / told.sum(), color=MADE)
        axis.axhline(100 / count, color=INK, lw=0.8, ls="--")
        axis.set_xticks(range(count))
        axis.set(xlabel="mode, as the judge tells it", ylabel="generated images, %")
    else:
        axis.hist(told, bins=30, color=MADE)
        axis.axvline(told.mean(), color=INK, lw=0.8, ls="--")
        axis.set(xlabel="generated images of a mode", ylabel="modes")
    words = f"{(told > 0).sum()} of {count} modes; dashed: all equally often"
    axis.set_title(words, loc="left", color=INK)
    return figure


def game(found: dict[str, Any]) -> plt.Figure:
    """The two losses, and what the discriminator thinks, over the epochs of one seed."""
    history = next(iter(found["history"].values()))
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7, 5.2), layout="constrained", sharex=True
    )
    epochs = np.arange(1, 1 + len(history["loss"]))
    losses = {"generator": (history["loss"], MADE)}
    losses["discriminator"] = (history["discriminator"], AMISS)
    for name, (values, colour) in losses.items():
        above.plot(epochs, values, color=colour, label=name)
    above.set_ylabel("loss, nats")
    for name, colour in (("real", REAL), ("fake", MADE)):
        below.plot(epochs, history[name], color=colour, label=f"of {name} images")
    below.axhline(0.5, color=INK, lw=0.8, ls="--")
    below.set(xlabel="epoch", ylabel="mean D", ylim=(0, 1))
    for axis in (above, below):
        axis.legend(frameon=False)
    above.set_title("The game", loc="left", color=INK)
    return figure


def _show(axis, some: np.ndarray, columns: int) -> None:
    """Shows images `(B, H, W, F)` in rows, a pixel between them; whole rows only."""
    some = some[: len(some) // columns * columns]
    framed = np.pad(some, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1)
    rows = framed.reshape(-1, columns, *framed.shape[1:])
    height, width = rows.shape[0] * framed.shape[1], columns * framed.shape[2]
    whole = rows.transpose(0, 2, 1, 3, 4).reshape(height, width, -1)
    grey = whole.shape[-1] == 1
    axis.imshow(whole[..., 0] if grey else whole, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()


def _plain(text: str) -> str:
    """Returns a name that is not to be drawn as a formula."""
    return text.replace("$", r"\$")
