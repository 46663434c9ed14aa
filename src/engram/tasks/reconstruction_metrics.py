"""How far reconstructions of test images are from the images.

    squared_error  sum over pixels of (image - reconstruction)^2, mean over images
    cross_entropy  minus the sum over pixels of x log y + (1 - x) log(1 - y), mean over
                   images, nats

Pixels `x` are from 0 to 1. For the cross-entropy a reconstruction `y` is kept within
[`SURE`, 1 - `SURE`], the range in which Keras computes it from chances: a linear model
such as PCA leaves [0, 1], and pays up to 16 nats a pixel for it. The squared error takes
reconstructions as they are, and is the headline.
"""

from typing import Any

import numpy as np

BLOCK = 10  # test images that `compare` draws together
SURE = 1e-7


def scores(drawn: list[np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns `squared_error` and `cross_entropy` of each image, `(S, B)`.

    Args:
        drawn: of each seed, reconstructions `(B, V)`.
        rows: the images `(B, V)`.

    Raises:
        ValueError: if a pixel of a reconstruction is not a number.
    """
    wrong = sum(int((~np.isfinite(one)).sum()) for one in drawn)
    if wrong:
        size = sum(one.size for one in drawn)
        raise ValueError(f"{wrong} of {size} pixels are NaN or infinite")
    x = rows.astype(np.float64)
    found: dict[str, list[np.ndarray]] = {"squared_error": [], "cross_entropy": []}
    for one in drawn:
        y = one.astype(np.float64)
        found["squared_error"].append(((x - y) ** 2).sum(axis=1))
        y = y.clip(SURE, 1 - SURE)
        found["cross_entropy"].append(-(x * np.log(y) + (1 - x) * np.log1p(-y)).sum(1))
    return {name: np.stack(seeds) for name, seeds in found.items()}


def measure(scores: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details`.

    Args:
        scores: what the function `scores` returns.
        labels: integers `(B,)`, class of each image.
    """
    error = scores["squared_error"]
    several = len(error) > 1
    return {
        "per_seed": [
            {name: float(score[seed].mean()) for name, score in scores.items()}
            for seed in range(len(error))
        ],
        "headline": ["squared_error"],
        "sort_by": "squared_error",
        "better": "lower",
        "unit": "",
        "metrics": {name: float(score.mean()) for name, score in scores.items()},
        "std": {
            name: float(score.mean(1).std(ddof=1)) if several else None
            for name, score in scores.items()
        },
        "details": {"curves": [by_class(error, labels)], "paired": paired(error)},
    }


def by_class(error: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns the squared error `(S, B)` of the images of each class, mean over seeds."""
    classes = np.unique(labels)
    return {
        "title": "Squared error by class",
        "x_label": "class",
        "y_label": "squared error an image",
        "x": classes.tolist(),
        "y": [float(error[:, labels == one].mean()) for one in classes],
    }


def paired(error: np.ndarray) -> dict[str, Any]:
    """Returns squared errors `(S, B)` summed over blocks of neighbouring test images."""
    block = np.arange(error.shape[1]) // BLOCK
    return {
        "metric": "squared_error",
        "kind": "mean",
        "unit_of_resampling": f"{BLOCK} test images",
        "count": np.bincount(block).tolist(),
        "sum": [np.bincount(block, one).tolist() for one in error],
    }
