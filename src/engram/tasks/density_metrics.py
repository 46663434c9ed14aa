"""Log-likelihoods of test rows, in nats a row.

    log_likelihood           mean log p(v): exact, or by annealing forwards, whose log Z
                             is too low on average, so that this is too high
    log_likelihood_backward  by annealing backwards, whose log Z is too high; equal to the
                             first where log Z is exact
    gap_to_bound             how far below the best possible, where that is known

The first metric named is the headline.
"""

from typing import Any

import numpy as np

BLOCK = 50  # test rows that `compare` draws together


def measure(found: list[dict[str, Any]], spec: dict[str, Any]) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details`.

    Args:
        found: of each seed, `forward` and `backward` log p of every test row `(B,)`.
        spec: the dataset's `spec.json`.

    Raises:
        ValueError: if a log-likelihood is not a number.
    """
    forward = np.stack([one["forward"] for one in found])  # (S, B)
    backward = np.stack([one["backward"] for one in found])
    wrong = int((~np.isfinite([forward, backward])).sum())
    if wrong:
        raise ValueError(f"{wrong} of {2 * forward.size} log-likelihoods are no numbers")
    scores = {"log_likelihood": forward, "log_likelihood_backward": backward}
    if spec["bound"] is not None:
        scores["gap_to_bound"] = spec["bound"] - forward
    several = len(found) > 1
    return {
        "better": "higher",
        "unit": "nats",
        "per_seed": [
            {name: float(score[seed].mean()) for name, score in scores.items()}
            for seed in range(len(found))
        ],
        "headline": list(scores),
        "sort_by": "log_likelihood",
        "metrics": {name: float(score.mean()) for name, score in scores.items()},
        "std": {
            name: float(score.mean(1).std(ddof=1)) if several else None
            for name, score in scores.items()
        },
        "details": {"curves": [ranked(forward)], "paired": paired(forward)},
    }


def ranked(scores: np.ndarray) -> dict[str, Any]:
    """Returns log p of rows `(S, B)` at every tenth of them, least probable first."""
    shares = np.linspace(0, 1, 11)
    return {
        "title": "Least to most probable rows",
        "x_label": "% of the test rows",
        "y_label": "log p, nats",
        "x": (100 * shares).tolist(),
        "y": np.quantile(scores.mean(0), shares).tolist(),
    }


def paired(scores: np.ndarray) -> dict[str, Any]:
    """Returns scores `(S, B)` summed over blocks of neighbouring test rows."""
    block = np.arange(scores.shape[1]) // BLOCK
    return {
        "metric": "log_likelihood",
        "kind": "mean",
        "unit_of_resampling": f"{BLOCK} test rows",
        "count": np.bincount(block).tolist(),
        "sum": [np.bincount(block, one).tolist() for one in scores],
    }
