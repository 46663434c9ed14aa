"""A training that was stopped goes on where it was, to the last bit.

What a fit is at: weights, optimizers, random states and metrics of its model, the state
of its callbacks, the losses so far, the epoch and the step in it. `Keeper` writes that
to a folder of `checkpoints` while Keras fits, and puts it back.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from engram import checkpoints, memory
from engram.checkpoints import Checkpoint

SECONDS = 300.0  # between two checkpoints within an epoch; ENGRAM_CHECKPOINT_SECONDS
SHARE = 0.03  # of the time, at most, goes to checkpoints at the ends of epochs
ITERATORS = 2  # that Keras 3.15 makes of the data in an epoch; each draws a new order

# A callback, and the names of the attributes that hold its state: each a number, a list
# of arrays, or None.
Stateful = tuple[keras.callbacks.Callback, tuple[str, ...]]


class Preempted(SystemExit):
    """The process was asked to end, and can go on at a checkpoint; exit code 143."""

    def __init__(self):
        super().__init__(128 + signal.SIGTERM)


class Keeper(keras.callbacks.Callback):
    """Writes checkpoints of a fit; the last of its callbacks.

    At the end of an epoch, unless that would cost more than `SHARE` of the time, and
    every `SECONDS` within one, after a whole step. When the process is asked to end by
    SIGTERM, at the end of the step, and then it ends. Of several replicas within an epoch
    none is written.

    Args:
        folder: of the checkpoints; None where none are written, as by workers but one.
        others: callbacks with a state.
        flush: called before a checkpoint is written, to send what happened before.
        about: what else to write.
    """

    def __init__(
        self,
        folder: Path | None,
        others: Sequence[Stateful],
        flush: Callable[[], None],
        about: dict[str, Any],
    ):
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self._folder, self._others = folder, others
        self._flush, self._about = flush, about
        self._found: Checkpoint | None = None
        self._began = self._last = time.monotonic()
        self._epoch = self._step = self._skipped = 0
        self._gone = self._cost = self._written = self._peak = 0.0
        self._every = float(os.environ.get("ENGRAM_CHECKPOINT_SECONDS", SECONDS))
        self._saved = 0, 0
        self._asked = False

    @property
    def seconds(self) -> float:
        """Seconds of the fit without writing, those before it was stopped among them."""
        return self._gone + time.monotonic() - self._began - self._written

    @property
    def peak_memory(self) -> float:
        """MiB, those before it was stopped among them."""
        return max(self._peak, memory.peak())

    def put_back(self, found: Checkpoint, model, data) -> int:
        """Puts a model and its data where a checkpoint was; returns the epoch."""
        self._found = found
        put_back(found, model, data)
        self.history = found.about["history"]
        self._gone, self._peak = found.about["seconds"], found.about["peak_memory"]
        self._saved = found.about["epoch"], found.about["step"]
        self._epoch, self._skipped = self._saved
        if not hasattr(model, "take_state"):  # it reads data once, and orders it itself
            placed = model.distribute_strategy.experimental_distribute_dataset(data)
            for _ in range(ITERATORS * self._epoch):
                iter(placed)
        return self._epoch

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Lets SIGTERM end the fit at the end of a step, if checkpoints are written."""
        if self._folder is None:
            yield
            return

        def ask(number, frame):
            self._asked = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_train_begin(self, logs=None):
        if self._found:  # the others have begun anew, just now
            _put_back_others(self._others, self._found)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._step = epoch, 0
        if self._found and self._skipped:
            _assign(_metrics(self.model), self._found, "metric")
            self._train, self.model.train_function = self.model.train_function, self._skip

    def on_train_batch_begin(self, batch, logs=None):
        if self._skipped and batch >= self._skipped:
            self._learn()

    def on_train_batch_end(self, batch, logs=None):
        if self._skipped:
            return
        self._step = batch + 1
        # Of several replicas each has its own metrics: to read them all must take part.
        alone = self.model.distribute_strategy.num_replicas_in_sync == 1
        if alone and (self._asked or self._due(self._every)):
            self._save(self._epoch, self._step)
        elif self._asked:
            self._leave()

    def on_epoch_end(self, epoch, logs=None):
        if self._skipped:  # it was stopped after the last step
            self._learn()
        for name, value in (logs or {}).items():
            self.history.setdefault(name, [])[epoch:] = [float(value)]
        if self._asked or self._due(0.0):
            self._save(epoch + 1, 0)

    def finish(self, about: dict[str, Any]) -> None:
        """Writes what came of the fit, with the weights that it ended with."""
        asked, self._asked = self._asked, False
        self._save(self._epoch, 0, finished=about)
        if asked:
            print("asked to end; this fit is done")
            raise Preempted

    def _skip(self, batches: Iterator) -> dict[str, float]:
        """Stands for a training step of which the model has learned already."""
        for _ in range(self.model.steps_per_execution):
            next(batches, None)
        return self.model.get_metrics_result()

    def _learn(self) -> None:
        self._skipped, self.model.train_function = 0, self._train

    def _due(self, seconds: float) -> bool:
        gone = time.monotonic() - self._last
        return self._folder is not None and gone >= max(seconds, self._cost / SHARE)

    def _save(self, epoch: int, step: int, **more) -> None:
        began = time.monotonic()
        if self._folder:
            self._flush()
            arrays = _arrays(self.model, step) | _of_callbacks(self._others)
            about = {
                **self._about,
                "epoch": epoch,
                "step": step,
                "history": self.history,
                "seconds": self.seconds,
                "peak_memory": self.peak_memory,
                "callbacks": _numbers(self._others),
                **more,
            }
            checkpoints.write(self._folder, arrays, about)
        self._last = time.monotonic()
        self._cost = self._last - began
        self._written += self._cost
        self._saved = epoch, step
        if self._asked:
            self._leave()

    def _leave(self) -> None:
        epoch, step = self._saved
        print(f"asked to end; it goes on in epoch {epoch + 1}, after step {step}")
        raise Preempted


def put_back(found: Checkpoint, model: keras.Model, data) -> None:
    """Gives a model that was built anew the state that a checkpoint has.

    Raises:
        ValueError: if the checkpoint is not of such a model.
    """
    saved = [len(_listed(found.arrays, part)) for part in ("variable", "metric")]
    there = [len(_variables(model)), len(_metrics(model)) if saved[1] else 0]
    if saved != there:  # what Keras makes at the first step
        model._symbolic_build(data_batch=data.element_spec)
    _assign(_variables(model), found, "variable")
    if hasattr(model, "take_state"):
        own = {n.removeprefix("own/"): a for n, a in found.arrays.items() if "own/" in n}
        model.take_state(own)


def _arrays(model: keras.Model, step: int) -> checkpoints.Arrays:
    """Returns the state of a model; metrics begin anew with each epoch."""
    parts = {"variable": _variables(model), "metric": _metrics(model) if step else []}
    own = model.training_state() if hasattr(model, "training_state") else {}
    return {
        **{f"own/{name}": array for name, array in own.items()},
        **{
            f"{part}/{n}": np.asarray(variable)
            for part, variables in parts.items()
            for n, variable in enumerate(variables)
        },
    }


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Returns weights, random states and what belongs to optimizers."""
    optimizers = [one for one in vars(model).values() if isinstance(one, keras.Optimizer)]
    return [*model.variables, *(v for one in optimizers for v in one.variables)]


def _metrics(model: keras.Model) -> list[keras.Variable]:
    return [variable for metric in model.metrics for variable in metric.variables]


def _assign(variables, found: Checkpoint, part: str) -> None:
    arrays = _listed(found.arrays, part)
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [array.shape for array in arrays]:
        raise ValueError(
            f"the checkpoint is of another model: {len(arrays)} arrays for"
            f" {len(shapes)} variables, or of other shapes"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _listed(arrays: checkpoints.Arrays, part: str) -> list[np.ndarray]:
    """Returns the arrays `part/0`, `part/1` and so on."""
    count = sum(name.startswith(f"{part}/") for name in arrays)
    return [arrays[f"{part}/{n}"] for n in range(count)]


def _of_callbacks(others: Sequence[Stateful]) -> checkpoints.Arrays:
    return {
        f"callback/{place}/{name}/{n}": array
        for place, (callback, names) in enumerate(others)
        for name in names
        if isinstance(value := getattr(callback, name), list)
        for n, array in enumerate(value)
    }


def _numbers(others: Sequence[Stateful]) -> list[dict[str, float | None]]:
    """Returns the state of callbacks that is no array."""
    return [
        {
            name: value if value is None or isinstance(value, int) else float(value)
            for name in names
            if not isinstance(value := getattr(callback, name), list)
        }
        for callback, names in others
    ]


def _put_back_others(others: Sequence[Stateful], found: Checkpoint) -> None:
    kept = zip(others, found.about["callbacks"], strict=True)
    for place, ((callback, names), numbers) in enumerate(kept):
        for name in names:
            listed = _listed(found.arrays, f"callback/{place}/{name}")
            setattr(callback, name, numbers[name] if name in numbers else listed)
