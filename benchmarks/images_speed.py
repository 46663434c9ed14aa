"""Images per second in training, and whether the input pipeline is ever the bound.

The net is the small one of studies/images: built, fed and trained as stage `train` does,
from a prepared folder, with XLA off and steps that repeat bit for bit. The peer is the
same net with the same augmentation, written plainly in Keras: float32 images in memory,
given to `fit`, which shuffles them, and XLA left to Keras (`xla` in the results says what
came of it). That both have as many parameters and, with the same weights, the same logits
is asserted first.

    waiting = max(0, 1 - seconds of steps on one batch in memory / seconds of fed steps)

of as many steps of the same model; on a CPU it also counts the time for which the
pipeline takes a core from the net. The pipeline alone is `batches`, read to its end.
Pictures are decoded by `fetch`, once and not in every epoch: that goes file by file, as
in the source `picture_folder`.

All run in one process, interleaved, after warm-up; the table has medians. Images are
random, so that nothing is downloaded; pictures of real things decode somewhat faster.

    python benchmarks/images_speed.py        # writes benchmarks/results/images_speed.json
"""

import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from tensorflow.python.framework import config  # it alone turns determinism off again

from engram import callbacks, models, repository, schedules
from engram.datasets import picture_folder
from engram.tasks import classification

BATCH, STEPS, ROUNDS, WARM_UP = 128, 80, 7, 1  # 10,240 images a round
SIDE, CLASSES = 28, 10
FILTERS, BLOCKS, SHIFT = [16, 32, 64], 1, 0.07
RATE, DECAY = 0.03, 0.002
PICTURES = 1000  # of each format
TOLERANCE = 1e-5  # of logits

Calls = dict[str, Callable[[], float]]  # what runs -> function that returns its seconds


class Clock(keras.callbacks.Callback):
    """Seconds of an epoch, without what `fit` does before and after it."""

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.began


def main() -> None:
    """Checks, measures, prints the table and writes the results file."""
    with tempfile.TemporaryDirectory() as folder:
        prepared, pictures = Path(folder, "prepared"), Path(folder, "pictures")
        spec = prepare(prepared)
        draw(pictures, prepared)
        nets = {"ours": ours(spec), "plain": plain()}
        check(nets, prepared, spec)
        xla = {name: bool(net.jit_compile) for name, net in nets.items()}
        seconds = medians(calls(nets, prepared, spec, pictures))
    write(seconds, nets["ours"].count_params(), xla)


def prepare(prepared: Path) -> dict:
    """Writes random images as `classification.prepare` does; returns the spec."""
    random, count = np.random.default_rng(1), BATCH * STEPS
    spec = {
        "task": "classification",
        "dataset": "noise",
        "shape": [SIDE, SIDE, 1],
        "white": 255,
        "classes": CLASSES,
        "names": [str(n) for n in range(CLASSES)],
        "weights": None,
        "parts": {"train": [0, count]},
        "fingerprint": "",
    }
    prepared.mkdir()
    pixels = random.integers(0, 256, (count, *spec["shape"]), np.uint8)
    np.save(prepared / "inputs.npy", pixels)
    np.save(prepared / "targets.npy", random.integers(0, CLASSES, count, np.int32))
    (prepared / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def draw(pictures: Path, prepared: Path) -> None:
    """Writes some of the images as JPEG and as PNG, a folder each."""
    pixels = np.load(prepared / "inputs.npy", mmap_mode="r")[:PICTURES, ..., 0]
    for kind in picture_folder.FORMATS:
        (pictures / kind).mkdir(parents=True)
        for n, image in enumerate(pixels):
            Image.fromarray(np.array(image)).save(pictures / kind / f"{n}", kind)


def ours(spec: dict) -> keras.Model:
    """Returns our net as stage `train` builds it."""
    net = models.build(
        "residual_cnn",
        spec,
        schedules.schedule("cosine", RATE, every_step(), 0),
        filters=FILTERS,
        blocks=BLOCKS,
        flip=True,
        shift=SHIFT,
        dropout=0.0,
        weight_decay=DECAY,
        optimizer="sgd",
    )
    net.jit_compile = False
    return net


def plain() -> keras.Model:
    """Returns the same net as one writes it down with Keras' layers."""
    layers = keras.layers
    convolution = functools.partial(layers.Conv2D, padding="same", use_bias=False)

    def bent(h):
        return layers.ReLU()(layers.BatchNormalization()(h))

    images = keras.Input((SIDE, SIDE, 1))
    h = layers.RandomFlip("horizontal")(images)
    h = layers.RandomTranslation(
        SHIFT, SHIFT, fill_mode="constant", interpolation="nearest"
    )(h)
    h = convolution(FILTERS[0], 3)(h)
    for size, filters in enumerate(FILTERS):
        for block in range(BLOCKS):
            strides = 2 if size and not block else 1
            new = bent(h)
            short = convolution(filters, 1, strides)(new) if strides > 1 else h
            new = convolution(filters, 3, strides)(new)
            new = convolution(filters, 3)(bent(new))
            h = layers.Add()([short, new])
    h = layers.GlobalAveragePooling2D()(bent(h))
    net = keras.Model(images, layers.Dense(CLASSES)(h))
    rates = keras.optimizers.schedules.CosineDecay(RATE, every_step())
    how = keras.optimizers.SGD(rates, momentum=0.9, weight_decay=DECAY)
    how.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    net.compile(how, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return net


def every_step() -> int:
    """Returns how many steps the longer trained net takes: ours, fed and in memory."""
    return 2 * STEPS * (WARM_UP + ROUNDS)


def check(nets: dict[str, keras.Model], prepared: Path, spec: dict) -> None:
    """Asserts that both are the same net, and leaves them with the same weights."""
    mine, peer = nets["ours"], nets["plain"]
    assert mine.count_params() == peer.count_params()
    random = np.random.default_rng(2)  # so that norms differ, too
    weights = [w + 0.01 * random.random(w.shape) for w in mine.get_weights()]
    for net in nets.values():
        net.set_weights(weights)
    x = pixels(prepared, spec)[0][:BATCH]
    expected, found = (net(x, training=False) for net in (peer, mine))
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def pixels(prepared: Path, spec: dict) -> tuple[np.ndarray, np.ndarray]:
    """Returns all images, float32 from 0 to 1, and their classes."""
    inputs, targets = classification.arrays(prepared, spec, "train")
    return np.array(inputs, np.float32) / spec["white"], np.array(targets)


def calls(
    nets: dict[str, keras.Model], prepared: Path, spec: dict, pictures: Path
) -> Calls:
    """Returns what is timed, each over as many images as its rate counts."""
    data = classification.batches(prepared, "train", BATCH, seed=1)
    one = data.take(1).cache().repeat(STEPS)
    x, y = pixels(prepared, spec)
    guard = callbacks.StopIfDiverged()  # looks at every loss, as in stage `train`

    def fed(batches):
        config.enable_op_determinism()  # as `training.train` does where XLA is off
        return epoch(nets["ours"], batches, callbacks=[guard], shuffle=False)

    def peer():
        config.disable_op_determinism()
        return epoch(nets["plain"], x, y, batch_size=BATCH)

    def alone():
        config.enable_op_determinism()
        began = time.perf_counter()
        assert sum(1 for _ in data) == STEPS
        return time.perf_counter() - began

    return {
        "fed": functools.partial(fed, data),
        "in memory": functools.partial(fed, one),
        "plain": peer,
        "pipeline": alone,
        **{
            kind: functools.partial(decoding, sorted((pictures / kind).iterdir()))
            for kind in picture_folder.FORMATS
        },
    }


def epoch(net: keras.Model, *data, callbacks=(), **how) -> float:
    """Returns the seconds of an epoch."""
    clock = Clock()
    net.fit(*data, epochs=1, verbose=0, callbacks=[clock, *callbacks], **how)
    return clock.seconds


def decoding(files: list[Path]) -> float:
    """Returns the seconds in which pictures are read as `fetch` reads them."""
    began = time.perf_counter()
    for file in files:
        picture_folder.pixels(file.read_bytes(), SIDE, colour=False)
    return time.perf_counter() - began


def medians(timed: Calls) -> dict[str, float]:
    """Returns the median seconds of each; rounds are interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(WARM_UP + ROUNDS):
        for name, call in timed.items():
            seconds[name].append(call())
    return {name: statistics.median(found[WARM_UP:]) for name, found in seconds.items()}


def write(seconds: dict[str, float], parameters: int, xla: dict[str, bool]) -> None:
    """Prints the table and writes the results file, with the machine and the versions."""
    images = {kind: PICTURES for kind in picture_folder.FORMATS}
    rates = {name: images.get(name, BATCH * STEPS) / s for name, s in seconds.items()}
    rows = [
        row("training against plain Keras", rates["fed"], rates["plain"]),
        row("pipeline alone against training", rates["pipeline"], rates["fed"]),
        *(
            row(f"pipeline alone against decoding {kind}", rates["pipeline"], rates[kind])
            for kind in picture_folder.FORMATS
        ),
    ]
    geomeans = {one["pair"]: one["ratio"] for one in rows}
    content = {
        "rows": rows,
        "geomean": geomeans["training against plain Keras"],
        "geomeans": geomeans,
        "waiting": max(0.0, 1 - seconds["in memory"] / seconds["fed"]),
        "seconds": seconds,
        "parameters": parameters,
        "xla": xla,
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "rounds": ROUNDS,
        "steps_of_a_round": STEPS,
        "batch": BATCH,
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy")},
    }
    print(f"share of a training step that waits for data: {content['waiting']:.1%}")
    out = Path(__file__).parent / "results" / "images_speed.json"
    out.write_text(json.dumps(content, indent=2) + "\n")


def row(pair: str, mine: float, peer: float) -> dict:
    """Returns, and prints, one line of the table."""
    size = f"{SIDE} x {SIDE} x 1"
    found = {
        "case": f"{pair}, {size}, batches of {BATCH}",
        "pair": pair,
        "ours": mine,
        "peer": peer,
        "ratio": mine / peer,
        "unit": "images/s",
    }
    print(f"{pair:44}{mine:12,.0f}{peer:12,.0f} images/s{mine / peer:9.2f}", flush=True)
    return found


if __name__ == "__main__":
    main()
