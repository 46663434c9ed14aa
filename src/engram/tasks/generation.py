"""Generation: make points like those of the data, of all their modes.

    prepare   data/raw/<dataset>       -> points.npy, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's points
    watch     a model between epochs   -> how many modes it makes
    evaluate  models + test part       -> modes, and how near the points are to them
    figures   what evaluate found      -> pictures

Shapes: `B` points, `D` numbers of a point, `M` modes, `S` seeds.
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
GENERATED = 2500  # points that are measured
SEED = 8128  # of the noise they are made of, the same for all models
PARTS = ("train", "validation", "test")
NEAR = 3  # sigmas


class DataError(ValueError):
    """Prepared data cannot be made of these examples, told to their owner."""


def prepare(raw: Path, out: Path) -> dict[str, Any]:
    """Puts the points of all parts after each other.

    Writes `points.npy`, float32 `(B, D)`, and `spec.json`, which it returns.

    Args:
        raw: a TFDS folder with the splits `train`, `validation` and `test`, its examples
            with `point`, and `centres` `(M, D)` and `sigma` of the modes as metadata.
        out: folder to write.

    Raises:
        DataError: if the examples are of another kind.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    if "point" not in builder.info.features:
        received = ", ".join(builder.info.features)
        raise DataError(f"generation needs examples with 'point'. Received: {received}")
    if (shape := builder.info.features["point"].shape) != (2,):
        raise DataError(f"'point' must be of the plane, (2,). Received: {shape}")
    parts = [
        np.stack([one["point"] for one in builder.as_data_source(split=part)])
        for part in PARTS
    ]
    points = np.concatenate(parts)
    ends = np.cumsum([len(part) for part in parts]).tolist()
    spec = {
        "task": "generation",
        "dataset": out.name,
        "shape": list(points.shape[1:]),
        "centres": builder.info.metadata["centres"],
        "sigma": builder.info.metadata["sigma"],
        "parts": {
            part: [start, end]
            for part, start, end in zip(PARTS, [0, *ends], ends, strict=False)
        },
        "fingerprint": hashlib.sha256(points.tobytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "points.npy", points)
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's points as `(point, place)`.

        point  float32 (B, D)
        place  int64 (B,), running number in this pass: from it a model draws noise that
               does not depend on how many devices share a batch

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, points `B` in a batch. Points that fill none are left out.
        seed: int or None; if given, points are shuffled anew in every epoch.

    Raises:
        ValueError: if the part has not as many points.
    """
    import tensorflow as tf

    known = points(prepared, part)
    if len(known) < batch_size:
        raise ValueError(
            f"`batch_size` must be at most {len(known)}, the points of the {part} part."
            f" Received: {batch_size}"
        )
    data = tf.data.Dataset.from_tensor_slices(known)
    if seed is not None:
        data = data.shuffle(len(known), seed=seed, reshuffle_each_iteration=True)
    places = tf.data.Dataset.range(len(known))
    together = tf.data.Dataset.zip(data, places)
    return together.batch(batch_size, drop_remainder=True).prefetch(2)


def points(prepared: Path, part: str) -> np.ndarray:
    """Returns a part's points, float32 `(B, D)`."""
    spec = json.loads((prepared / "spec.json").read_text())
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    return np.load(prepared / "points.npy")[first:last]


def watch(
    model: "keras.Model", prepared: Path
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Returns `modes` and `high_quality` of a model between two epochs, and no table."""
    spec = json.loads((prepared / "spec.json").read_text())
    found = coverage(model.generate(GENERATED, SEED), spec["centres"], spec["sigma"])
    return {key: found[key] for key in ("modes", "high_quality")}, {}


def coverage(made: np.ndarray, centres, sigma: float) -> dict[str, Any]:
    """Returns `modes`, `high_quality`, `reverse_kl` and `near`.

    Args:
        made: generated points `(B, D)`.
        centres: of the modes `(M, D)`.
        sigma: float, of each mode.

    Returns:
        Three floats, and `near`, bool `(B,)`: which points are within 3 sigma of a mode.
    """
    distances = np.linalg.norm(made[:, None] - np.asarray(centres), axis=-1)  # (B, M)
    nearest, modes = distances.argmin(1), distances.shape[1]
    near = distances.min(1) <= NEAR * sigma
    shares = np.bincount(nearest, minlength=modes) / len(made)
    some = shares[shares > 0]
    return {
        "modes": float(len(np.unique(nearest[near]))),
        "high_quality": 100 * float(near.mean()),
        "reverse_kl": float((some * np.log(some * modes)).sum()),
        "near": near,
    }


def evaluate(models: list["keras.Model"], prepared: Path, fitted: str) -> dict[str, Any]:
    """Returns how the points that the models make compare with those of the test part.

    Args:
        models: one per seed, each with `generate`.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on; not used.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing; `generation_metrics` defines them.
    """
    from engram.tasks import generation_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    real = points(prepared, "test")
    made = np.stack([model.generate(GENERATED, SEED) for model in models])  # (S, B, D)
    return {
        **generation_metrics.measure(made, real, points(prepared, "validation"), spec),
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "real": real,
        "made": made[0],
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files."""
    from engram.tasks import generation_figures

    return generation_figures.draw(found, folder)
