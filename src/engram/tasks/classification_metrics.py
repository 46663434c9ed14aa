"""How often, and how surely, models tell the class of test images.

    accuracy           per cent of the images whose class is told
    error              per cent of the others
    balanced_accuracy  mean over classes of the accuracy on their images, per cent
    f1                 mean over classes of 2 TP / (2 TP + FP + FN), per cent
    auc                mean over classes of the chance that one of its images has a larger
                       p of it than one of the others
    cross_entropy      mean -log p(truth), nats
    temperature        T with the least cross-entropy of p_T on validation
    calibration_error  sum over bins of n_b / B |share right - mean p_T|, of the class
                       whose p_T is largest: Guo et al. 2017, eq. 3, with 15 bins
    calibration_error_before    the same of p

    p_T = softmax((z - log w) / T)     p = p_1     of logits z and class weights w

The class told is the one with the largest logit. Training with weights lets it think that
all classes are equally frequent; `- log w` makes probabilities of what there is. Classes
without a test image are in no mean. The accuracy is the headline.

References:
    - Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599.
"""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import f1_score, roc_auc_score

BLOCK = 10  # test images that `compare` draws together
BINS = 15  # of the confidence
COLDEST, HOTTEST = 0.05, 20.0  # temperatures among which one is chosen

Held = tuple[np.ndarray, np.ndarray]  # logits (S, B, C) and classes (B,) of validation


def measure(
    logits: np.ndarray,
    truth: np.ndarray,
    held: Held | None = None,
    weights: list[float] | None = None,
) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details` of logits.

    Args:
        logits: `(S, B, C)`, one per seed.
        truth: integers `(B,)`.
        held: logits and classes of validation, if the models have not been fitted on it.
        weights: `(C,)`, what an image of each class weighed in training; None for 1.

    Raises:
        ValueError: if a logit is not a number.
    """
    if not np.isfinite(logits).all():
        wrong = int((~np.isfinite(logits)).sum())
        raise ValueError(f"{wrong} of {logits.size} logits are NaN or infinite")
    right = 100.0 * (logits.argmax(-1) == truth)  # (S, B)
    rows = []
    for seed, one in enumerate(logits):
        own = None if held is None else (natural(held[0][seed], weights), held[1])
        rows.append(decisions(one, truth) | chances(natural(one, weights), truth, own))
    every = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "per_seed": rows,
        "headline": ["accuracy"],
        "sort_by": "accuracy",
        "better": "higher",
        "unit": "%",
        "metrics": {name: float(np.mean(values)) for name, values in every.items()},
        "std": {
            name: float(np.std(values, ddof=1)) if len(rows) > 1 else None
            for name, values in every.items()
        },
        "details": {
            "curves": [accuracy_by_class(right, truth)],
            "paired": paired(right),
        },
    }


def decisions(logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Returns the metrics of the classes told, by logits `(B, C)`."""
    told, classes = logits.argmax(-1), np.unique(truth)
    f1 = f1_score(truth, told, labels=classes, average="macro", zero_division=0)
    recalls = [float((told == one)[truth == one].mean()) for one in classes]
    accuracy = 100 * float((told == truth).mean())
    return {
        "accuracy": accuracy,
        "error": 100 - accuracy,
        "balanced_accuracy": 100 * float(np.mean(recalls)),
        "f1": 100 * float(f1),
    }


def chances(scores: np.ndarray, truth: np.ndarray, held: Held | None) -> dict[str, float]:
    """Returns the metrics of the probabilities, by natural scores `(B, C)`.

    Args:
        scores: of `natural`.
        truth: integers `(B,)`.
        held: scores `(B, C)` and classes `(B,)` of validation, or None for T = 1.
    """
    p = np.exp(log_softmax(scores, axis=-1))
    areas = [
        roc_auc_score(truth == one, p[:, one])
        for one in np.unique(truth)
        if not (truth == one).all()
    ]
    temperature = 1.0 if held is None else temperature_of(*held)
    return {
        "cross_entropy": cross_entropy(scores, truth),
        **({"auc": float(np.mean(areas))} if areas else {}),
        "temperature": temperature,
        "calibration_error": calibration_error(scores / temperature, truth),
        "calibration_error_before": calibration_error(scores, truth),
    }


def natural(logits: np.ndarray, weights: list[float] | None) -> np.ndarray:
    """Returns `z - log w`: float64 scores whose softmax is `p`."""
    return logits.astype(np.float64) - np.log(weights or 1.0)


def cross_entropy(scores: np.ndarray, truth: np.ndarray) -> float:
    """Returns the mean of `-log softmax(scores)[truth]`, nats."""
    return float(-log_softmax(scores, axis=-1)[np.arange(len(truth)), truth].mean())


def temperature_of(scores: np.ndarray, truth: np.ndarray) -> float:
    """Returns the temperature with the least cross-entropy of `softmax(scores / T)`."""
    # convex in 1 / T
    found = minimize_scalar(
        lambda inverse: cross_entropy(inverse * scores, truth),
        bounds=(1 / HOTTEST, 1 / COLDEST),
        method="bounded",
    )
    return 1 / float(found.x)


def reliability(
    scores: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns how many images are as sure, how sure they are, and how many are right.

    Args:
        scores: `(B, C)`.
        truth: integers `(B,)`.

    Returns:
        The number of images, the sum of their `p` and the number of right ones, `(15,)`
        each; the bins part the `p` of the likeliest class from 0 to 1.
    """
    p = np.exp(log_softmax(scores, axis=-1))
    sure, right = p.max(-1), p.argmax(-1) == truth  # (B,)
    bins = np.minimum((BINS * sure).astype(int), BINS - 1)
    images, sums, hits = (
        np.bincount(bins, weights=each, minlength=BINS)
        for each in (np.ones_like(sure), sure, right.astype(np.float64))
    )
    return images, sums, hits


def calibration_error(scores: np.ndarray, truth: np.ndarray) -> float:
    """Returns the expected calibration error of `softmax(scores)`, from 0 to 1."""
    images, sums, hits = reliability(scores, truth)
    return float(np.abs(hits - sums).sum() / images.sum())


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
