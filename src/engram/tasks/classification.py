"""Classification: look at an image, then tell its class.

    prepare   data/raw/<dataset>       -> inputs.npy, targets.npy, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's images
    rows      data/prepared/<dataset>  -> one part's images as plain rows, to pretrain on
    evaluate  models + test part       -> how often, and how surely, they are right
    figures   what evaluate found      -> pictures

Shapes: `B` images, `H`, `W` height and width, `F` numbers in a pixel (1 grey, 3 colour),
`C` classes, `S` seeds.
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
LABEL_SEED = 2006  # of the order in which training images are chosen to keep their label
WHITE = 255  # of images whose dataset does not say another


class DataError(ValueError):
    """Prepared data cannot be made of these images, told to their owner."""


def prepare(
    raw: Path, out: Path, validation: int, labelled: int | None, balanced: bool
) -> dict[str, Any]:
    """Puts the images of all parts after each other: training, validation, test.

    Writes `inputs.npy` uint8 `(B, H, W, F)`, `targets.npy` int32 `(B,)` and `spec.json`,
    which it returns.

    Args:
        raw: a TFDS folder, its examples with `image`, uint8 `(H, W, F)`, and `label`, one
            of the classes. The value of full brightness is 255, or `white` among its
            metadata.
        out: folder to write.
        validation: int, the last images of the training split, to choose on; 0 for a
            dataset that brings a split `validation`.
        labelled: int, training images that keep their label, equally many of each class;
            the others are left out. Fewer are some of more. None keeps all.
        balanced: bool, whether in the loss all classes weigh the same, however many
            images each has.

    Raises:
        DataError: if the examples are no labelled images, if `validation` does not fit
            the splits, or a class has too few images.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    classes = _classes(builder.info.features)
    inputs, targets = _parts(builder, validation)
    if labelled is not None:
        kept = chosen(targets[0], labelled, classes)
        inputs[0], targets[0] = inputs[0][kept], targets[0][kept]
    ends = np.cumsum([len(part) for part in targets]).tolist()
    names = ("train", "validation", "test")
    pixels, labels = np.concatenate(inputs), np.concatenate(targets)
    spec = {
        "task": "classification",
        "dataset": out.name,
        "shape": list(pixels.shape[1:]),
        "white": (builder.info.metadata or {}).get("white", WHITE),
        "classes": classes,
        "names": builder.info.features["label"].names,
        "weights": class_weights(targets[0], classes).tolist() if balanced else None,
        "parts": {
            part: [start, end]
            for part, start, end in zip(names, [0, *ends], ends, strict=False)
        },
        "fingerprint": hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "inputs.npy", pixels)
    np.save(out / "targets.npy", labels)
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns what an image of each class weighs, so that all classes weigh the same.

        w_c = B / (C n_c)      of `B` images, `n_c` are of class `c`; 1 on average

    Args:
        labels: integers `(B,)`.
        classes: int, `C`.

    Returns:
        float64 `(C,)`.

    Raises:
        DataError: if a class has no image.
    """
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise DataError(
            "`balanced` needs training images of every class."
            f" Received: none of class {counts.argmin()}"
        )
    return len(labels) / (classes * counts)


def _classes(features) -> int:
    """Returns how many classes the labels have."""
    if not {"image", "label"} <= set(features):
        raise DataError(
            f"examples need 'image' and 'label'. Received: {', '.join(features)}"
        )
    return features["label"].num_classes


def _parts(builder, validation: int) -> list[list[np.ndarray]]:
    """Returns images and labels, a list each, of training, validation and test part."""
    own = "validation" in builder.info.splits
    if own and validation:
        raise DataError(
            "`validation` must be 0, since the dataset brings a split 'validation'."
            f" Received: {validation}"
        )
    splits = ("train", "validation", "test") if own else ("train", "test")
    made = zip(*(_images(builder, split) for split in splits), strict=True)
    if own:
        return [list(arrays) for arrays in made]
    inputs, targets = made
    first = len(targets[0]) - validation
    if not 0 < first < len(targets[0]):
        raise DataError(
            f"`validation` must be from 1 to {len(targets[0]) - 1}, since the training"
            f" split has {len(targets[0])} images. Received: {validation}"
        )
    return [[a[:first], a[first:], b] for a, b in (inputs, targets)]


def _images(builder, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a split's images uint8 `(B, H, W, F)` and labels int32 `(B,)`."""
    examples = builder.as_data_source(split=split)
    pairs = [(example["image"], example["label"]) for example in examples]
    images, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    return images, labels.astype(np.int32)


def chosen(labels: np.ndarray, labelled: int, classes: int) -> np.ndarray:
    """Returns the places of images that keep their label, in their order.

    All images are put in an order that is the same on every machine; of each class the
    first ones are chosen, so that fewer are some of more.

    Args:
        labels: integers `(B,)`.
        labelled: int, how many to choose.
        classes: int, how many classes there are.

    Raises:
        DataError: if the classes cannot have equally many, or one has too few.
    """
    each, rest = divmod(labelled, classes)
    if rest or not each:
        raise DataError(
            f"`labelled` must be a multiple of {classes}, the number of classes."
            f" Received: {labelled}"
        )
    order = np.argsort(np.random.PCG64(LABEL_SEED).random_raw(len(labels)), kind="stable")
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < each:
        raise DataError(
            f"`labelled` must be at most {classes * counts.min()}, since class"
            f" {counts.argmin()} has {counts.min()} training images. Received: {labelled}"
        )
    kept = [order[labels[order] == one][:each] for one in range(classes)]
    return np.sort(np.concatenate(kept))


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's images as `(inputs, target)`, or `(inputs, target, weight)`.

        inputs  float32 (B, H, W, F), from 0 to 1
        target  int32 (B,)
        weight  float32 (B,), of its class, if the dataset is prepared as `balanced`

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, images `B` in a batch; the last one may be smaller.
        seed: int or None; if given, images are shuffled anew in every epoch.
    """
    import tensorflow as tf

    spec = json.loads((prepared / "spec.json").read_text())
    inputs, targets = (tf.constant(array) for array in arrays(prepared, spec, part))
    weights = spec["weights"] and tf.constant(spec["weights"], tf.float32)  # (C,)
    data = tf.data.Dataset.range(len(inputs))
    if seed is not None:
        data = data.shuffle(len(inputs), seed=seed, reshuffle_each_iteration=True)

    def features(places):  # integers until here: a quarter of the memory
        x = tf.cast(tf.gather(inputs, places), tf.float32) / spec["white"]
        target = tf.gather(targets, places)
        return (x, target) if weights is None else (x, target, tf.gather(weights, target))

    return data.batch(batch_size).map(features).prefetch(2)


def rows(prepared: Path, part: str) -> np.ndarray:
    """Returns one part's images as rows: float32 `(B, H W F)`, from 0 to 1.

    Args:
        prepared: folder that `prepare` wrote.
        part: as of `batches`.
    """
    spec = json.loads((prepared / "spec.json").read_text())
    inputs, _ = arrays(prepared, spec, part)
    return np.array(inputs, np.float32).reshape(len(inputs), -1) / spec["white"]


def arrays(
    prepared: Path, spec: dict[str, Any], part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a part's inputs, uint8 `(B, H, W, F)`, and targets `(B,)`."""
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    names = ("inputs.npy", "targets.npy")
    inputs, targets = (np.load(prepared / name, mmap_mode="r") for name in names)
    return inputs[first:last], targets[first:last]


def evaluate(
    models: list["keras.Model"], prepared: Path, fitted: str, batch_size: int = 250
) -> dict[str, Any]:
    """Returns how often, and how surely, the models are right on the test part.

    Args:
        models: one per seed.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on. Their temperature is chosen on the
            validation part, and is 1 if they have seen it.
        batch_size: int, images per prediction step.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing; `classification_metrics` defines them.
    """
    from engram.tasks import classification_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    inputs, truth = arrays(prepared, spec, "test")

    def logits(part: str) -> np.ndarray:  # (S, B, C)
        data = batches(prepared, part, batch_size)
        return np.stack([model.predict(data, verbose=0) for model in models])

    seen = "validation" in fitted
    held = (
        None if seen else (logits("validation"), arrays(prepared, spec, "validation")[1])
    )
    told = logits("test")
    found = classification_metrics.measure(told, truth, held, spec["weights"])
    return {
        **found,
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "inputs": inputs,
        "truth": truth,
        "logits": told[0],
        "temperature": found["per_seed"][0]["temperature"],
        "model": models[0],
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files."""
    from engram.tasks import classification_figures

    return classification_figures.draw(found, folder)
