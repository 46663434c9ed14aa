"""What watches a training between steps and epochs: its losses, and its weights."""

import math
import time
from collections.abc import Callable

import keras
import numpy as np

from engram.stops import Stopped

Seen = tuple[dict[str, float], dict[str, list[str]]]  # metrics, columns of a table
Watch = Callable[[keras.Model], Seen]  # what to see of a model between epochs
Record = Callable[..., None]  # metrics, step, columns of a table or nothing


class Diverged(Stopped):
    """The loss is not a number any more."""


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
