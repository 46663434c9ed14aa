"""What Keras 3.15 gets wrong under `tf.distribute`, put right while a `with` block lasts.

    build     Keras builds metrics and optimizer from the first distributed batch: it
              fails on several workers and on uneven shares (keras #20585, #20329), and
              takes that batch from the data. Here: from the data's shapes alone.
    metrics   The mean of a number over several workers is taken along an axis that it
              does not have (keras #20329). Here: of the number.
    losses    Each replica takes the mean over its share and all shares count the same, so
              a last batch of 3 + 2 rows has another gradient than of 5 rows; a loss that
              is a number already counts once for each replica. Here: the sum over its
              share, divided by the rows of all, also with a mask; the number divided by
              the replicas.

Each repair steps aside when the fault is gone: it looks for the faulty line in Keras'
source. A test tells when one of the lines is gone.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from keras import ops, tree
from keras.src.backend.tensorflow import trainer
from keras.src.losses import loss as losses

MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Puts the repairs in place of what they repair, and takes them out again."""
    with contextlib.ExitStack() as stack:
        for owner, name, faulty, repaired in REPAIRS:
            there: Any = getattr(owner, name, None)
            if faulty in _source(there):
                setattr(owner, name, repaired(there))
                stack.callback(setattr, owner, name, there)
        yield


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # it is not there, or its source is not
        return ""


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
    """Returns a `reduce_per_replica` that takes the mean over replicas, not rows."""

    def reduce_per_replica(values, strategy, reduction):
        several = trainer._collective_all_reduce_multi_worker(strategy)
        if not several or reduction not in ("auto", "mean"):
            return there(values, strategy, reduction)

        def mean(value):
            return strategy.reduce("MEAN", value, axis=None)

        return tree.map_structure(mean, values)

    return reduce_per_replica


def _losses(there: Callable) -> Callable:
    """Returns a `reduce_values` whose sum over the replicas is the mean over all rows."""

    def reduce_values(values, sample_weight=None, reduction="sum_over_batch_size"):
        context = _replica()
        if context is None or reduction not in MEANS:
            return there(values, sample_weight, reduction)
        if not values.shape.rank:
            return values / tf.distribute.get_strategy().num_replicas_in_sync
        weighted = reduction == "mean_with_sample_weight" and sample_weight is not None
        rows = ops.sum(sample_weight) if weighted else tf.size(values)
        rows = context.all_reduce("SUM", ops.cast(rows, values.dtype))
        return ops.divide_no_nan(ops.sum(values), tf.stop_gradient(rows))

    return reduce_values


def _masks(there: Callable) -> Callable:
    """Returns an `apply_mask` that counts the valid entries of all replicas."""

    def apply_mask(sample_weight, mask, dtype, reduction):
        context = _replica()
        if context is None or mask is None or reduction not in MEANS[:2]:
            return there(sample_weight, mask, dtype, reduction)
        whole = there(sample_weight, mask, dtype, "sum")  # without their share
        total, valid = (
            context.all_reduce("SUM", ops.cast(one, dtype))
            for one in (tf.size(mask), ops.sum(ops.cast(mask, dtype)))
        )
        return whole * ops.divide_no_nan(total, valid)

    return apply_mask


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
    (losses, "apply_mask", "mask_weight = ops.divide_no_nan(total, valid)", _masks),
    (losses, "unscale_loss_for_distribution", "ops.multiply(value", _whole),
)
