"""One worker's part of a training, for `test_cluster`: prints what came of it.

    python tests/cluster_training.py lstm scope    # or plain

Without TF_CONFIG it is the training of one process with the same batches.
"""

import contextlib
import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf
import toy

from engram import distribution, models
from engram.models import translation

DRAW = np.random.default_rng(0)


def lstm():
    """A plain Keras model; its last batch has 3 rows, of validation one."""
    model = keras.Sequential(
        [keras.Input((6, 3)), keras.layers.LSTM(8), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    return model


def own_loss():
    """A loss that is a number already."""
    model = lstm()
    model.compile("sgd", lambda y, p: keras.ops.mean(keras.ops.square(y - p)))
    return model


def masked():
    """Sequences of unlike lengths, whose losses leave out what is behind their ends."""
    layers = [keras.layers.Embedding(9, 4, mask_zero=True)]
    layers += [keras.layers.LSTM(5, return_sequences=True), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((7,), dtype="int32"), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def transformer():
    """Our translator, with its own loss, whose weights leave out padding."""
    spec = {"task": "translation", "source_pieces": 12, "target_pieces": 12}
    spec |= {"vocabulary": "separate", "start": 1, "end": 2}
    form = toy.ARGUMENTS["transformer"] | {"dropout": 0.0}
    model = models.build("transformer", spec, 0.01, **form)
    model.compile("sgd", translation.SmoothedCrossEntropy(), jit_compile=False)
    return model


def gan():
    """Two nets, each with its optimizer."""
    form = toy.GENERATORS["mlp_gan"] | {"stddev": None}
    return models.build("mlp_gan", {"task": "generation", "shape": [2]}, 0.01, **form)


def numbers():
    x = DRAW.normal(size=(43, 6, 3)).astype(np.float32)
    return (x, x.sum((1, 2))[:, None]), 8, 17


def whole_numbers():
    (x, y), *_ = numbers()
    return (x[:40], y[:40]), 8, 16


def lengths():
    x = DRAW.integers(1, 9, (21, 7)) * (np.arange(7) < DRAW.integers(1, 8, (21, 1)))
    return (x.astype(np.int32), DRAW.normal(size=(21, 7, 1)).astype(np.float32)), 8, 13


def sentences():
    target = np.pad(DRAW.integers(3, 12, (20, 4)), ((0, 0), (0, 1)), constant_values=2)
    shifted = np.concatenate([np.ones((20, 1), int), target[:, :-1]], axis=1)
    weight = (DRAW.random((20, 5)) < 0.8).astype(np.float32)
    return ((target, shifted), target, weight), 8, 12


def points():
    x = DRAW.normal(size=(48, 2)).astype(np.float32)
    return (x, np.arange(48)), 16, 48


def dataset(arrays, batch, whole=False):
    options = tf.data.Options()
    rows = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = rows
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(batch, drop_remainder=whole)
    return data.with_options(options)


def main(kind, how):
    build, data = {
        "lstm": (lstm, numbers),
        "own_loss": (own_loss, whole_numbers),
        "masked": (masked, lengths),
        "transformer": (transformer, sentences),
        "gan": (gan, points),
    }[kind]
    arrays, batch, held = data()
    some = tf.nest.map_structure(lambda array: array[:held], arrays)
    word = "multi_worker" if "TF_CONFIG" in os.environ else "one_device"
    ours = distribution.scope(word)
    if how == "plain":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        ours = contextlib.nullcontext(strategy)
    with ours as strategy, strategy.scope():
        keras.utils.set_random_seed(1)
        model = build()
        fitted = model.fit(
            dataset(arrays, batch, whole=kind == "gan"),
            validation_data=None if kind == "gan" else dataset(some, batch),
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        found = {"history": fitted.history, "replicas": strategy.num_replicas_in_sync}
        if kind != "gan":
            found["evaluated"] = model.evaluate(
                dataset(some, batch), verbose=0, return_dict=True
            )
        if kind == "lstm":
            found["predicted"] = model.predict(dataset(some, batch), verbose=0).tolist()
    found["weights"] = [np.array(weight).tolist() for weight in model.get_weights()]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
