"""Density: how probable a model makes images that it has not seen.

    prepare   data/raw/<dataset>       -> rows.npy, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's rows
    evaluate  models + test part       -> log-likelihoods, exact or between two bounds
    figures   what evaluate found      -> pictures

Shapes: `B` rows, `V` pixels of a row, `S` seeds.
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


class DataError(ValueError):
    """Prepared data cannot be made of these images, told to their owner."""


def prepare(raw: Path, out: Path, validation: int, flipped: bool) -> dict[str, Any]:
    """Turns images into rows of zeros and ones: a pixel is 1 if it is above half.

    Writes `rows.npy`, uint8 `(B, V)`, and `spec.json`, which it returns. A dataset with
    the one split `images` is all there is of its kind: every part has all of it.

    Args:
        raw: a TFDS folder with the splits `train` and `test`, or the split `images`.
        out: folder to write.
        validation: int, the last images of the training split, to choose on; 0 where
            every part has all images.
        flipped: bool, whether zeros and ones change places.

    Raises:
        DataError: if none is left to train on.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    white = builder.info.metadata["white"] if builder.info.metadata else 255
    complete = set(builder.info.splits) == {"images"}
    made = [
        _rows(builder, split, white)
        for split in (("images",) if complete else ("train", "test"))
    ]
    rows, shape = np.concatenate([one for one, _ in made]), made[0][1]
    train, everything = len(made[0][0]), len(rows)
    if complete:
        if validation:
            raise DataError(
                "`validation` must be 0, since every part has all images."
                f" Received: {validation}"
            )
        parts = {part: [0, everything] for part in ("train", "validation", "test")}
    else:
        if not 0 < validation < train:
            raise DataError(
                f"`validation` must be from 1 to {train - 1}, since the training split"
                f" has {train} images. Received: {validation}"
            )
        parts = {
            "train": [0, train - validation],
            "validation": [train - validation, train],
            "test": [train, everything],
        }
    rows = 1 - rows if flipped else rows
    spec = {
        "task": "density",
        "dataset": out.name,
        "shape": shape,
        "visible": rows.shape[1],
        "bound": builder.info.metadata["bound"] if complete else None,
        "parts": parts,
        "fingerprint": hashlib.sha256(rows.tobytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "rows.npy", rows)
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def _rows(builder, split: str, white: int) -> tuple[np.ndarray, list[int]]:
    """Returns a split's images as rows of zeros and ones `(B, V)`, and their shape."""
    if "image" not in builder.info.features:
        raise DataError(
            f"a density needs examples with 'image'."
            f" Received: {', '.join(builder.info.features)}"
        )
    images = np.stack([one["image"] for one in builder.as_data_source(split=split)])
    above = (images > white / 2).astype(np.uint8)
    return above.reshape(len(images), -1), list(images.shape[1:3])


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's rows, float32 `(B, V)`.

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, rows `B` in a batch; the last one may be smaller.
        seed: int or None; if given, rows are shuffled anew in every epoch.
    """
    import tensorflow as tf

    found = tf.constant(rows(prepared, part))
    data = tf.data.Dataset.from_tensor_slices(found)
    if seed is not None:
        data = data.shuffle(len(found), seed=seed, reshuffle_each_iteration=True)
    return data.batch(batch_size).prefetch(2)


def rows(prepared: Path, part: str) -> np.ndarray:
    """Returns a part's rows, float32 `(B, V)`."""
    spec = json.loads((prepared / "spec.json").read_text())
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    return np.load(prepared / "rows.npy")[first:last].astype(np.float32)


def evaluate(models: list["keras.Model"], prepared: Path, fitted: str) -> dict[str, Any]:
    """Returns what the models (one per seed) make of the test part.

    Args:
        models: one per seed, each with `log_likelihood` and `fantasies`.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing; `density_metrics` defines them.
    """
    from engram.tasks import density_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    test, train = rows(prepared, "test"), rows(prepared, fitted)
    found = [model.log_likelihood(test, train) for model in models]
    return {
        **density_metrics.measure(found, spec),
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "rows": test,
        "model": models[0],
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files."""
    from engram.tasks import density_figures

    return density_figures.draw(found, folder)
