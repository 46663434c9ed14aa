"""Errors on test sequences, by what a model tells at the end of one.

    number              mse            mean (output - truth)^2
    class               accuracy       per cent of sequences whose class is the likeliest
                        cross_entropy  mean -log p(truth), nats
    class at each step  cross_entropy  mean -log p(truth) over all steps, nats
                        accuracy       per cent of the symbols to recall (truth not blank)

`p` is the softmax of a model's logits. The first metric named is the headline.
"""

from typing import Any

import numpy as np

BLOCK = 50  # test sequences that `compare` draws together
AGES = 8  # groups of sequences by how long a number had to be remembered
BLANK = 0  # the class of a step at which nothing is to be recalled


def measure(
    outputs: np.ndarray, inputs: np.ndarray, truth: np.ndarray, spec: dict[str, Any]
) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details` of outputs `(S, B, ...)`.

    Args:
        outputs: one per seed: numbers `(S, B, 1)` or logits `(S, B, C)`, `(S, B, T, C)`.
        inputs: `(B, T, F)`, as prepared.
        truth: `(B, 1)` or `(B, T)`.
        spec: the dataset's `spec.json`.

    Raises:
        ValueError: if an output is not a number.
    """
    if not np.isfinite(outputs).all():
        wrong = int((~np.isfinite(outputs)).sum())
        raise ValueError(f"{wrong} of {outputs.size} outputs are NaN or infinite")
    outputs = outputs.astype(np.float64)
    if spec["target"] == "number":
        scores = {"mse": (outputs - truth)[..., 0] ** 2}  # (S, B) each
        curves = [error_by_age(scores["mse"], inputs)]
        about = {"better": "lower", "unit": ""}
    elif spec["target"] == "class":
        loss, right = surprise(outputs, truth[:, 0]), hits(outputs, truth[:, 0])
        scores = {"accuracy": 100 * right, "cross_entropy": loss}
        curves = [accuracy_by_class(right, truth[:, 0])]
        about = {"better": "higher", "unit": "%"}
    else:
        loss, right = surprise(outputs, truth), hits(outputs, truth)
        asked = np.broadcast_to(truth != BLANK, right.shape)
        recalled = right[asked].reshape(*right.shape[:2], -1)  # (S, B, n)
        scores = {
            "cross_entropy": loss.mean(-1),
            "accuracy": 100 * recalled.mean(-1),
        }
        curves = [recall_by_place(recalled)]
        about = {"better": "lower", "unit": "nats"}
    first = next(iter(scores))
    rows = [
        {name: float(score[seed].mean()) for name, score in scores.items()}
        for seed in range(len(outputs))
    ]
    several = len(rows) > 1
    return {
        **about,
        "per_seed": rows,
        "headline": [first],
        "sort_by": first,
        "metrics": {name: float(score.mean()) for name, score in scores.items()},
        "std": {
            name: float(score.mean(1).std(ddof=1)) if several else None
            for name, score in scores.items()
        },
        "details": {"curves": curves, "paired": paired(first, scores[first])},
    }


def surprise(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns `-log softmax(logits)` at the true class.

    Args:
        logits: `(S, ..., C)`.
        truth: integers `(...)`.
    """
    shifted = logits - logits.max(-1, keepdims=True)
    total = np.log(np.exp(shifted).sum(-1))  # (S, ...)
    index = np.broadcast_to(truth[..., None].astype(np.int64), (*total.shape, 1))
    return total - np.take_along_axis(shifted, index, axis=-1)[..., 0]


def hits(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns 1 where the likeliest class is the true one, else 0."""
    return (logits.argmax(-1) == truth).astype(np.float64)


def paired(metric: str, scores: np.ndarray) -> dict[str, Any]:
    """Returns scores `(S, B)` summed over blocks of neighbouring test sequences.

    `compare` resamples blocks; sequences are independent, so any block will do.
    """
    block = np.arange(scores.shape[1]) // BLOCK
    return {
        "metric": metric,
        "kind": "mean",
        "unit_of_resampling": f"{BLOCK} test sequences",
        "count": np.bincount(block).tolist(),
        "sum": [np.bincount(block, one).tolist() for one in scores],
    }


def error_by_age(squared: np.ndarray, inputs: np.ndarray) -> dict[str, Any]:
    """Returns the MSE by how many steps before the end the first number was marked."""
    steps = inputs.shape[1]
    age = steps - (inputs[..., 1] > 0).argmax(1)  # (B,)
    ends = np.linspace(age.min(), age.max() + 1, AGES + 1)
    group = np.digitize(age, ends) - 1
    members = [group == one for one in range(AGES) if (group == one).any()]
    return {
        "title": "Error by age of the first number",
        "x_label": "steps since the first marked number",
        "y_label": "MSE",
        "x": [float(age[one].mean()) for one in members],
        "y": [float(squared[:, one].mean()) for one in members],
    }


def accuracy_by_class(right: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Returns the accuracy on the sequences of each class, mean over seeds."""
    classes = np.unique(truth)
    return {
        "title": "Accuracy by class",
        "x_label": "class",
        "y_label": "% right",
        "x": classes.tolist(),
        "y": [100 * float(right[:, truth == one].mean()) for one in classes],
    }


def recall_by_place(recalled: np.ndarray) -> dict[str, Any]:
    """Returns the accuracy on the first, second, ... symbol `(S, B, n)`."""
    return {
        "title": "Recall by place",
        "x_label": "place of the symbol",
        "y_label": "% recalled",
        "x": list(range(1, recalled.shape[-1] + 1)),
        "y": (100 * recalled.mean((0, 1))).tolist(),
    }
