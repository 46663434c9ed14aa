"""Errors on test images, by the class that a model tells of each.

    accuracy       per cent of the images whose class is the likeliest
    error          per cent of the others
    cross_entropy  mean -log p(truth), nats

`p` is the softmax of a model's logits. The accuracy is the headline.
"""

from typing import Any

import numpy as np
from scipy.special import log_softmax

BLOCK = 10  # test images that `compare` draws together


def measure(logits: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details` of logits.

    Args:
        logits: `(S, B, C)`, one per seed.
        truth: integers `(B,)`.

    Raises:
        ValueError: if a logit is not a number.
    """
    if not np.isfinite(logits).all():
        wrong = int((~np.isfinite(logits)).sum())
        raise ValueError(f"{wrong} of {logits.size} logits are NaN or infinite")
    chances = log_softmax(logits.astype(np.float64), axis=-1)
    right = (logits.argmax(-1) == truth).astype(np.float64)  # (S, B)
    scores = {
        "accuracy": 100 * right,
        "error": 100 * (1 - right),
        "cross_entropy": -chances[:, np.arange(len(truth)), truth],
    }
    rows = [
        {name: float(score[seed].mean()) for name, score in scores.items()}
        for seed in range(len(logits))
    ]
    several = len(rows) > 1
    return {
        "per_seed": rows,
        "headline": ["accuracy"],
        "sort_by": "accuracy",
        "better": "higher",
        "unit": "%",
        "metrics": {name: float(score.mean()) for name, score in scores.items()},
        "std": {
            name: float(score.mean(1).std(ddof=1)) if several else None
            for name, score in scores.items()
        },
        "details": {
            "curves": [accuracy_by_class(scores["accuracy"], truth)],
            "paired": paired(scores["accuracy"]),
        },
    }


def paired(accuracy: np.ndarray) -> dict[str, Any]:
    """Returns accuracies `(S, B)` summed over blocks of neighbouring test images.

    `compare` resamples blocks, in longer stretches where neighbours correlate, such as
    the digits of one hand.
    """
    starts = np.arange(0, accuracy.shape[1], BLOCK)
    return {
        "metric": "accuracy",
        "kind": "mean",
        "unit_of_resampling": f"{BLOCK} test images",
        "count": np.add.reduceat(np.ones_like(accuracy[0], int), starts).tolist(),
        "sum": np.add.reduceat(accuracy, starts, axis=1).tolist(),
    }


def accuracy_by_class(accuracy: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Returns the accuracy on the images of each class, mean over seeds."""
    classes = np.unique(truth)
    return {
        "title": "Accuracy by class",
        "x_label": "class",
        "y_label": "% right",
        "x": classes.tolist(),
        "y": [float(accuracy[:, truth == one].mean()) for one in classes],
    }
