"""Pictures of an RBM: its filters, what it makes and reconstructs, how it learned."""

import itertools
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np

INK, SOFT, TRAIN, HELD, BOUND = "#1f2933", "#7b8794", "#9aa5b1", "#0b7285", "#d9480f"
FILTERS, PARTICLES, SHOWN = 40, 40, 10  # how many are drawn
COLUMNS, FRAME = 10, "#cbd2d9"
STEPS = 1000  # Gibbs steps of a fantasy particle
LOSSES = {"loss": (TRAIN, "training rows"), "val_loss": (HELD, "held-out rows")}


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "filters": filters(found),
        "fantasies": fantasies(found),
        "reconstructions": reconstructions(found),
        "learning": learning(found),
    }
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def filters(found: dict[str, Any]) -> plt.Figure:
    """The kernel's columns as images: what each hidden unit looks for."""
    kernel = np.asarray(found["model"].rbm.kernel)  # (V, L)
    strongest = np.argsort(-np.linalg.norm(kernel, axis=0), kind="stable")[:FILTERS]
    images = kernel[:, np.sort(strongest)].T
    limit = float(np.abs(images).max()) or 1.0
    note = "blue turns a hidden unit on, red turns it off"
    return _sheet(found, images, f"Filters: {note}", cmap="RdBu", vmin=-limit, vmax=limit)


def fantasies(found: dict[str, Any]) -> plt.Figure:
    """What the density itself makes: chains of Gibbs steps that began at noise."""
    rbm, spec = found["model"].rbm, found["spec"]
    coins = np.random.Generator(np.random.PCG64(1))
    noise = coins.integers(0, 2, (PARTICLES, spec["visible"])).astype(np.float32)
    h = rbm.sample_hidden(rbm.sample(noise, STEPS))
    title = f"Fantasy particles: {STEPS:,} Gibbs steps from noise, means of the last"
    return _sheet(found, np.asarray(rbm.visible_mean(h)), title)


def reconstructions(found: dict[str, Any]) -> plt.Figure:
    """Test images, and below each what the hidden units keep of it."""
    rows = found["rows"][:SHOWN]
    kept = np.asarray(found["model"].rbm.reconstruct(rows))
    return _sheet(
        found,
        np.concatenate([rows, kept]),
        "Test images, and below each its reconstruction",
        columns=len(rows),
    )


def learning(found: dict[str, Any]) -> plt.Figure:
    """Log-likelihood and, with held-out rows, free-energy gap of the first seed."""
    history, parts = next(iter(found["history"].values())), found["spec"]["parts"]
    shared = parts["train"] == parts["validation"]  # no rows are held out
    panels = 1 if shared or "free_energy_gap" not in history else 2
    figure, axes = plt.subplots(
        panels, 1, figsize=(6.4, 1 + 2.2 * panels), layout="constrained", squeeze=False
    )
    axis, bound = axes[0, 0], found["spec"]["bound"]
    for name, (colour, label) in LOSSES.items():
        if name in history and not (shared and name == "loss"):
            label = "all rows" if shared else label
            _by_epoch(axis, -np.array(history[name]), color=colour, label=label)
    if bound is not None:
        axis.axhline(bound, color=BOUND, lw=1.2, ls="--", label=f"best: {bound:.4f}")
    axis.set_ylabel("nats a row")
    kind = "Log-likelihood" if found["model"].cheap else "Pseudo-log-likelihood"
    axis.set_title(_title(found, kind), loc="left", color=INK)
    axis.legend(frameon=False)
    if panels == 2:
        axis = axes[1, 0]
        _by_epoch(axis, history["free_energy_gap"], color=HELD)
        axis.axhline(0, color=SOFT, lw=0.8)
        axis.set_ylabel("nats")
        axis.set_title("Free energy, held-out less training rows", loc="left", color=INK)
    axis.set_xlabel("epoch")
    return figure


def _by_epoch(axis: plt.Axes, values, **style) -> None:
    axis.plot(1 + np.arange(len(values)), values, **style)
    axis.spines[["top", "right"]].set_visible(False)


def _sheet(
    found: dict[str, Any],
    rows: np.ndarray,
    title: str,
    columns: int = COLUMNS,
    cmap: str = "gray_r",
    vmin: float = 0.0,
    vmax: float = 1.0,
) -> plt.Figure:
    """Draws rows `(B, V)` as images, `columns` in a line."""
    lines = -(-len(rows) // columns)
    size = (0.75 * columns + 0.3, 0.75 * lines + 0.6)
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained")
    every = np.atleast_1d(axes).flat
    for axis, row in itertools.zip_longest(every, rows):
        if row is None:
            axis.axis("off")
            continue
        image = row.reshape(found["spec"]["shape"])
        axis.imshow(image, cmap=cmap, vmin=vmin, vmax=vmax, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color=FRAME, linewidth=0.8)
    figure.suptitle(_title(found, title), color=INK, fontsize=10)
    return figure


def _title(found: dict[str, Any], text: str) -> str:
    """Returns the text and the dataset's name, which is not to be drawn as a formula."""
    name = found["spec"]["dataset"].replace("$", r"\$")
    return f"{text}, {name}"
