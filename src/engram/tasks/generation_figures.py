"""Pictures of generated points, and of the game that taught the generator."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np

from engram.tasks import generation

INK, REAL, MADE, AMISS = "#1f2933", "#868e96", "#0b7285", "#e07b00"


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"points": points(found), "game": game(found)}
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def points(found: dict[str, Any]) -> plt.Figure:
    """Real points beside generated ones, those far from all modes in another colour."""
    spec, made = found["spec"], found["made"]
    seen = generation.coverage(made, spec["centres"], spec["sigma"])
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 4.7), layout="constrained", sharex=True, sharey=True
    )
    left.scatter(*found["real"].T, s=3, color=REAL, lw=0)
    left.set_title(f"real, {_plain(spec['dataset'])}", loc="left", color=INK)
    for near, colour in ((False, AMISS), (True, MADE)):
        right.scatter(*made[seen["near"] == near].T, s=3, color=colour, lw=0)
    words = f"{seen['modes']:.0f} of {len(spec['centres'])} modes"
    words += f", {seen['high_quality']:.0f} % within 3 sigma"
    right.set_title(f"generated: {words}", loc="left", color=INK)
    reach = 1.25 * np.abs(spec["centres"]).max()
    for axis in (left, right):
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
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
        below.plot(epochs, history[name], color=colour, label=f"of {name} points")
    below.axhline(0.5, color=INK, lw=0.8, ls="--")
    below.set(xlabel="epoch", ylabel="mean D", ylim=(0, 1))
    for axis in (above, below):
        axis.legend(frameon=False)
    above.set_title("The game", loc="left", color=INK)
    return figure


def _plain(text: str) -> str:
    """Returns a name that is not to be drawn as a formula."""
    return text.replace("$", r"\$")
