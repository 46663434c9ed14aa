"""What the fits of an experiment came to: their cost, and their learning curves."""

from statistics import mean
from typing import Any

NOTE = (
    "The loss that a model is trained with, a mean over the seeds: a number to compare"
    " where two models are trained with the same one."
)
HELD, SEEN = "Learning curve, on validation", "Learning curve, in training"


def cost(runs: dict[str, dict[str, Any]], solved: bool) -> dict[str, Any]:
    """Returns the mean time of one fit, the most memory, and what was chosen.

    Args:
        runs: content of `run.json`: of each seed `rate`, `best_epoch`, `seconds`,
            `peak_memory` (MiB of the process) and what was `fitted`.
        solved: whether the model is solved at once, without a rate or epochs.
    """
    seeds = list(runs.values())
    best = [run["best_epoch"] for run in seeds]
    memories = [run["peak_memory"] for run in seeds if "peak_memory" in run]  # not of old
    return {
        "seeds": [int(seed) for seed in runs],
        "fitted": seeds[0]["fitted"],
        "train_seconds": mean(run["seconds"] for run in seeds),
        "peak_memory": max(memories, default=None),
        "learning_rate": None if solved else seeds[0]["rate"],
        "best_epoch": None if solved or None in best else mean(best),
    }


def curves(history: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Returns the loss by epoch, a mean over the seeds; none of a model solved at once.

    Args:
        history: of each seed the value at each epoch's end by name, `"loss"` among them
            and, where a part was held out, `"val_loss"`.

    Returns:
        One curve as `metrics/<experiment>.details.json` has them, or nothing.
    """
    seeds = list(history.values())
    held = all("val_loss" in seed for seed in seeds)
    values = [seed["val_loss" if held else "loss"] for seed in seeds]
    epochs = [mean(at) for at in zip(*values, strict=True)]
    if len(epochs) < 2:
        return []
    about = {"title": HELD if held else SEEN, "x_label": "epoch", "y_label": "loss"}
    about["note"] = NOTE
    x = list(range(1, 1 + len(epochs)))
    return [{**about, "y_scale": "log", "x": x, "y": epochs}]
