"""From a word in `params.yaml` to a `tf.distribute` strategy and a Keras fit for it."""

import contextlib
import functools
import os
import zlib
from collections.abc import Iterator

import tensorflow as tf

from engram import cluster, keras_repairs
from engram.stops import NotPossible

WORDS = ("auto", "one_device", "mirrored", "multi_worker")
SILENCE = 600  # seconds after which a worker that does not answer ends the others


def strategy(word: str) -> tf.distribute.Strategy:
    """Returns the strategy of `word`.

    `one_device` is TensorFlow's default; `mirrored` copies the model to every GPU, or to
    every logical CPU where there is no GPU; `multi_worker` does so over the machines that
    the environment tells of (`engram.cluster`), and waits until all are there. `auto` is
    `multi_worker` where there are other machines, `mirrored` with several GPUs, else
    `one_device`.

    Raises:
        ValueError: if the word is none of these, or names workers of which the
            environment does not tell.
        TimeoutError: if a worker does not appear.
    """
    if word not in WORDS:
        raise ValueError(
            f"`strategy` must be one of {', '.join(map(repr, WORDS))}. Received: {word!r}"
        )
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # it is in use already
            tf.config.experimental.set_memory_growth(gpu, True)
    found = cluster.workers() if word in cluster.STRATEGIES else None
    if found:
        return _multi_worker(found)
    if word == "multi_worker":
        raise ValueError(
            "`strategy` is 'multi_worker', but no other workers are named: see"
            " engram.cluster for the variables that do, such as TF_CONFIG"
        )
    devices = tf.config.list_logical_devices("GPU")
    if word == "mirrored" or (word == "auto" and len(devices) > 1):
        devices = devices or tf.config.list_logical_devices("CPU")
        return _mirrored(tuple(device.name for device in devices))
    return tf.distribute.get_strategy()


def agree(word: str, found: str) -> None:
    """Returns if all workers have found the same, such as the name of a file.

    Raises:
        NotPossible: if they have not.
    """
    among = cluster.workers() if word in cluster.STRATEGIES else None
    if among is None:
        return
    number = zlib.crc32(found.encode())

    def gathered():
        replica = tf.distribute.get_replica_context()
        return replica.all_gather(tf.constant([number], tf.int64), axis=0)

    met = strategy(word)
    (first, *_) = met.experimental_local_results(met.run(tf.function(gathered)))
    if len(set(first.numpy().tolist())) > 1:
        raise NotPossible(
            f"worker {among.index} found {found}, another one something else: the"
            " checkpoints must be on a disk that all workers see; start again"
        )


def lacking(required: str | None) -> str | None:
    """Returns what is said where a device that an experiment requires is not there."""
    found = tf.config.list_physical_devices()
    if required is None or any(one.device_type == required.upper() for one in found):
        return None
    names = ", ".join(one.name for one in found)
    return f"it requires a {required.upper()}. TensorFlow sees: {names}"


@functools.cache  # a second one in a process would reuse the first one's collectives
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker(found: cluster.Workers) -> tf.distribute.Strategy:
    cluster.meet(found)
    os.environ["TF_CONFIG"] = found.as_tf_config()
    ways = tf.distribute.experimental.CommunicationImplementation
    gpus = tf.config.list_physical_devices("GPU")
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=ways.NCCL if gpus else ways.RING, timeout_seconds=SILENCE
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def is_chief(word: str) -> bool:
    """Returns whether this process is alone, or the one that writes files for all."""
    found = cluster.workers() if word in cluster.STRATEGIES else None
    return found is None or found.chief


@contextlib.contextmanager
def scope(word: str = "auto") -> Iterator[tf.distribute.Strategy]:
    """Makes and trains Keras models on all devices there are.

        with distribution.scope():
            model = ...
            model.compile(...)
            model.fit(...)

    Batches are those of all replicas together: with the same data, losses and weights are
    those of one device, also for a last batch that cannot be shared evenly. Every worker
    reads all data and takes its rows of each batch; data in files needs the option
    `experimental_distribute.auto_shard_policy = AutoShardPolicy.DATA` for that. Inside,
    Keras is repaired where it needs to be (`engram.keras_repairs`).

    Args:
        word: as in `strategy`.

    Yields:
        The strategy.
    """
    chosen = strategy(word)
    with contextlib.ExitStack() as stack:
        if chosen.num_replicas_in_sync > 1:
            stack.enter_context(keras_repairs.applied())
        stack.enter_context(chosen.scope())
        yield chosen
