"""From a word in `params.yaml` to a `tf.distribute` strategy."""

import functools

import keras
import tensorflow as tf


@functools.cache  # a second one in a process would reuse the first one's collectives
def strategy(word: str) -> tf.distribute.Strategy:
    """Returns the strategy of `word`.

    `one_device` is TensorFlow's default; `mirrored` copies the model to every GPU, or to
    every logical CPU where there is no GPU; `auto` is `mirrored` with several GPUs and
    `one_device` otherwise.

    Raises:
        ValueError: if the word is none of these.
    """
    if word not in ("auto", "one_device", "mirrored"):
        raise ValueError(
            f"`strategy` must be 'auto', 'one_device' or 'mirrored'. Received: {word!r}"
        )
    devices = tf.config.list_logical_devices("GPU")
    if word == "mirrored" or (word == "auto" and len(devices) > 1):
        devices = devices or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def build(model: keras.Model, data: tf.data.Dataset) -> None:
    """Builds the metrics and optimizer of a model that several replicas will train.

    Left to itself, Keras 3.15 does so at the start of `fit` from the first distributed
    batch, which fails when the replicas' shares differ in size, and which takes one batch
    from the data, so that a seeded shuffle starts one pass later than on one device.

    Args:
        model: compiled in the strategy's scope.
        data: undistributed batches `(inputs, target, weight)`, not the ones to train on.
    """
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return
    with model.distribute_strategy.scope():
        model._symbolic_build(data_batch=next(iter(data)))
    model._maybe_symbolic_build = lambda *args, **kwargs: None  # done
