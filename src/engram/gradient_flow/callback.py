"""A callback that watches gradients through a training."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engram.gradient_flow import graph, heat_map, measures

Record = Callable[[dict[str, float], int], None]  # metrics, step

LOGS = ("gradient", "clipped", "signal", "jacobian")  # told as decimal logarithms
NOTHING = -1e20  # what is below is the logarithm of nothing


class GradientFlow(keras.callbacks.Callback):
    """Measures every layer before the first step of `fit` and before each `every`-th.

    One batch, always the same, is looked at, so that numbers change because weights do.
    The model is left as it is: what layers change about themselves in training, such as
    running means, is not kept. `measures` tells what each number is; `update` is
    `log10(|w_after - w_before| / |w_before|)` of the step (of all steps of a call, with
    `steps_per_execution`).

    Args:
        x: inputs of the batch; 64 rows are enough.
        y: its targets.
        every: int, steps from one look to the next.
        record: function of a dict of numbers and the step, such as
            `mlflow.log_metrics`, called after each look; None calls nothing. Names are
            `<measure>/<layer>`; numbers that are not finite are left out.
        jacobians: bool, whether `chi` and `jacobian` are measured, too.

    Attributes:
        rows: list of dicts, the table: `step`, `layer` and a number for each measure;
            `gradient`, `clipped`, `signal`, `jacobian` and `update` are decimal
            logarithms, NaN where a layer has no such number.
        totals: list of dicts, for each look the `step`, the `loss`, and `cosine`, of the
            angle between the gradient of all weights and what clipping leaves of it.

    Raises:
        ValueError: if `every` is below 1, the model's graph of layers is not known, or
            all its outputs are whole numbers.
        RuntimeError: on another backend than TensorFlow.
    """

    def __init__(self, x, y, every=100, record: Record | None = None, jacobians=True):
        super().__init__()
        graph.require_tensorflow()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every}")
        self.x = keras.tree.map_structure(tf.convert_to_tensor, x)
        self.y = keras.tree.map_structure(tf.convert_to_tensor, y)
        self.every = every
        self.record = record
        self.jacobians = jacobians
        self.rows: list[dict[str, Any]] = []
        self.totals: list[dict[str, float]] = []
        self._step = 0

    def on_train_begin(self, logs=None):
        require_slopes(self.model, self.x)
        self._names: list[str] = []
        self._weights: list[list[keras.Variable]] = []
        self._measure = tf.function(self._measured, autograph=False)
        self._moved = tf.function(self._updates, autograph=False)

    def on_train_batch_begin(self, batch, logs=None):
        taken = self.model.steps_per_execution
        self._looking = -self._step % self.every < taken
        if self._looking:
            self._found = self._measure(self.x, self.y)
            self._before = [
                [tf.identity(weight.value) for weight in some] for some in self._weights
            ]

    def on_train_batch_end(self, batch, logs=None):
        if self._looking:
            self._found["update"] = self._moved(self._before)
            self._tell({name: value.numpy() for name, value in self._found.items()})
        self._step += self.model.steps_per_execution

    def frame(self):
        """Returns `rows` as a pandas `DataFrame` (`pip install pandas`)."""
        import pandas

        return pandas.DataFrame(self.rows)

    def figure(self, measure="gradient"):
        """Returns a matplotlib figure of one measure, layer by step."""
        return heat_map.draw(self.rows, measure)

    def _measured(self, x, y):
        calls, found = measures.measure(
            self.model, x, y, training=True, jacobians=self.jacobians
        )
        self._names = [one.name for one in calls]
        self._weights = [one.weights for one in calls]
        return found

    def _updates(self, before):
        return tf.stack(
            [
                _ratio([weight.value for weight in now], old)
                for now, old in zip(self._weights, before, strict=True)
            ]
        )

    def _tell(self, found: dict[str, np.ndarray]) -> None:
        step = self._step
        loss, cosine = float(found.pop("loss")), float(found.pop("cosine"))
        self.totals.append({"step": step, "loss": loss, "cosine": cosine})
        for name in (*LOGS, "update"):
            if name in found:
                log = np.asarray(found[name], np.float64) / np.log(10)
                found[name] = np.where(log < NOTHING, -np.inf, log)
        for n, layer in enumerate(self._names):
            numbers = {name: float(values[n]) for name, values in found.items()}
            self.rows.append({"step": step, "layer": layer, **numbers})
        if self.record is not None:
            told = {
                f"{name}/{layer}": float(values[n])
                for name, values in found.items()
                for n, layer in enumerate(self._names)
                if np.isfinite(values[n])
            }
            self.record({**told, "gradient_cosine": cosine}, step)


def require_slopes(model: keras.Model, x) -> None:
    """Raises a `ValueError` if no output of a model has a gradient."""
    outputs = graph.graph_of(model, x).outputs
    kinds = [keras.backend.standardize_dtype(one.dtype) for one in outputs]
    if not any("float" in kind for kind in kinds):
        raise ValueError(
            "`model` must have an output of floating-point numbers, since others have no"
            f" gradient. Received: {', '.join(kinds)}"
        )


def _ratio(now: list, old: list) -> tf.Tensor:
    """Returns `ln(|now - old| / |old|)` of a layer's weights."""
    if not old:
        return tf.constant(float("nan"))
    squares = [
        (
            tf.reduce_sum(tf.square(tf.cast(new - was, tf.float32))),
            tf.reduce_sum(tf.square(tf.cast(was, tf.float32))),
        )
        for new, was in zip(now, old, strict=True)
    ]
    moved, size = (tf.add_n(part) for part in zip(*squares, strict=True))
    return tf.math.log(moved / size) / 2
