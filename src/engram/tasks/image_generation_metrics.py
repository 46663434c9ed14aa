"""How near generated images come to real ones, and how many modes they reach.

All but the last two compare features, `U` numbers of an image from a classifier of our
own, of generated images and of the test part:

    frechet            |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of their means m and
                       covariances C (Heusel et al. 2017, arXiv:1706.08500, equation 6)
    kid                unbiased squared MMD with the kernel (x y / U + 1)^3 (Binkowski et
                       al. 2018, arXiv:1801.01401), below 0 by chance where both are alike
    precision          per cent of the generated images within the neighbourhood of a real
                       one: nearer to it than its third nearest real one, or as near
    outside            per cent of the others; `compare` draws intervals of it
    recall             per cent of the real images within the neighbourhood of a generated
                       one (both Kynkaanniemi et al. 2019, arXiv:1904.06991)
    modes              modes that the judge tells a generated image to be of
    reverse_kl         sum over modes of q log(q M), nats: q is the share of generated
                       images that are told to be of a mode, M how many modes there are

`frechet_floor` and so on are those of real images that nobody trained on, of the
validation part, in place of generated ones. The features are not Inception's: no number
compares with a published FID or KID. `frechet` is the higher the fewer images it is of:
`generated`, `test` and `held` say how many. `kid`, `precision` and `recall` are of the
first `MOST` images of each side. `judge_accuracy` is the classifier's on the test part.
"""

from typing import Any

import numpy as np

from engram.tasks.image_generation import ROWS, kid

BLOCK = 50  # generated images that `compare` draws together
HEADLINE = ["frechet", "frechet_floor", "kid", "precision", "recall", "modes"]
MOST = 5000  # images of a side, where all pairs are looked at
TIE = 1e-12  # of two rows' squared lengths: by less, no distance is the longer one


def measure(
    made: np.ndarray,
    told: np.ndarray,
    real: np.ndarray,
    held: np.ndarray,
    held_told: np.ndarray,
    modes: int,
    judge_accuracy: float,
) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details`.

    Args:
        made: features of generated images `(S, N, U)`, one set per seed, of the same
            noise.
        told: integers `(S, N)`, the mode that the judge tells each of them to be of.
        real: features of the test part `(R, U)`.
        held: features of the validation part `(H, U)`.
        held_told: integers `(H,)`, their modes.
        modes: int, how many modes `M` there are.
        judge_accuracy: float, per cent, which is passed on.

    Raises:
        ValueError: if a feature is not finite, a side has too few images, or a mode is
            none of the `M`.
    """
    for name, side in {"generated": made, "test": real, "validation": held}.items():
        if wrong := int((~np.isfinite(side)).sum()):
            raise ValueError(
                f"{wrong} of {side.size} {name} features are NaN or infinite"
            )
    floor, _ = _one(held, held_told, real, modes)
    floors = {f"{name}_floor": value for name, value in floor.items()}
    floors |= {"generated": made.shape[1], "test": len(real), "held": len(held)}
    floors["judge_accuracy"] = judge_accuracy
    rows, near = [], []
    for features, classes in zip(made, told, strict=True):
        found, inside = _one(features, classes, real, modes)
        rows.append({**found, **floors})
        near.append(inside)
    every = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "per_seed": rows,
        "headline": HEADLINE,
        "sort_by": "frechet",
        "better": "lower",
        "unit": "",
        "metrics": {name: float(np.mean(values)) for name, values in every.items()},
        "std": {
            name: float(np.std(values, ddof=1)) if len(rows) > 1 else None
            for name, values in every.items()
        },
        "details": {"curves": [], "paired": paired(np.stack(near))},
    }


def _one(
    made: np.ndarray, told: np.ndarray, real: np.ndarray, modes: int
) -> tuple[dict[str, float], np.ndarray]:
    """Returns all numbers of one set of images, and which are in a neighbourhood."""
    inside, covered = precision_recall(real[:MOST], made[:MOST])
    precision = 100 * float(inside.mean())
    found = {
        "frechet": frechet(made, real),
        "kid": kid(made[:MOST], real[:MOST]),
        "precision": precision,
        "outside": 100 - precision,
        "recall": 100 * float(covered.mean()),
        **_reached(told, modes),
    }
    return found, inside


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the squared Frechet distance of features `(A, U)` and `(B, U)`.

    With C = R'R of one side and C' = Q'Q of the other, the eigenvalues of C C' are the
    squared singular values of R Q'. Their sum is the trace of the root, of covariances
    that have no inverse, too.

    Raises:
        ValueError: if a side has fewer than 2 rows.
    """
    _enough(2, a=a, b=b)
    mean_a, root_a = _gaussian(a)
    mean_b, root_b = _gaussian(b)
    traces = (root_a**2).sum() + (root_b**2).sum()
    shared = np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((mean_a - mean_b) ** 2).sum() + traces - 2 * shared)


def _gaussian(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean `(U,)` of rows and an R whose R'R is their covariance."""
    rows = np.asarray(rows, np.float64)
    mean = rows.mean(0)
    return mean, np.linalg.qr(rows - mean, mode="r") / np.sqrt(len(rows) - 1)


def precision_recall(
    real: np.ndarray, made: np.ndarray, k: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which images are within a neighbourhood of the other side.

    Args:
        real: features of real images `(R, U)`.
        made: features of generated images `(N, U)`.
        k: int, the neighbour of its own side to which a neighbourhood reaches.

    Returns:
        `inside`, bool `(N,)`: which generated images are within that of a real one, and
        `covered`, bool `(R,)`: which real images are within that of a generated one.

    Raises:
        ValueError: if a side has fewer than `k + 1` rows.
    """
    _enough(k + 1, real=real, made=made)
    centre = np.mean(real, axis=0, dtype=np.float64)  # lengths near it lose few digits
    real, made = real - centre, made - centre
    reach_real, reach_made = _reach(real, k), _reach(made, k)
    inside, covered = np.zeros(len(made), bool), np.zeros(len(real), bool)
    for n in range(0, len(real), ROWS):
        gaps = _apart(real[n : n + ROWS], made, -TIE)  # (ROWS, N)
        inside |= (gaps <= reach_real[n : n + ROWS, None]).any(0)
        covered[n : n + ROWS] = (gaps <= reach_made).any(1)
    return inside, covered


def _reach(rows: np.ndarray, k: int) -> np.ndarray:
    """Returns the squared distance of each row to its k-th nearest other one."""
    nearest = [  # the row itself is the first of them
        np.partition(_apart(rows[n : n + ROWS], rows, TIE), k)[:, k]
        for n in range(0, len(rows), ROWS)
    ]
    return np.concatenate(nearest)


def _apart(x: np.ndarray, y: np.ndarray, tie: float) -> np.ndarray:
    """Returns squared distances `(X, Y)` of rows `(X, U)` and `(Y, U)`.

    A product of matrices rounds them: `tie` times the squared lengths is added.
    """
    lengths = (x**2).sum(1)[:, None] + (y**2).sum(1)
    return (1 + tie) * lengths - 2 * x @ y.T


def _reached(told: np.ndarray, modes: int) -> dict[str, float]:
    """Returns `modes` and `reverse_kl` of integers `(N,)`."""
    if told.min() < 0 or told.max() >= modes:
        received = f"{told.min()} to {told.max()}"
        raise ValueError(f"modes must be from 0 to {modes - 1}. Received: {received}")
    shares = np.bincount(told, minlength=modes) / len(told)
    some = shares[shares > 0]
    return {
        "modes": float(len(some)),
        "reverse_kl": float((some * np.log(some * modes)).sum()),
    }


def _enough(least: int, **sides: np.ndarray) -> None:
    """Refuses a side of fewer rows than `least`."""
    for name, side in sides.items():
        if len(side) < least:
            received = f"Received: {len(side)}"
            raise ValueError(f"`{name}` must have at least {least} rows. {received}")


def paired(inside: np.ndarray) -> dict[str, Any]:
    """Returns `outside` summed over blocks of generated images, of bool `(S, N)`."""
    block = np.arange(inside.shape[1]) // BLOCK
    return {
        "metric": "outside",
        "kind": "mean",
        "unit_of_resampling": f"{BLOCK} generated images",
        "count": np.bincount(block).tolist(),
        "sum": [np.bincount(block, 100.0 * ~one).tolist() for one in inside],
    }
