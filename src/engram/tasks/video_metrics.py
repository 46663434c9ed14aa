"""Errors of predicted frames, summed over a frame's pixels.

With predicted pixels p and true ones y from 0 to 1, mean over frames and clips:

    MSE = sum (p - y)^2      MAE = sum |p - y|      BCE = -sum [y log p + (1-y) log(1-p)]

A pixel that is wrong by all of its range counts 1 in MSE and MAE, so they are in pixels
per frame; BCE is in nats per frame. Moving MNIST is reported in such sums.

`next` is predicted from the true frames before it, `free` from the model's own
predictions after the first `history` frames.
"""

from typing import Any

import numpy as np

CERTAIN = 1e-7  # a pixel is never called surer than this, as in Keras' cross-entropy


def measure(
    following: np.ndarray, free: np.ndarray, truth: np.ndarray, spec: dict[str, Any]
) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details` of predictions `(S, B, P, H, W, 1)`.

    Args:
        following: frames predicted from true ones, one array per seed.
        free: frames predicted from predicted ones.
        truth: `(B, P, H, W, 1)`.
        spec: the dataset's `spec.json`.

    Raises:
        ValueError: if a pixel is not a number from 0 to 1.
    """
    for pixels in (following, free):
        wrong = int((~((pixels >= 0) & (pixels <= 1))).sum())  # NaN too
        if wrong:
            raise ValueError(
                f"{wrong} of {pixels.size} predicted pixels are not from 0 to 1"
            )
    errors = {"next": sums(following, truth), "free": sums(free, truth)}
    kept = {
        f"{kind}_{mode}": errors[mode][kind]  # (S, B, P)
        for mode, kinds in {"next": ("mse", "mae", "bce"), "free": ("mse", "mae")}.items()
        for kind in kinds
    }
    rows = [
        {key: float(error[seed].mean()) for key, error in kept.items()}
        for seed in range(len(free))
    ]
    several = len(rows) > 1
    return {
        "per_seed": rows,
        "headline": ["mse_next", "mse_free"],
        "sort_by": "mse_free",
        "better": "lower",
        "metrics": {key: float(np.mean([row[key] for row in rows])) for key in kept},
        "std": {
            key: float(np.std([row[key] for row in rows], ddof=1)) if several else None
            for key in kept
        },
        "details": {"curves": curves(errors, spec), "paired": paired(errors["free"])},
    }


def sums(predicted: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Returns each frame's errors `(S, B, P)`, summed over its pixels."""
    pixels, y = predicted.astype(np.float64), truth.astype(np.float64)
    p = np.clip(pixels, CERTAIN, 1 - CERTAIN)
    nats = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    each = {"mse": (pixels - y) ** 2, "mae": np.abs(pixels - y), "bce": nats}
    return {kind: error.sum((-3, -2, -1)) for kind, error in each.items()}


def curves(
    errors: dict[str, dict[str, np.ndarray]], spec: dict[str, Any]
) -> list[dict[str, Any]]:
    """Returns the MSE of each predicted frame, mean over clips and seeds."""
    frame = [spec["history"] + 1 + p for p in range(spec["horizon"])]
    titles = {"next": "Error after true frames", "free": "Error after its own frames"}
    return [
        {
            "title": title,
            "x_label": "frame",
            "y_label": f"MSE in {spec['unit']}",
            "x": frame,
            "y": errors[mode]["mse"].mean((0, 1)).tolist(),
        }
        for mode, title in titles.items()
    ]


def paired(free: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns free-running squared errors summed per clip, which `compare` resamples."""
    squared = free["mse"]  # (S, B, P)
    _, clips, frames = squared.shape
    return {
        "metric": "mse_free",
        "kind": "mean",
        "unit_of_resampling": "clip",
        "count": [frames] * clips,
        "sum": squared.sum(-1).tolist(),
    }
