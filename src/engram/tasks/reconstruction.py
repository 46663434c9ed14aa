"""Reconstruction: squeeze an image through a short code, then draw it again.

    prepare   data/raw/<dataset>       -> rows.npy, labels.npy, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's rows, each its own target
    rows      data/prepared/<dataset>  -> one part's rows, to pretrain on
    evaluate  models + test part       -> squared error, cross-entropy
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
WHITE = 255  # of images whose dataset does not say another


class DataError(ValueError):
    """Prepared data cannot be made of these images, told to their owner."""


def prepare(raw: Path, out: Path, validation: int) -> dict[str, Any]:
    """Turns images into rows and puts the parts after each other.

    Writes `rows.npy` uint8 `(B, V)`, `labels.npy` int32 `(B,)` and `spec.json`, which it
    returns. No model sees a label: errors are told by class.

    Args:
        raw: a TFDS folder with the splits `train` and `test`, its examples with `image`,
            uint8 `(H, W, F)`, and `label`. The value of full brightness is 255, or
            `white` among its metadata.
        out: folder to write.
        validation: int, the last images of the training split, to choose on.

    Raises:
        DataError: if the examples are no labelled images, or none is left to train on.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    if not {"image", "label"} <= set(builder.info.features):
        raise DataError(
            "examples need 'image' and 'label'."
            f" Received: {', '.join(builder.info.features)}"
        )
    (images, labels), (more, classes) = (_images(builder, s) for s in ("train", "test"))
    first, whole = len(labels) - validation, len(labels)
    if not 0 < first < whole:
        raise DataError(
            f"`validation` must be from 1 to {whole - 1}, since the training split has"
            f" {whole} images. Received: {validation}"
        )
    pixels = np.concatenate([images, more]).reshape(whole + len(more), -1)
    labels = np.concatenate([labels, classes])
    spec = {
        "task": "reconstruction",
        "dataset": out.name,
        "shape": list(images.shape[1:]),
        "visible": pixels.shape[1],
        "white": (builder.info.metadata or {}).get("white", WHITE),
        "parts": {
            "train": [0, first],
            "validation": [first, whole],
            "test": [whole, len(labels)],
        },
        "fingerprint": hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "rows.npy", pixels)
    np.save(out / "labels.npy", labels)
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def _images(builder, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a split's images uint8 `(B, H, W, F)` and labels int32 `(B,)`."""
    examples = builder.as_data_source(split=split)
    pairs = [(example["image"], example["label"]) for example in examples]
    images, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    return images, labels.astype(np.int32)


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's rows as `(row, row)`, both float32 `(B, V)`, from 0 to 1.

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, rows `B` in a batch; the last one may be smaller.
        seed: int or None; if given, rows are shuffled anew in every epoch.
    """
    import tensorflow as tf

    spec = json.loads((prepared / "spec.json").read_text())
    pixels = tf.constant(_part(prepared, spec, part, "rows.npy"))
    data = tf.data.Dataset.range(len(pixels))
    if seed is not None:
        data = data.shuffle(len(pixels), seed=seed, reshuffle_each_iteration=True)

    def pairs(places):  # integers until here: a quarter of the memory
        row = tf.cast(tf.gather(pixels, places), tf.float32) / spec["white"]
        return row, row

    return data.batch(batch_size).map(pairs).prefetch(2)


def rows(prepared: Path, part: str) -> np.ndarray:
    """Returns one part's rows, float32 `(B, V)`, from 0 to 1; `part` as of `batches`."""
    spec = json.loads((prepared / "spec.json").read_text())
    return _part(prepared, spec, part, "rows.npy").astype(np.float32) / spec["white"]


def _part(prepared: Path, spec: dict[str, Any], part: str, name: str) -> np.ndarray:
    """Returns what the file `name` has of a part."""
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    return np.load(prepared / name, mmap_mode="r")[first:last]


def evaluate(
    models: list["keras.Model"], prepared: Path, fitted: str, batch_size: int = 250
) -> dict[str, Any]:
    """Returns how near the models (one per seed) come to the rows of the test part.

    Args:
        models: one per seed.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on; not used.
        batch_size: int, rows per prediction step.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing; `reconstruction_metrics` defines them.
    """
    from engram.tasks import reconstruction_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    test, labels = rows(prepared, "test"), _part(prepared, spec, "test", "labels.npy")
    drawn = [model.predict(test, batch_size=batch_size, verbose=0) for model in models]
    scores = reconstruction_metrics.scores(drawn, test)
    return {
        **reconstruction_metrics.measure(scores, labels),
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "rows": test,
        "labels": np.array(labels),
        "reconstructions": drawn[0],
        "squared_error": scores["squared_error"],
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files."""
    from engram.tasks import reconstruction_figures

    return reconstruction_figures.draw(found, folder)
