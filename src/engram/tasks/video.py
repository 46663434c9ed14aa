"""Video: read frames, predict the next one; then go on from one's own predictions.

    prepare   data/raw/<dataset>       -> frames.npy, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's clips
    evaluate  models + test part       -> errors of predicted frames, in pixels
    figures   what evaluate found      -> pictures

Shapes: `B` clips, `T` frames of a clip, `P` frames predicted, `H`, `W` height and width,
`S` seeds.
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
SHOWN = 3  # clips in the pictures: the first ones of the test part, for every model


class DataError(ValueError):
    """Prepared data cannot be made of these clips, told to their owner."""


def prepare(raw: Path, out: Path, history: int, horizon: int) -> dict[str, Any]:
    """Cuts every clip to its first `history + horizon` frames; keeps the source's parts.

    Writes `frames.npy` uint8 `(B, T, H, W)`, the clips of the parts after each other, and
    `spec.json`, which it returns.

    Args:
        raw: a TFDS folder with the splits `train`, `validation` and `test`, its examples
            with `frames`, uint8 `(T, H, W)`, and `white`, the largest of them, among its
            metadata.
        out: folder to write.
        history: int, frames seen before the first one that is scored.
        horizon: int, frames `P` that are scored.

    Raises:
        DataError: if a clip has fewer frames than that.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    clips = [
        np.stack([one["frames"] for one in builder.as_data_source(split=part)])
        for part in PARTS
    ]
    frames = np.concatenate(clips)[:, : history + horizon]  # (B, T, H, W)
    if frames.shape[1] < history + horizon:
        raise DataError(
            f"a clip has {frames.shape[1]} frames, fewer than history + horizon."
            f" Received: {history} + {horizon}"
        )
    ends = np.cumsum([len(part) for part in clips]).tolist()
    white = builder.info.metadata["white"]
    spec = {
        "task": "video",
        "dataset": out.name,
        "unit": "pixels per frame",
        "history": history,
        "horizon": horizon,
        "height": frames.shape[2],
        "width": frames.shape[3],
        "white": white,
        "parts": {
            part: [start, end]
            for part, start, end in zip(PARTS, [0, *ends], ends, strict=False)
        },
        "mean": float(clips[0].mean(dtype=np.float64)) / white,
        "fingerprint": hashlib.sha256(frames.tobytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "frames.npy", frames)
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's clips as `(inputs, target)`; the target is one frame ahead.

        inputs, target      float32 (B, T - 1, H, W, 1), from 0 to 1

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, clips `B` in a batch; the last one may be smaller.
        seed: int or None; if given, clips are shuffled anew in every epoch.
    """
    import tensorflow as tf

    spec = json.loads((prepared / "spec.json").read_text())

    def one_ahead(stored):  # (B, T, H, W)
        pixels = tf.cast(stored, tf.float32)[..., None] / spec["white"]
        return pixels[:, :-1], pixels[:, 1:]

    frames = _stored(prepared, spec, part)
    data = tf.data.Dataset.from_tensor_slices(frames)
    if seed is not None:
        data = data.shuffle(len(frames), seed=seed, reshuffle_each_iteration=True)
    return data.batch(batch_size).map(one_ahead).prefetch(2)


def clips(prepared: Path, spec: dict[str, Any], part: str) -> np.ndarray:
    """Returns a part's frames as a model reads them: float32 `(B, T, H, W, 1)`."""
    return _stored(prepared, spec, part)[..., None].astype(np.float32) / spec["white"]


def _stored(prepared: Path, spec: dict[str, Any], part: str) -> np.ndarray:
    """Returns a part's frames, uint8 `(B, T, H, W)`."""
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    return np.load(prepared / "frames.npy")[first:last]


def evaluate(
    models: list["keras.Model"], prepared: Path, fitted: str, batch_size: int = 64
) -> dict[str, Any]:
    """Returns the errors of the models (one per seed) on the test part.

    Each of the last `horizon` frames is predicted twice: from the true frames before it,
    and from `history` true frames followed by the model's own predictions.

    Args:
        models: one per seed.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on; not used.
        batch_size: int, clips per prediction step.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing; `video_metrics` defines them.
    """
    from engram.tasks import video_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    history = spec["history"]
    frames = clips(prepared, spec, "test")  # (B, T, H, W, 1)
    following = [_after_true_frames(one, frames, history, batch_size) for one in models]
    free = [_free_running(one, frames, history, batch_size) for one in models]
    truth = frames[:, history:]  # (B, P, H, W, 1)
    return {
        **video_metrics.measure(np.stack(following), np.stack(free), truth, spec),
        "unit": spec["unit"],
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "frames": frames[:SHOWN, ..., 0],
        "following": following[0][:SHOWN, ..., 0],
        "free": free[0][:SHOWN, ..., 0],
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files, the film strips first."""
    from engram.tasks import video_figures

    return video_figures.draw(found, folder)


def _after_true_frames(
    model: "keras.Model", frames: np.ndarray, history: int, batch_size: int
) -> np.ndarray:
    """Returns the predicted frames `(B, P, H, W, 1)`, true ones before each."""
    predicted = model.predict(frames[:, :-1], batch_size, verbose=0)
    return predicted[:, history - 1 :]


def _free_running(
    model: "keras.Model", frames: np.ndarray, history: int, batch_size: int
) -> np.ndarray:
    """Returns the predicted frames `(B, P, H, W, 1)`, each fed back to the model."""
    seen = frames.copy()
    for t in range(history, frames.shape[1]):
        seen[:, t] = model.predict(seen[:, :t], batch_size, verbose=0)[:, -1]
    return seen[:, history:]
