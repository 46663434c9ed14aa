"""Image generation: make images like those of the data, of all their kinds.

    prepare   data/raw/<dataset>       -> images.npy, features.npz, judge.keras, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's images
    watch     a model between epochs   -> how far its images are from the real ones
    evaluate  models + test part       -> the same in more words, beside real images
    figures   what evaluate found      -> pictures

A judge, a classifier that was trained once, says what images are and how alike: features
are what its logits are computed from. Who measures with the same judge gets comparable
numbers, so the judges' files are part of the package and must have their hashes.

    digits   scikit-learn's digits, 8 x 8 pixels
    mnist    handwritten digits, 28 x 28

`studies/judges` made them, from training images alone.

Shapes: `B` images, `H`, `W` height and width, `F` numbers in a pixel (1 grey, 3 colour),
`U` features, `R` real images, `S` seeds.
"""

import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# What of `evaluate`'s findings goes into metrics/<experiment>.json.
REPORTED = ("metrics", "std", "headline", "sort_by", "better", "unit", "fingerprint")
PARTS = ("train", "validation", "test")
GLANCE = 1000  # images that are measured between epochs
SEED = 8128  # of the noise they are made of, the same for all models
WHITE = 255  # of images whose dataset does not say another
FEWEST = 4  # held images, for a third neighbour of each
LEAST = 50  # per cent of the test part that a judge of its images tells right
AT_ONCE = 500  # images that the judge looks at
ROWS = 500  # of a matrix of pairs that are held at a time
JUDGES = Path(__file__).parent / "judges"
SHA256 = {
    "digits": "ee7ffa3d41f5d8d9ce6ea86a5db871da654a49ad11805f0d581933934615ebdf",
    "mnist": "89d88afac443c1cc603ef5a0d848f3620590521ca658170594f04a599acd550b",
}


class DataError(ValueError):
    """Prepared data cannot be made of these images, told to their owner."""


def prepare(raw: Path, out: Path, validation: int, judge: str) -> dict[str, Any]:
    """Puts the images of all parts after each other, and lets the judge look at some.

    Writes `images.npy`, uint8 `(B, H, W, F)`, training part first, then validation and
    test; `features.npz`, what the judge sees of the validation part and of the `R` images
    of the test part; the judge; and `spec.json`, which it returns. The judge of `digits`
    was trained on the part of `unseen_hands: false`.

    Args:
        raw: a TFDS folder, its examples with `image`, uint8 `(H, W, F)`, and `label`. The
            value of full brightness is 255, or `white` among its metadata.
        out: folder to write.
        validation: int, the last images of the training split, to choose on; 0 for a
            dataset that brings a split `validation`.
        judge: word of a judge.

    Raises:
        DataError: if the examples are no labelled images, `validation` does not fit the
            splits, or the judge is one of other images.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    parts, labels = _parts(builder, validation)
    ends = np.cumsum([len(part) for part in parts]).tolist()
    pixels = np.concatenate(parts)
    white = (builder.info.metadata or {}).get("white", WHITE)
    file = JUDGES / f"{judge}.keras"
    model = load(file, judge)
    (held, held_modes), (real, real_modes) = (
        look(model, part / np.float32(white)) for part in parts[1:]
    )
    accuracy = 100 * float((real_modes == labels).mean())
    if accuracy < LEAST:
        raise DataError(
            f"`judge` must be one of such images. Expected to tell at least {LEAST} % of"
            f" the test part right, received {accuracy:.1f} % by {judge!r}"
        )
    spec = {
        "task": "image_generation",
        "dataset": out.name,
        "shape": list(pixels.shape[1:]),
        "white": white,
        "modes": builder.info.features["label"].num_classes,
        "judge": {"name": judge, "sha256": SHA256[judge], "accuracy": accuracy},
        "parts": {
            part: [start, end]
            for part, start, end in zip(PARTS, [0, *ends], ends, strict=False)
        },
        "fingerprint": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "images.npy", pixels)
    np.savez(
        out / "features.npz",
        real_features=real,
        held_features=held,
        held_modes=held_modes,
    )
    shutil.copyfile(file, out / "judge.keras")
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def _parts(builder, validation: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns the images of training, validation and test part, and the last's labels.

    The split is that of `classification`, which a stage of this task does not load.
    """
    if not {"image", "label"} <= set(builder.info.features):
        received = ", ".join(builder.info.features)
        raise DataError(f"examples need 'image' and 'label'. Received: {received}")

    def images(split: str) -> np.ndarray:
        return np.stack([one["image"] for one in builder.as_data_source(split=split)])

    labels = [one["label"] for one in builder.as_data_source(split="test")]
    train = images("train")
    if "validation" in builder.info.splits:
        if validation:
            raise DataError(
                "`validation` must be 0, since the dataset brings a split 'validation'."
                f" Received: {validation}"
            )
        return [train, images("validation"), images("test")], np.array(labels)
    first = len(train) - validation
    if not 0 < first <= len(train) - FEWEST:
        raise DataError(
            f"`validation` must be from {FEWEST} to {len(train) - 1}, since the training"
            f" split has {len(train)} images. Received: {validation}"
        )
    return [train[:first], train[first:], images("test")], np.array(labels)


@functools.cache
def load(path: Path, judge: str) -> "keras.Model":
    """Returns the judge in a file: of images `(B, H, W, 1)` features and logits.

    Raises:
        DataError: if there is none of this name, or the file is another one.
    """
    import keras

    if judge not in SHA256:
        raise DataError(f"`judge` must be one of {sorted(SHA256)}. Received: {judge!r}")
    received = hashlib.sha256(path.read_bytes()).hexdigest()
    if received != SHA256[judge]:
        raise DataError(
            f"{path}: not the judge {judge!r}, so that its numbers would be other ones."
            f" Expected sha256 {SHA256[judge]}, received {received}"
        )
    return keras.models.load_model(path, compile=False, safe_mode=True)


def look(judge: "keras.Model", images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns features `(B, F U)` and modes `(B,)` of images `(B, H, W, F)`.

    A judge looks at grey images, so at each of the `F` numbers of a pixel by itself.
    Features stand side by side; classes `c_1, ..., c_F` of `C` are together the mode
    `c_1 C^(F-1) + ... + c_F`.

    Args:
        judge: of `load`.
        images: float32, from 0 to 1.

    Raises:
        DataError: if the judge looks at images of another size.
    """
    count, *size, numbers = images.shape
    if (wanted := judge.input_shape[1:]) != (*size, 1):
        raise DataError(
            f"the judge looks at images of {wanted[0]} x {wanted[1]} pixels."
            f" Received: {size[0]} x {size[1]}"
        )
    grey = np.moveaxis(images, -1, 1).reshape(-1, *size, 1)
    features, logits = judge.predict(grey, batch_size=AT_ONCE, verbose=0)
    classes = logits.shape[-1]
    told = logits.argmax(-1).reshape(count, numbers)
    modes = told @ classes ** np.arange(numbers)[::-1]
    return features.reshape(count, -1), modes


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's images as `(image, place)`.

        image  float32 (B, H, W, F), from 0 to 1
        place  int64 (B,), running number in this pass: from it a model draws noise that
               does not depend on how many devices share a batch

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, images `B` in a batch. Images that fill none are left out.
        seed: int or None; if given, images are shuffled anew in every epoch.

    Raises:
        ValueError: if the part has not as many images.
    """
    import tensorflow as tf

    spec = json.loads((prepared / "spec.json").read_text())
    known = images(prepared, spec, part)
    if len(known) < batch_size:
        raise ValueError(
            f"`batch_size` must be at most {len(known)}, the images of the {part} part."
            f" Received: {batch_size}"
        )
    pixels = tf.constant(known)
    order = places = tf.data.Dataset.range(len(known))
    if seed is not None:
        order = order.shuffle(len(known), seed=seed, reshuffle_each_iteration=True)

    def floats(chosen, place):  # integers until here: a quarter of the memory
        return tf.cast(tf.gather(pixels, chosen), tf.float32) / spec["white"], place

    together = tf.data.Dataset.zip(order, places)
    return together.batch(batch_size, drop_remainder=True).map(floats).prefetch(2)


def images(prepared: Path, spec: dict[str, Any], part: str) -> np.ndarray:
    """Returns a part's images, uint8 `(B, H, W, F)`."""
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    return np.load(prepared / "images.npy", mmap_mode="r")[first:last]


def watch(
    model: "keras.Model", prepared: Path
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Returns `kid` and `modes` of a model between two epochs, and no table.

    The distance is to images of the validation part.
    """
    spec = json.loads((prepared / "spec.json").read_text())
    judge = load(prepared / "judge.keras", spec["judge"]["name"])
    features, modes = look(judge, model.generate(GLANCE, SEED))
    held = np.load(prepared / "features.npz")["held_features"][:GLANCE]
    return {"kid": kid(held, features), "modes": float(len(np.unique(modes)))}, {}


def kid(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the unbiased squared MMD of features `(A, U)` and `(B, U)`.

    Raises:
        ValueError: if a side has fewer than 2 rows.
    """
    for name, side in {"a": a, "b": b}.items():
        if len(side) < 2:
            received = f"Received: {len(side)}"
            raise ValueError(f"`{name}` must have at least 2 rows. {received}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)

    def mean(x: np.ndarray, y: np.ndarray, alike: bool) -> float:
        total = 0.0
        for n in range(0, len(x), ROWS):
            kernel = (x[n : n + ROWS] @ y.T / x.shape[1] + 1) ** 3
            if alike:  # an image is no pair with itself
                kernel[np.arange(len(kernel)), n + np.arange(len(kernel))] = 0
            total += float(kernel.sum())
        return total / (len(x) * (len(y) - 1 if alike else len(y)))

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)


def evaluate(models: list["keras.Model"], prepared: Path, fitted: str) -> dict[str, Any]:
    """Returns how as many images of the models compare with those of the test part.

    Args:
        models: one per seed, each with `generate`.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on; not used.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing; `image_generation_metrics` defines them.
    """
    from engram.tasks import image_generation_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    judge = load(prepared / "judge.keras", spec["judge"]["name"])
    known = np.load(prepared / "features.npz")
    seen = []
    for model in models:
        made = model.generate(len(known["real_features"]), SEED)  # (R, H, W, F)
        seen.append(look(judge, made))
    features, modes = (np.stack(arrays) for arrays in zip(*seen, strict=True))
    found = image_generation_metrics.measure(
        features,
        modes,
        known["real_features"],
        known["held_features"],
        known["held_modes"],
        spec["modes"],
        spec["judge"]["accuracy"],
    )
    real = images(prepared, spec, "test")
    return {
        **found,
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "real": real[:GLANCE] / np.float32(spec["white"]),
        "model": models[0],
        "modes": modes[0],
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files."""
    from engram.tasks import image_generation_figures

    return image_generation_figures.draw(found, folder)
