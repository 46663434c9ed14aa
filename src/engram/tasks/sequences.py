"""Sequences: read `T` steps, then tell a number, a class, or a class at each step.

    prepare   data/raw/<dataset>       -> inputs.npy, targets.npy, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's sequences
    evaluate  models + test part       -> errors of the sums, the symbols or the digits
    figures   what evaluate found      -> pictures

Shapes: `B` sequences, `T` steps, `F` features, `C` classes, `S` seeds.
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
PERMUTATION_SEED = 92916  # of the order in which permuted pixels are read
# Of each word for `read`: what is told, in how many classes, and by what integers in
# `inputs.npy` are divided.
_IMAGE = {"target": "class", "classes": 10, "scale": 255}
KINDS: dict[str, dict[str, Any]] = {
    "sum": {"target": "number", "classes": None, "scale": 65535},
    "symbols": {"target": "class at each step", "classes": 9, "scale": 1},
    "rows": _IMAGE,
    "pixels": _IMAGE,
    "permuted_pixels": _IMAGE,
}


class DataError(ValueError):
    """Prepared data cannot be made of these sequences, told to their owner."""


def prepare(raw: Path, out: Path, read: str, validation: int) -> dict[str, Any]:
    """Turns examples into sequences and sets a part of the training split aside.

    Writes `inputs.npy`, unsigned integers `(B, T, F)` that are features after a division
    by the spec's `scale`; `targets.npy` `(B, 1)` or `(B, T)`; and `spec.json`, which it
    returns. The sequences of the parts follow each other.

    Args:
        raw: a TFDS folder with the splits `train` and `test`.
        out: folder to write.
        read: how an example becomes a sequence. `"sum"`: values and markers, target their
            sum. `"symbols"`: one-hot symbols, target a symbol at each step. `"rows"`,
            `"pixels"`, `"permuted_pixels"`: an image from its first row or pixel to its
            last, or in one fixed order for all images, target its class.
        validation: int, the last sequences of the training split, to choose on.

    Raises:
        DataError: if the examples cannot be read so, or none is left to train on.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    made = [_sequences(builder, split, read) for split in ("train", "test")]
    inputs, targets = (np.concatenate(arrays) for arrays in zip(*made, strict=True))
    train, everything = len(made[0][0]), len(inputs)
    if not 0 < validation < train:
        raise DataError(
            f"`validation` must be from 1 to {train - 1}, since the training split has"
            f" {train} sequences. Received: {validation}"
        )
    spec = {
        "task": "sequences",
        "dataset": out.name,
        "read": read,
        **KINDS[read],
        "history": inputs.shape[1],
        "features": inputs.shape[2],
        "parts": {
            "train": [0, train - validation],
            "validation": [train - validation, train],
            "test": [train, everything],
        },
        "fingerprint": hashlib.sha256(inputs.tobytes() + targets.tobytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "inputs.npy", inputs)
    np.save(out / "targets.npy", targets)
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def _sequences(builder, split: str, read: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs `(B, T, F)` and targets of a split."""
    needed = {"sum": "values", "symbols": "symbols"}.get(read, "image")
    if needed not in builder.info.features:
        raise DataError(
            f"`read` {read!r} needs examples with {needed!r}."
            f" Received: {', '.join(builder.info.features)}"
        )
    examples = builder.as_data_source(split=split)
    if read == "sum":
        return marked_sums(
            np.stack([example["values"] for example in examples]),
            np.stack([example["marked"] for example in examples]),
        )
    if read == "symbols":
        symbols = np.stack([example["symbols"] for example in examples])
        return recalled_symbols(symbols, builder.info.metadata["delay"])
    pairs = [(example["image"], example["label"]) for example in examples]
    images, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    return image_sequences(images, read), labels.astype(np.uint8)[:, None]


def marked_sums(values: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs uint16 `(B, T, 2)`, value and marker, and sums float32 `(B, 1)`.

    Args:
        values: uint16 `(B, T)`, 65,535 stands for 1.
        marked: the two marked steps `(B, 2)`.
    """
    scale = KINDS["sum"]["scale"]
    marked = marked.astype(np.int64)
    markers = np.zeros_like(values)  # (B, T)
    np.put_along_axis(markers, marked, scale, axis=1)
    chosen = np.take_along_axis(values, marked, axis=1).astype(np.float64)  # (B, 2)
    sums = chosen.sum(axis=1, keepdims=True) / scale
    return np.stack([values, markers], axis=-1), sums.astype(np.float32)


def recalled_symbols(symbols: np.ndarray, delay: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one-hot inputs uint8 `(B, T, 10)` and targets uint8 `(B, T)`.

    With `n` symbols, `T = delay + 2 n`: the symbols, blanks, the sign to recall at step
    `delay + n - 1`, blanks. The target is blank, but for the symbols at the last steps.

    Args:
        symbols: integers from 1 to 8, `(B, n)`; 0 is blank, 9 the sign.
        delay: int, steps from the last symbol to the sign.
    """
    count, shown = symbols.shape
    steps = np.zeros((count, delay + 2 * shown), np.uint8)  # (B, T)
    targets = np.zeros_like(steps)
    steps[:, :shown] = targets[:, -shown:] = symbols
    steps[:, delay + shown - 1] = 9
    return np.eye(10, dtype=np.uint8)[steps], targets


def image_sequences(images: np.ndarray, read: str) -> np.ndarray:
    """Returns images uint8 `(B, height, width, 1)` as sequences uint8 `(B, T, F)`."""
    if read == "rows":
        return images[..., 0]  # (B, height, width)
    pixels = images.reshape(len(images), -1, 1)  # (B, height width, 1)
    if read == "permuted_pixels":
        pixels = pixels[:, permutation(pixels.shape[1])]
    return pixels


def permutation(size: int) -> np.ndarray:
    """Returns the numbers below `size` in an order that is the same on every machine."""
    return np.argsort(np.random.PCG64(PERMUTATION_SEED).random_raw(size), kind="stable")


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's sequences as `(inputs, target)`.

        inputs  float32 (B, T, F)
        target  float32 (B, 1), or integers (B, 1) or (B, T)

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, sequences `B` in a batch; the last one may be smaller.
        seed: int or None; if given, sequences are shuffled anew in every epoch.
    """
    import tensorflow as tf

    spec = json.loads((prepared / "spec.json").read_text())
    inputs, targets = (tf.constant(array) for array in arrays(prepared, spec, part))
    data = tf.data.Dataset.range(len(inputs))
    if seed is not None:
        data = data.shuffle(len(inputs), seed=seed, reshuffle_each_iteration=True)

    def features(rows):  # integers until here: a quarter or half of the memory
        x = tf.cast(tf.gather(inputs, rows), tf.float32) / spec["scale"]
        return x, tf.gather(targets, rows)

    return data.batch(batch_size).map(features).prefetch(2)


def arrays(
    prepared: Path, spec: dict[str, Any], part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a part's inputs, integers `(B, T, F)`, and targets."""
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    names = ("inputs.npy", "targets.npy")
    inputs, targets = (np.load(prepared / name, mmap_mode="r") for name in names)
    return inputs[first:last], targets[first:last]


def evaluate(
    models: list["keras.Model"], prepared: Path, fitted: str, batch_size: int = 250
) -> dict[str, Any]:
    """Returns the errors of the models (one per seed) on the test part.

    Args:
        models: one per seed.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on.
        batch_size: int, sequences per prediction step.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing; `sequences_metrics` defines them.
    """
    from engram.tasks import sequences_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    inputs, truth = arrays(prepared, spec, "test")
    data = batches(prepared, "test", batch_size)
    outputs = np.stack([model.predict(data, verbose=0) for model in models])
    return {
        **sequences_metrics.measure(outputs, inputs, truth, spec),
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "inputs": inputs,
        "truth": truth,
        "output": outputs[0],
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files."""
    from engram.tasks import sequences_figures

    return sequences_figures.draw(found, folder)
