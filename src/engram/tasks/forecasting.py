"""Forecasting: from `history` readings of every detector to the next `horizon` ones.

    prepare   data/raw/<dataset>       -> readings.npy, graph.npy, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's windows
    evaluate  models + test part       -> errors in the data's own unit
    figures   what evaluate found      -> pictures

Shapes: `B` windows, `T` history, `P` horizon, `N` detectors, `S` seeds.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# What of `evaluate`'s findings goes into metrics/<experiment>.json.
REPORTED = ("metrics", "std", "headline", "sort_by", "better", "unit", "fingerprint")
PARTS = ("train", "validation", "test")


class DataError(ValueError):
    """Prepared data cannot be made of these readings, told to their owner."""


def prepare(
    raw: Path, out: Path, history: int, horizon: int, split: list[float]
) -> dict[str, Any]:
    """Splits the readings in time and fits the scaling on the training part alone.

    Writes `readings.npy` float32 `(steps, N)` in the data's unit with NaN for missing,
    `graph.npy` float32 `(N, N)`, or `(N, 0)` without a graph, and `spec.json`, which
    it returns.

    Args:
        raw: a TFDS folder of readings (`datasets/readings.py` tells its form).
        out: folder to write.
        history: int, steps `T` that a forecast reads.
        horizon: int, steps `P` that it predicts.
        split: shares of the steps for training, validation and test, in time order.

    Raises:
        DataError: if a part is shorter than one window, or a detector has no reading
            in the training part.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    examples = list(builder.as_data_source(split="detectors"))
    about = dict(builder.info.metadata)
    names = [example["detector"].decode() for example in examples]
    readings = np.stack([example["readings"] for example in examples], axis=1)
    missing = np.array(about["missing"], readings.dtype)  # -999.9 is no float32
    readings[np.isin(readings, missing)] = np.nan  # (steps, N)
    parts = _parts(len(readings), split, history + horizon)
    train = readings[slice(*parts["train"])]
    _check_detectors(names, train)
    _check_parts(parts, readings)

    spec = {
        "task": "forecasting",
        "dataset": out.name,
        "unit": about["unit"],
        "interval_minutes": about["interval_minutes"],
        "slots_per_day": 1440 // about["interval_minutes"],
        "first_slot": about["first_slot"],
        "layout": about["layout"],
        "missing": about["missing"],
        "missing_share": float(np.isnan(readings).mean()),
        "history": history,
        "horizon": horizon,
        "detectors": names,
        "parts": parts,
        "mean": float(np.nanmean(train, dtype=np.float64)),
        "std": float(np.nanstd(train, dtype=np.float64)) or 1.0,
        "fingerprint": hashlib.sha256(readings.tobytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "readings.npy", readings)
    np.save(out / "graph.npy", np.stack([example["weights"] for example in examples]))
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's windows as `(inputs, target, weight)`.

    Readings are scaled by the spec's mean and standard deviation. A missing input takes
    the last reading before it in its window, or the mean if there is none. A missing
    target has weight 0.

        inputs["readings"]  float32 (B, T, N)     inputs["slot"]  int32 (B,)
        target, weight      float32 (B, P, N)

    `slot` is the interval of the day of the first predicted step.

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, windows `B` in a batch; the last one may be smaller.
        seed: int or None; if given, windows are shuffled anew in every epoch.
    """
    import tensorflow as tf

    spec = json.loads((prepared / "spec.json").read_text())
    past, future, slot = windows(prepared, spec, part)
    scaled = (future - spec["mean"]) / spec["std"]
    inputs = {
        "readings": fill((past - spec["mean"]) / spec["std"]),
        "slot": slot,
    }
    weight = np.isfinite(scaled)
    arrays = inputs, np.where(weight, scaled, 0), weight.astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices(arrays)
    if seed is not None:
        data = data.shuffle(len(slot), seed=seed, reshuffle_each_iteration=True)
    return data.batch(batch_size).prefetch(2)


def windows(
    prepared: Path, spec: dict[str, Any], part: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns past `(B, T, N)`, future `(B, P, N)` and slot `(B,)` of a part's windows.

    A window lies wholly inside its part, so no reading is in two parts.
    """
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    readings = np.load(prepared / "readings.npy")[first:last]
    size = spec["history"] + spec["horizon"]
    view = np.lib.stride_tricks.sliding_window_view(readings, size, axis=0)
    view = view.transpose(0, 2, 1)  # (B, T + P, N)
    starts = first + np.arange(len(view)) + spec["history"]
    slot = (spec["first_slot"] + starts) % spec["slots_per_day"]
    past, future = view[:, : spec["history"]], view[:, spec["history"] :]
    return past, future, slot.astype(np.int32)


def fill(past: np.ndarray) -> np.ndarray:
    """Returns scaled inputs `(B, T, N)` with each gap at the last reading before it."""
    filled = np.array(past, np.float32)
    filled[:, 0] = np.nan_to_num(filled[:, 0])  # 0 is the mean
    for t in range(1, filled.shape[1]):
        gap = np.isnan(filled[:, t])
        filled[:, t][gap] = filled[:, t - 1][gap]
    return filled


def evaluate(
    models: list["keras.Model"], prepared: Path, fitted: str, batch_size: int = 64
) -> dict[str, Any]:
    """Returns the errors of the models (one per seed) on the test part.

    Args:
        models: one per seed.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on. Only if it leaves out validation can
            errors there tell how wide a band around the forecast is.
        batch_size: int, windows per prediction step.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing, all in the data's unit; `forecasting_metrics` defines them.
    """
    from engram.tasks import forecasting_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    _, truth, slot = windows(prepared, spec, "test")
    forecasts = _forecasts(models, prepared, spec, "test", batch_size)
    measured = forecasting_metrics.measure(forecasts, truth, spec)
    band = None
    if fitted == "train":
        _, seen, _ = windows(prepared, spec, "validation")
        errors = (
            _forecasts(models[:1], prepared, spec, "validation", batch_size)[0] - seen
        )
        band = np.nanquantile(errors, [0.05, 0.95], axis=(0, 2))  # (2, P)
    return {
        **measured,
        "unit": spec["unit"],
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "slot": slot,
        "truth": truth,
        "forecast": forecasts[0],
        "band": band,
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files, the forecast first."""
    from engram.tasks import forecasting_figures

    return forecasting_figures.draw(found, folder)


def _forecasts(
    models: list["keras.Model"],
    prepared: Path,
    spec: dict[str, Any],
    part: str,
    batch_size: int,
) -> np.ndarray:
    """Returns forecasts `(S, B, P, N)` in the data's unit."""
    data = batches(prepared, part, batch_size)
    scaled = [model.predict(data, verbose=0) for model in models]
    return np.stack(scaled) * spec["std"] + spec["mean"]


def _parts(steps: int, split: list[float], window: int) -> dict[str, list[int]]:
    """Returns the first and last-plus-one step of each part."""
    # whole steps; 1e-9 because shares such as 0.6 + 0.2 + 0.2 may sum to 0.999...
    ends = np.floor(np.cumsum(split) * steps + 1e-9).astype(int).tolist()
    parts = {
        part: [start, end]
        for part, start, end in zip(PARTS, [0, *ends], ends, strict=False)
    }
    for part, (start, end) in parts.items():
        if end - start < window:
            raise DataError(
                f"the {part} part has {end - start} of {steps} steps, but one window"
                f" (history + horizon) needs {window}"
            )
    return parts


def _check_parts(parts: dict[str, list[int]], readings: np.ndarray) -> None:
    for part, (start, end) in parts.items():
        if np.isnan(readings[start:end]).all():
            raise DataError(f"the {part} part has no reading (steps {start} to {end})")


def _check_detectors(names: list[str], train: np.ndarray) -> None:
    silent = np.isnan(train).all(axis=0)
    if silent.any():
        name = names[int(silent.argmax())]
        raise DataError(
            f"detector {name!r} has no reading in the training part (the first"
            f" {len(train)} steps): remove its column ({silent.sum()} such detectors)"
        )
