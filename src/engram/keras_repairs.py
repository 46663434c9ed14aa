"""What Keras 3.15 gets wrong under `tf.distribute`, put right while a `with` block lasts.

    build     Keras builds metrics and optimizer from the first distributed batch: it
              fails on several workers and on uneven shares (keras #20585, #20329), and
              takes that batch from the data. Here: from the data's shapes alone.
    metrics   The mean of a number over several workers is taken along an axis that it
              does not have (keras #20329). Here: of the number.
    losses    Each replica takes the mean over its share and all shares count the same, so
              a last batch of 3 + 2 rows has another gradient than of 5 rows. Here: the
              sum over its share, divided by the rows of all.

Each repair steps aside when the fault is gone: it looks for the faulty line in Keras'
source. `tests/test_cluster.py` tells when Keras is mended.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from keras import ops
from keras.src.backend.tensorflow import trainer
from keras.src.losses import loss as losses

MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Puts the repairs in place of what they repair, and takes them out again."""
    with contextlib.ExitStack() as stack:
        for owner, name, faulty, repaired in REPAIRS:
            there = getattr(owner, name)
            if faulty in inspect.getsource(there):
                setattr(owner, name, repaired(there))
                stack.callback(setattr, owner, name, there)
        yield


def _build(there: Callable) -> Callable:
    """Returns a `TensorFlowTrainer._maybe_symbolic_build` that takes no batch."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self._distribute_strategy is None:
            return
        if iterator is not None:
            data_batch = iterator.data_adapter.get_tf_dataset().element_spec
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=data_batch)

    return _maybe_symbolic_build


def _metrics(there: Callable) -> Callable:
    """Returns a `reduce_per_replica` that takes the mean of numbers."""

    def reduce_per_replica(values, strategy, reduction):
        several = trainer._collective_all_reduce_multi_worker(strategy)
        if not several or reduction not in ("auto", "mean"):
            return there(values, strategy, reduction)

        def mean(value):
            return strategy.reduce("MEAN", value, axis=0 if value.shape.rank else None)

        return tf.nest.map_structure(mean, values)

    return reduce_per_replica


def _losses(there: Callable) -> Callable:
    """Returns a `reduce_values` whose sum over the replicas is the mean over all rows."""

    def reduce_values(values, sample_weight=None, reduction="sum_over_batch_size"):
        context = _replica()
        if context is None or reduction not in MEANS or not values.shape.rank:
            return there(values, sample_weight, reduction)
        weighted = reduction == "mean_with_sample_weight" and sample_weight is not None
        rows = ops.sum(sample_weight) if weighted else tf.size(values)
        rows = context.all_reduce("SUM", ops.cast(rows, values.dtype))
        return ops.divide_no_nan(ops.sum(values), tf.stop_gradient(rows))

    return reduce_values


def _whole(there: Callable) -> Callable:
    """Returns an `unscale_loss_for_distribution` that adds up the replicas' shares."""

    def unscale_loss_for_distribution(value):
        context = _replica()
        return there(value) if context is None else context.all_reduce("SUM", value)

    return unscale_loss_for_distribution


def _replica() -> tf.distribute.ReplicaContext | None:
    """Returns the replica that is asking, if it is one of several."""
    context = tf.distribute.get_replica_context()
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return context if several else None


# owner, name, the faulty line, the repair
REPAIRS: tuple[tuple[Any, str, str, Callable[[Callable], Callable]], ...] = (
    (
        trainer.TensorFlowTrainer,
        "_maybe_symbolic_build",
        "maybe_distributed_data_batch = next(it)",
        _build,
    ),
    (trainer, "reduce_per_replica", 'strategy.reduce("MEAN", v, axis=0)', _metrics),
    (losses, "reduce_values", "loss = scale_loss_for_distribution(loss)", _losses),
    (losses, "unscale_loss_for_distribution", "ops.multiply(value", _whole),
)
