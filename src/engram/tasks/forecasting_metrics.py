"""Errors of forecasts, in the data's own unit, at a step and pooled up to it.

Over all windows and detectors whose true reading `y` is not missing, with forecast `f`:

    MAE  = mean |f - y|        RMSE = sqrt(mean (f - y)^2)
    MAPE = 100 mean |f - y| / |y|     over readings of at least MAPE_FLOOR

`at_30` takes the step 30 minutes ahead alone (STGCN, DCRNN report this); `to_30` pools
all steps up to it (T-GCN, A3T-GCN report this).
"""

from typing import Any

import numpy as np

MINUTES = (15, 30, 45, 60, 180, 360, 720)
MAPE_FLOOR = 1.0  # a standstill has no relative error


def measure(
    forecasts: np.ndarray, truth: np.ndarray, spec: dict[str, Any]
) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details` of forecasts `(S, B, P, N)`.

    Args:
        forecasts: one forecast per seed.
        truth: `(B, P, N)`, NaN where missing.
        spec: the dataset's `spec.json`.

    Raises:
        ValueError: if a forecast is not a number; it would count as no error.
    """
    if not np.isfinite(forecasts).all():
        wrong = int((~np.isfinite(forecasts)).sum())
        raise ValueError(f"{wrong} of {forecasts.size} forecasts are NaN or infinite")
    seeds = [sums(forecast, truth) for forecast in forecasts]
    rows = [row(total, spec) for total in seeds]
    mean = {key: float(np.mean([r[key] for r in rows])) for key in rows[0]}
    several = len(rows) > 1
    headline = [f"rmse_to_{minutes}" for minutes in steps(spec)]
    return {
        "per_seed": rows,
        "headline": headline,
        "sort_by": headline[-1],
        "better": "lower",
        "metrics": mean,
        "std": {
            key: float(np.std([r[key] for r in rows], ddof=1)) if several else None
            for key in mean
        },
        "details": {
            "curves": curves(seeds, spec),
            "paired": paired(forecasts, truth, spec),
            "detectors": by_detector(forecasts, truth, spec),
        },
    }


def sums(forecast: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Returns per step `(P,)` how many readings count, and the sums of their errors."""
    error = np.abs(forecast - truth).astype(np.float64)
    relative = np.where(
        truth >= MAPE_FLOOR, error / np.maximum(truth, MAPE_FLOOR), np.nan
    )
    return {
        "count": np.isfinite(error).sum((0, 2)),
        "absolute": np.nansum(error, (0, 2)),
        "squared": np.nansum(error**2, (0, 2)),
        "relative_count": np.isfinite(relative).sum((0, 2)),
        "relative": np.nansum(relative, (0, 2)),
    }


def row(total: dict[str, np.ndarray], spec: dict[str, Any]) -> dict[str, float]:
    """Returns `{mae_at_15: ..., rmse_to_60: ...}` for the minutes within the horizon."""
    found = {}
    for minutes, step in steps(spec).items():
        for name, chosen in (("at", slice(step - 1, step)), ("to", slice(0, step))):
            part = {key: values[chosen].sum() for key, values in total.items()}
            found[f"mae_{name}_{minutes}"] = part["absolute"] / part["count"]
            found[f"rmse_{name}_{minutes}"] = np.sqrt(part["squared"] / part["count"])
            if part["relative_count"]:  # the same for every seed
                relative = part["relative"] / part["relative_count"]
                found[f"mape_{name}_{minutes}"] = 100 * relative
    return {key: float(value) for key, value in found.items()}


def steps(spec: dict[str, Any]) -> dict[int, int]:
    """Returns the minutes to report and their step, 1 to `horizon`; at least the last."""
    interval, horizon = spec["interval_minutes"], spec["horizon"]
    whole = {m: m // interval for m in MINUTES if m % interval == 0}
    inside = {m: step for m, step in whole.items() if step <= horizon}
    return inside or {horizon * interval: horizon}


def curves(
    seeds: list[dict[str, np.ndarray]], spec: dict[str, Any]
) -> list[dict[str, Any]]:
    """Returns MAE and RMSE at each step, mean over seeds."""
    minutes = [spec["interval_minutes"] * (p + 1) for p in range(spec["horizon"])]
    mae = np.mean([total["absolute"] / total["count"] for total in seeds], 0)
    rmse = np.mean([np.sqrt(total["squared"] / total["count"]) for total in seeds], 0)
    return [
        {
            "title": f"{name} by horizon",
            "x_label": "minutes ahead",
            "y_label": f"{name} in {spec['unit']}",
            "x": minutes,
            "y": values.tolist(),
        }
        for name, values in (("MAE", mae), ("RMSE", rmse))
    ]


def paired(
    forecasts: np.ndarray, truth: np.ndarray, spec: dict[str, Any]
) -> dict[str, Any]:
    """Returns squared errors to the last reported step, summed per hour of the test part.

    Hours are what `compare` resamples: the windows within one hour share most of their
    readings.
    """
    minutes, last = max(steps(spec).items())
    hour = np.arange(len(truth)) // max(1, 60 // spec["interval_minutes"])
    counted = np.isfinite(truth[:, :last]).sum((1, 2))
    squared = np.nansum(
        (forecasts[:, :, :last] - truth[:, :last]).astype(np.float64) ** 2, (2, 3)
    )
    return {
        "metric": f"rmse_to_{minutes}",
        "kind": "root_mean",
        "unit_of_resampling": "hour of the test part",
        "count": np.bincount(hour, counted).tolist(),
        "sum": [np.bincount(hour, one).tolist() for one in squared],
    }


def by_detector(
    forecasts: np.ndarray, truth: np.ndarray, spec: dict[str, Any]
) -> dict[str, Any]:
    """Returns each detector's MAE over all steps, mean over seeds."""
    error = np.abs(forecasts - truth).astype(np.float64)  # (S, B, P, N)
    count = np.isfinite(error).sum((0, 1, 2))
    total = np.nansum(error, (0, 1, 2))
    mae = [float(t / c) if c else None for t, c in zip(total, count, strict=True)]
    return {"name": spec["detectors"], "mae": mae}
