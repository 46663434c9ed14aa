"""Training: seed after seed, under a strategy, with settings chosen on validation."""

import contextlib
import dataclasses
import json
import math
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engram import distribution, schedules

Build = Callable[[Any, int], keras.Model]  # learning rate, seed -> compiled model
Batches = Callable[..., tf.data.Dataset]  # part, seed=None -> data
Seen = tuple[dict[str, float], dict[str, list[str]]]  # metrics, columns of a table
Watch = Callable[[keras.Model], Seen]  # what to see of a model between epochs
Record = Callable[..., None]  # metrics, step, columns of a table or nothing
Recorder = Callable[[int, float], AbstractContextManager[tuple[str, Record]]]


class Diverged(RuntimeError):
    """The loss is not a number any more."""


@dataclasses.dataclass
class Settings:
    """What is settled before a seed is trained.

    Attributes:
        parts: part to train on, and part to choose on or None.
        rates: learning rates to try on the first seed.
        epochs: length of the learning-rate schedule.
        stop_after: epochs to train, at most `epochs`.
        jit_compile: whether XLA compiles the training step, if one replica trains alone.
        strategy: a word of `distribution.strategy`.
        decay: a word of `schedules.schedule`.
        warmup: steps over which the learning rate rises, or 0.
        average: how many of the last epochs' weights are averaged, or 0.
    """

    parts: tuple[str, str | None]
    rates: list[float]
    epochs: int
    stop_after: int
    jit_compile: bool
    strategy: str
    decay: str = "cosine"
    warmup: int = 0
    average: int = 0


@dataclasses.dataclass
class Trained:
    """One seed's model and how it came about."""

    seed: int
    rate: float
    fitted: str
    run_id: str
    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int | None  # None for a mean of epochs
    held_loss: float | None  # on validation, of the weights kept
    seconds: float  # without watching
    peak_memory: float  # MiB of this process while it trained, TensorFlow's included

    def about(self) -> dict[str, Any]:
        """Returns what `run.json` keeps of this seed."""
        left = ("seed", "model", "history")
        kept = [one.name for one in dataclasses.fields(self) if one.name not in left]
        return {key: getattr(self, key) for key in kept}


def settings(start: str, block: dict[str, Any]) -> Settings:
    """Returns the settings of an experiment.

    Args:
        start: the experiment's `start`. With prepared data, the training part is fitted
            and the epoch and rate are chosen on validation. With another experiment's
            `chosen.json`, both parts are fitted with what that experiment chose. With a
            pretrained stack, as with prepared data: `build` starts from it.
        block: the experiment's `train` block.
    """
    words = {key: block[key] for key in ("jit_compile", "strategy")}
    path = ("decay", "warmup", "average")  # that the rate and the weights take
    if start.endswith("chosen.json"):
        chosen = json.loads(Path(start).read_text())
        words |= {key: chosen[key] for key in path if key in chosen}
        return Settings(
            parts=("train+validation", None),
            rates=[chosen["learning_rate"]],
            epochs=chosen["epochs"],
            stop_after=chosen["stop_after"],
            **words,
        )
    rates = block["learning_rate"]
    words |= {key: block[key] for key in path if key in block}
    return Settings(
        parts=("train", "validation"),
        rates=rates if isinstance(rates, list) else [rates],
        epochs=block["epochs"],
        stop_after=block["epochs"],
        **words,
    )


def train(
    build: Build,
    batches: Batches,
    how: Settings,
    seeds: list[int],
    recorder: Recorder,
    watch: Watch | None = None,
) -> list[Trained]:
    """Returns one trained model per seed.

    Every rate of `how.rates` is tried with the first seed; the one with the lowest
    validation loss is used for the others. What `watch` sees after each epoch is
    recorded.
    """
    if distribution.strategy(how.strategy).num_replicas_in_sync > 1:
        # On CPUs XLA has no step in which replicas meet; with GPUs it is untried.
        how = dataclasses.replace(how, jit_compile=False)
    if not how.jit_compile:
        # XLA's steps repeat bit for bit on a CPU as they are, and Keras would turn XLA
        # off under this switch.
        tf.config.experimental.enable_op_determinism()

    def one(seed: int, rate: float) -> Trained:
        with (
            distribution.scope(how.strategy),
            recorder(seed, rate) as (run_id, record),
        ):
            return _fit(build, batches, how, seed, rate, run_id, record, watch)

    first = [one(seeds[0], rate) for rate in how.rates]
    best = min(first, key=_held_loss) if len(first) > 1 else first[0]
    return [best, *(one(seed, best.rate) for seed in seeds[1:])]


@contextlib.contextmanager
def unrecorded(seed: int, rate: float) -> Iterator[tuple[str, Record]]:
    """Stands for a recorder where another worker records."""
    yield "", lambda *point: None


def chosen(how: Settings, trained: list[Trained]) -> dict[str, Any]:
    """Returns what a refit needs: learning rate, schedule and mean best epoch."""
    best = [one.best_epoch or how.stop_after for one in trained]
    return {
        "learning_rate": trained[0].rate,
        "epochs": how.epochs,
        "stop_after": round(sum(best) / len(best)),
        **{key: getattr(how, key) for key in ("decay", "warmup", "average")},
    }


def devices() -> dict[str, str]:
    """Returns the names of the devices that TensorFlow sees, for the record."""
    found = tf.config.list_physical_devices()
    return {"devices": ", ".join(device.name for device in found)}


def _fit(
    build: Build,
    batches: Batches,
    how: Settings,
    seed: int,
    rate: float,
    run_id: str,
    record: Record,
    watch: Watch | None,
) -> Trained:
    _forget_peak_memory()
    keras.utils.set_random_seed(seed)
    fitted, held = how.parts
    data = _shared(batches(fitted, seed=seed))
    validation = _shared(batches(held)) if held else None
    steps = how.epochs * int(data.cardinality())
    rates = schedules.schedule(how.decay, rate, steps, how.warmup)
    model = build(rates, seed)
    model.jit_compile = how.jit_compile
    curves = Curves(record, watch)
    callbacks: list[keras.callbacks.Callback] = [StopIfDiverged(), curves]
    if how.average:
        callbacks.append(MeanOfEpochs(how.stop_after - how.average + 1))
    elif held:
        # Never stops early: the schedule runs to its end, the best epoch is kept.
        callbacks.append(
            keras.callbacks.EarlyStopping(
                "val_loss", patience=how.epochs, restore_best_weights=True
            )
        )
    began = time.perf_counter()
    history = model.fit(
        data,
        validation_data=validation,
        epochs=how.stop_after,
        callbacks=callbacks,
        shuffle=False,  # the data shuffles itself, by seed
        verbose="auto" if sys.stdout.isatty() else 2,  # a line per epoch in a log file
    ).history
    seconds = time.perf_counter() - began - curves.watching
    best_epoch = None if how.average else how.stop_after
    held_loss = None
    if held and how.average:
        held_loss = model.evaluate(validation, verbose=0, return_dict=True)["loss"]
        record({"averaged_val_loss": held_loss}, how.stop_after)
    elif held:
        held_loss = min(history["val_loss"])
        best_epoch = 1 + history["val_loss"].index(held_loss)
    cost = {"seconds": seconds, "peak_memory": _peak_memory()}
    record({"parameters": model.count_params(), **cost}, how.stop_after)
    return Trained(
        seed, rate, fitted, run_id, model, history, best_epoch, held_loss, **cost
    )


def _shared(data: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data, of which workers share rows, not files; and untuned.

    tf.data looks for better buffer sizes in a thread. The tasks set their own, so it
    finds nothing; yet it takes time from small nets, and `fit` waits at its end for the
    thread's pause, which doubles each time.
    """
    options, rows = tf.data.Options(), tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = rows
    options.autotune.enabled = False
    return data.with_options(options)


def _forget_peak_memory() -> None:
    """Lets the peak be that of what follows, where the system can; of Linux alone."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> float:
    """Returns the most memory that this process had, in MiB; without that of a GPU."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
            return int(found[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _held_loss(trained: Trained) -> float:
    if trained.held_loss is None:
        raise ValueError("several rates need a part to choose on")
    return trained.held_loss


class StopIfDiverged(keras.callbacks.Callback):
    """Ends training with an error as soon as a loss is NaN or infinite."""

    def on_train_batch_end(self, batch, logs=None):
        self._check((logs or {}).get("loss"), f"step {batch + 1} of the epoch")

    def on_epoch_end(self, epoch, logs=None):
        for name, loss in (logs or {}).items():
            self._check(loss, f"epoch {epoch + 1} ({name})")

    def _check(self, loss, where):
        if loss is not None and not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} at {where}: lower `learning_rate`, or look for"
                " extreme values in the data"
            )


class Curves(keras.callbacks.Callback):
    """Hands the losses of every epoch to `record`, and what `watch` sees of the model."""

    def __init__(self, record: Record, watch: Watch | None):
        super().__init__()
        self._record, self._watch = record, watch
        self.watching = 0.0  # seconds

    def on_epoch_end(self, epoch, logs=None):
        losses = {name: float(value) for name, value in (logs or {}).items()}
        began = time.perf_counter()
        seen, table = self._watch(self.model) if self._watch else ({}, None)
        self.watching += time.perf_counter() - began
        self._record(losses | seen, epoch + 1, table)


class MeanOfEpochs(keras.callbacks.Callback):
    """Leaves the mean of the weights at the ends of the epochs from `first` on.

    Moving statistics of batch norm are averaged as weights are; they are not counted
    anew for the net that the mean is.

    Reference:
        - Vaswani et al. 2017, Attention Is All You Need, section 6.1, arXiv:1706.03762
    """

    def __init__(self, first: int):
        super().__init__()
        self._first, self._epochs = first, 0
        self._sums: list[np.ndarray] = []

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 < self._first:
            return
        weights = [weight.astype(np.float64) for weight in self.model.get_weights()]
        sums = self._sums or [np.zeros_like(weight) for weight in weights]
        self._sums = [total + one for total, one in zip(sums, weights, strict=True)]
        self._epochs += 1

    def on_train_end(self, logs=None):
        self.model.set_weights([total / self._epochs for total in self._sums])
