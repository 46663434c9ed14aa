"""From a word in `params.yaml` to a `tf.distribute` strategy."""

import tensorflow as tf


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
