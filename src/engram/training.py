"""Training: seed after seed, under a strategy, with settings chosen on validation."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from engram import checkpoints, distribution, memory, resuming, schedules
from engram.callbacks import Curves, MeanOfEpochs, Record, StopIfDiverged, Watch
from engram.stops import NotPossible

Build = Callable[[Any, int], keras.Model]  # learning rate, seed -> compiled model
Batches = Callable[..., tf.data.Dataset]  # part, seed=None -> data
# seed, learning rate, file for the id of the run or None -> id of the run, record
Recorder = Callable[[int, float, Path | None], AbstractContextManager[tuple[str, Record]]]


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
        precision: Keras' dtype policy.
        accumulate: how many batches' gradients make one step.
        steps_per_execution: how many steps are one call, or None for the model's own.
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
    precision: str = "float32"
    accumulate: int = 1
    steps_per_execution: int | None = None


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


@dataclasses.dataclass
class Run:
    """One fit: where it is recorded, and where its checkpoints are."""

    seed: int
    rate: float
    id: str
    record: Record
    folder: Path | None
    found: checkpoints.Checkpoint | None


RUN = "run"  # a file beside the checkpoints of a fit: the id of its run
STATE = {  # of callbacks, which goes on after a stop
    Curves: ("watching",),
    MeanOfEpochs: ("_epochs", "_sums"),
    keras.callbacks.EarlyStopping: ("best", "best_epoch", "best_weights", "wait"),
}


def settings(start: str, block: dict[str, Any]) -> Settings:
    """Returns the settings of an experiment.

    Args:
        start: the experiment's `start`. With prepared data, the training part is fitted
            and the epoch and rate are chosen on validation. With another experiment's
            `chosen.json`, both parts are fitted with what that experiment chose. With a
            pretrained stack, as with prepared data: `build` starts from it.
        block: the experiment's `train` block.
    """
    means = ("jit_compile", "strategy", "precision", "accumulate", "steps_per_execution")
    words = {key: block[key] for key in means if key in block}
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
    folder: Path | None = None,
) -> list[Trained]:
    """Returns one trained model per seed.

    Every rate of `how.rates` is tried with the first seed; the one with the lowest
    validation loss is used for the others. What `watch` sees after each epoch is
    recorded.

    With a `folder`, checkpoints are written there; training that was stopped goes on at
    the last one, and fits that are in it whole are not done again.

    Raises:
        Diverged: if a loss is not a number any more.
        checkpoints.NotWritten: if a checkpoint cannot be written.
    """
    if distribution.strategy(how.strategy).num_replicas_in_sync > 1:
        # On CPUs XLA has no step in which replicas meet; with GPUs it is untried. Nor
        # has TensorFlow 2.21 a loop over such steps, or a condition around one.
        how = dataclasses.replace(how, jit_compile=False, steps_per_execution=None)
        if how.accumulate > 1:
            raise NotPossible(
                f"several replicas need `accumulate` 1. Received: {how.accumulate}"
            )
    if not how.jit_compile:
        # XLA's steps repeat bit for bit on a CPU as they are, and Keras would turn XLA
        # off under this switch.
        tf.config.experimental.enable_op_determinism()

    def one(seed: int, rate: float) -> Trained:
        place = folder / f"seed-{seed}-rate-{rate!r}" if folder else None
        found = checkpoints.read(place) if place else None
        distribution.agree(how.strategy, found.name if found else "none")
        with distribution.scope(how.strategy):
            if found and "finished" in found.about:
                return _finished(build, batches, how, seed, rate, found)
            kept = place / RUN if place else None
            with recorder(seed, rate, kept) as (run_id, record):
                run = Run(seed, rate, run_id, record, place, found)
                trained, keeper = _fit(build, batches, how, run, watch)
            keeper.finish(trained.about())  # its run has ended well by now
            return trained

    first = [one(seeds[0], rate) for rate in how.rates]
    best = min(first, key=_held_loss) if len(first) > 1 else first[0]
    return [best, *(one(seed, best.rate) for seed in seeds[1:])]


@contextlib.contextmanager
def unrecorded(seed: int, rate: float, kept: Path | None) -> Iterator[tuple[str, Record]]:
    """Stands for a recorder where another worker records."""
    yield "", lambda *point, **how: None


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


def _begun(
    build: Build, batches: Batches, how: Settings, seed: int, rate: float
) -> tuple[keras.Model, tf.data.Dataset, tf.data.Dataset | None]:
    """Returns the untrained model, its data and that to choose on."""
    keras.utils.set_random_seed(seed)
    fitted, held = how.parts
    data = _shared(batches(fitted, seed=seed))
    validation = _shared(batches(held)) if held else None
    batches_in_all = how.epochs * int(data.cardinality())  # a step is at its last one
    warmup = how.warmup * how.accumulate
    with _policy(how.precision):
        model = build(schedules.schedule(how.decay, rate, batches_in_all, warmup), seed)
    model.jit_compile = how.jit_compile
    if how.steps_per_execution:
        model.steps_per_execution = how.steps_per_execution
    own = any(
        getattr(type(model), name) is not getattr(keras.Model, name)
        for name in ("fit", "train_step")
    )
    if own and (how.accumulate > 1 or how.precision != "float32"):
        raise NotPossible(
            f"the model {model.name}, which trains in a way of its own, needs"
            f" `accumulate` 1 and `precision` float32. Received: {how.accumulate} and"
            f" {how.precision}"
        )
    if how.accumulate > 1:
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        optimizer.gradient_accumulation_steps = how.accumulate
    return model, data, validation


@contextlib.contextmanager
def _policy(precision: str) -> Iterator[None]:
    """Makes the layers of a model with a dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _fit(
    build: Build, batches: Batches, how: Settings, run: Run, watch: Watch | None
) -> tuple[Trained, resuming.Keeper]:
    memory.forget_peak()
    model, data, validation = _begun(build, batches, how, run.seed, run.rate)
    curves = Curves(run.record, watch)
    keepers = _keepers(how, curves)
    keeper = resuming.Keeper(
        run.folder if distribution.is_chief(how.strategy) else None,
        [(one, STATE[type(one)]) for one in keepers],
        lambda: run.record({}, 0, now=True),
        {"run_id": run.id},
    )
    begin = keeper.put_back(run.found, model, data) if run.found else 0
    with keeper.listening():
        history = model.fit(
            data,
            validation_data=validation,
            initial_epoch=begin,
            epochs=how.stop_after,
            callbacks=[StopIfDiverged(), *keepers, keeper],
            shuffle=False,  # the data shuffles itself, by seed
            verbose="auto" if sys.stdout.isatty() else 2,  # a line per epoch in a log
        ).history
    history = keeper.history or history  # the latter of a `fit` that is a model's own
    seconds = keeper.seconds - curves.watching
    best_epoch = None if how.average else how.stop_after
    held_loss = None
    if validation and how.average:
        held_loss = model.evaluate(validation, verbose=0, return_dict=True)["loss"]
        run.record({"averaged_val_loss": held_loss}, how.stop_after)
    elif validation:
        held_loss = min(history["val_loss"])
        best_epoch = 1 + history["val_loss"].index(held_loss)
    cost = {"seconds": seconds, "peak_memory": keeper.peak_memory}
    run.record({"parameters": model.count_params(), **cost}, how.stop_after)
    trained = Trained(
        run.seed,
        run.rate,
        how.parts[0],
        run.id,
        model,
        history,
        best_epoch,
        held_loss,
        **cost,
    )
    return trained, keeper


def _keepers(how: Settings, curves: Curves) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that have a state."""
    if how.average:
        return [curves, MeanOfEpochs(how.stop_after - how.average + 1)]
    if how.parts[1]:
        # Never stops early: the schedule runs to its end, the best epoch is kept.
        best = keras.callbacks.EarlyStopping(
            "val_loss", patience=how.epochs, restore_best_weights=True
        )
        return [curves, best]
    return [curves]


def _finished(
    build: Build,
    batches: Batches,
    how: Settings,
    seed: int,
    rate: float,
    found: checkpoints.Checkpoint,
) -> Trained:
    """Returns what a fit came to that was done before this process was started."""
    model, data, _ = _begun(build, batches, how, seed, rate)
    resuming.put_back(found, model, data)
    about = found.about
    print(f"seed {seed}, learning rate {rate:g}: trained before, run {about['run_id']}")
    return Trained(seed=seed, model=model, history=about["history"], **about["finished"])


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


def _held_loss(trained: Trained) -> float:
    if trained.held_loss is None:
        raise ValueError("several rates need a part to choose on")
    return trained.held_loss
