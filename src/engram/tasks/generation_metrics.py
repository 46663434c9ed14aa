"""How many modes generated points reach, and how near they come to the real ones.

    modes              modes with a generated point within 3 sigma
    high_quality       per cent of the generated points within 3 sigma of a mode
    reverse_kl         sum over modes of q log(q M), nats: q is the share of generated
                       points that are nearest to a mode, M how many modes there are
    distance           2 E log|x - y| - E log|x - x'| - E log|y - y'| of real points x and
                       generated ones y, each pair of two points
    floor              the same of real points and other real points

The first two are those of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761) and PacGAN
(Lin et al. 2018, arXiv:1712.04086). The distance is the energy distance of Szekely and
Rizzo 2013 for |x - y|^a / a in the limit of a to 0: with a = 1 it hardly sees whether
points of a mode are near each other or ten times as far.
"""

from typing import Any

import numpy as np

from engram.tasks.generation import coverage

BLOCK = 50  # generated points that `compare` draws together
CLOSEST = 1e-6  # of points, in their distance
ROWS = 500  # of a matrix of distances that are held at a time


def measure(
    made: np.ndarray, real: np.ndarray, others: np.ndarray, spec: dict[str, Any]
) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details`.

    Args:
        made: generated points `(S, B, D)`, one set per seed, of the same noise.
        real: points of the test part `(N, D)`.
        others: real points `(N, D)` that are not among them.
        spec: the dataset's `spec.json`, with `centres` and `sigma`.

    Raises:
        ValueError: if a generated number is not finite.
    """
    if not np.isfinite(made).all():
        wrong = int((~np.isfinite(made)).sum())
        raise ValueError(f"{wrong} of {made.size} generated numbers are NaN or infinite")
    floor = distance(real, others)
    rows, near = [], []
    for one in made:
        found = coverage(one, spec["centres"], spec["sigma"])
        near.append(found.pop("near"))
        found["distance"] = distance(real, one)
        rows.append({**found, "floor": floor})
    every = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "per_seed": rows,
        "headline": ["modes", "high_quality", "reverse_kl", "distance"],
        "sort_by": "modes",
        "better": "higher",
        "unit": "",
        "metrics": {name: float(np.mean(values)) for name, values in every.items()},
        "std": {
            name: float(np.std(values, ddof=1)) if len(rows) > 1 else None
            for name, values in every.items()
        },
        "details": {"curves": [], "paired": paired(100.0 * np.stack(near))},
    }


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the distance of two sets of points `(B, D)`."""

    def mean(a: np.ndarray, b: np.ndarray, alike: bool) -> float:
        total = 0.0
        for n in range(0, len(a), ROWS):
            gaps = np.linalg.norm(a[n : n + ROWS, None].astype(np.float64) - b, axis=-1)
            if alike:  # a point is no pair with itself
                gaps[np.arange(len(gaps)), n + np.arange(len(gaps))] = 1
            total += float(np.log(np.maximum(gaps, CLOSEST)).sum())
        return total / (len(a) * (len(b) - 1 if alike else len(b)))

    return 2 * mean(one, other, False) - mean(one, one, True) - mean(other, other, True)


def paired(near: np.ndarray) -> dict[str, Any]:
    """Returns `high_quality` `(S, B)` summed over blocks of generated points."""
    block = np.arange(near.shape[1]) // BLOCK
    return {
        "metric": "high_quality",
        "kind": "mean",
        "unit_of_resampling": f"{BLOCK} generated points",
        "count": np.bincount(block).tolist(),
        "sum": [np.bincount(block, one).tolist() for one in near],
    }
