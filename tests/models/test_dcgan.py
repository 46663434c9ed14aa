"""A generator of images grows them, and its discriminator sees packs of whole images."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from engram import models
from engram.models.generation import distance
from engram.tasks import generation_metrics

SPEC = {"task": "image_generation", "shape": [8, 12, 3]}
FORM = toy.IMAGE_GENERATORS["dcgan"]
IMAGES = np.random.default_rng(1).random((24, 8, 12, 3)).astype(np.float32)


def build(rate=0.01, spec=SPEC, **changes):
    keras.utils.set_random_seed(1)
    return models.build("dcgan", spec, rate, **(FORM | changes))


def fit(model, epochs=1, size=8, **kwargs):
    data = tf.data.Dataset.from_tensor_slices((IMAGES, np.arange(24)))
    data = data.batch(size, drop_remainder=True)
    return model.fit(data, epochs=epochs, shuffle=False, verbose=0, **kwargs).history


# the two nets


def test_images_have_the_shape_of_the_data_and_numbers_from_0_to_1():
    made = build().generate(5, 1)
    assert made.shape == (5, 8, 12, 3)
    assert 0 < made.min() < made.max() < 1


def test_each_layer_doubles_the_image_and_the_other_net_halves_it():
    model = build(filters=[7, 5], norm="batch", packing=2)
    shapes = [layer.output.shape[1:] for layer in model.generator.layers]
    for shape in ((2, 3, 7), (4, 6, 5), (8, 12, 3)):
        assert shape in shapes
    shapes = [layer.output.shape[1:] for layer in model.discriminator.layers]
    for shape in ((8, 12, 6), (4, 6, 5), (2, 3, 7), (1,)):
        assert shape in shapes


def test_the_discriminator_sees_pixels_from_minus_1_to_1():
    model = build(norm="none")
    first = model.discriminator.get_layer("from_minus_1_to_1")
    np.testing.assert_array_equal(first(np.array([0.0, 0.5, 1.0])), [-1, 0, 1])


def test_images_of_a_pack_lie_side_by_side_in_the_last_axis():
    packs = np.array(build(packing=3)._packs(tf.constant(IMAGES)))
    assert packs.shape == (8, 8, 12, 9)
    for n, pack in enumerate(packs):
        beside = np.concatenate(list(IMAGES[3 * n : 3 * n + 3]), axis=-1)
        np.testing.assert_array_equal(pack, beside)


def test_a_spectral_norm_bounds_every_kernel():
    """Steps of training end with an update; a pass bounds what it made."""
    model = build(norm="spectral", packing=1)
    fit(model, epochs=20)
    for _ in range(30):
        model.discriminator(IMAGES, training=True)
    wrapped = [
        layer
        for layer in model.discriminator.layers
        if isinstance(layer, keras.layers.SpectralNormalization)
    ]
    assert len(wrapped) == 3  # two convolutions and the logit
    for layer in wrapped:
        weight = np.array(layer.kernel)
        kernel = weight.reshape(-1, weight.shape[-1])
        assert np.linalg.svd(kernel, compute_uv=False)[0] == pytest.approx(1, abs=1e-2)


def test_batch_norm_is_in_all_layers_of_the_discriminator_but_the_first():
    def norms(**changes):
        layers = build(**changes).discriminator.layers
        return [
            layer.name
            for layer in layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]

    assert norms(norm="batch") == ["discriminator_norm_2"]
    assert norms(norm="none") == norms(norm="spectral") == []


def test_images_that_cannot_be_halved_so_often_are_refused():
    spec = {"task": "image_generation", "shape": [8, 10, 1]}
    with pytest.raises(ValueError, match="`filters` of 2 .* of 4. Received: 8 x 10"):
        build(spec=spec)


# the game


def test_the_penalty_is_of_the_slope_over_all_pixels():
    """What the penalty adds to a step's move."""
    model = build(norm="none", packing=2, penalty=0.0, average=0.0)
    model.compile(keras.optimizers.SGD(1.0))
    moved = {}
    start = model.get_weights()
    for penalty in (0.0, 2.0):
        model.set_weights(start)
        model.optimizer.iterations.assign(0)
        model.penalty, model.train_function = penalty, None
        fit(model, size=24)
        moved[penalty] = [np.array(w) for w in model.discriminator.trainable_variables]
    model.set_weights(start)
    weights = model.discriminator.trainable_variables
    real = model._packs(tf.constant(IMAGES))
    with tf.GradientTape() as tape:
        with tf.GradientTape() as slope:
            slope.watch(real)
            told = model.discriminator(real, training=True)
        steep = slope.gradient(told, real)
        mean = tf.reduce_sum(steep**2) / 12  # packs; penalty / 2 is 1
    expected = tape.gradient(mean, weights)
    for none, some, step in zip(moved[0.0], moved[2.0], expected, strict=True):
        added = np.zeros_like(none) if step is None else step  # of the last bias
        np.testing.assert_allclose(none - some, added, atol=1e-5)


def test_the_distance_of_images_is_that_of_their_numbers():
    one, other = IMAGES[:12], IMAGES[12:] / 2
    flat = [some.reshape(12, -1) for some in (one, other)]
    expected = generation_metrics.distance(*flat)
    assert float(distance(one, other)) == pytest.approx(expected, rel=1e-4)


def test_training_goes_on_bit_for_bit_after_a_stop(tmp_path):
    whole, first, second = build(), build(), build(rate=0.5)
    fit(whole, epochs=4)
    fit(first, epochs=2)
    first.save_weights(tmp_path / "stopped.weights.h5")
    second.load_weights(tmp_path / "stopped.weights.h5")
    fit(second, epochs=4, initial_epoch=2)
    for one, other in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("norm", ["none", "batch", "spectral"])
def test_a_model_comes_back_from_its_file(norm, tmp_path):
    model = build(norm=norm)
    fit(model)
    model.save(tmp_path / "model.keras")
    again = models.load("dcgan", "image_generation", tmp_path / "model.keras")
    np.testing.assert_array_equal(again.generate(9, 3), model.generate(9, 3))
    packs = model._packs(tf.constant(IMAGES))
    one, other = model.discriminator(packs), again.discriminator(packs)
    np.testing.assert_array_equal(one, other)


TWO = """
import json, sys
import numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [half, half])
import keras
from engram import distribution, models
form, spec = json.loads(sys.argv[1]), {"task": "image_generation", "shape": [8, 8, 1]}
images = np.random.default_rng(1).random((48, 8, 8, 1)).astype(np.float32)
found = {}
for word in ("one_device", "mirrored"):
    keras.utils.set_random_seed(1)
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(48))).batch(
        16, drop_remainder=True
    )
    with distribution.scope(word):
        model = models.build("dcgan", spec, 0.001, **form)
        found[word] = model.fit(data, epochs=2, shuffle=False, verbose=0).history
    found[word]["made"] = np.array(model.generate(20, 1)).tolist()
    found[word]["replicas"] = model.distribute_strategy.num_replicas_in_sync
print(json.dumps(found))
"""


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_two_devices_play_the_game_of_one(norm):
    """In a process of its own, since TensorFlow fixes its devices as it starts."""
    done = subprocess.run(
        [sys.executable, "-c", TWO, json.dumps(FORM | {"norm": norm})],
        capture_output=True,
        text=True,
        env=toy.environment(toy.ROOT),
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    one, two = found["one_device"], found["mirrored"]
    assert (one.pop("replicas"), two.pop("replicas")) == (1, 2)
    for name in ("loss", "discriminator", "real", "fake", "made"):
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=1e-4)


# what is learned


def test_a_game_finds_the_shade_of_the_images():
    """All images are dark on the left and bright on the right."""
    keras.utils.set_random_seed(1)
    images = np.full((256, 8, 8, 1), 0.2, np.float32)
    images[:, :, 4:] = 0.9
    spec = {"task": "image_generation", "shape": [8, 8, 1]}
    form = {"filters": [16, 8], "norm": "none", "penalty": 1.0, "packing": 1}
    model = build(rate=0.002, spec=spec, **form)
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(256)))
    data = data.batch(32, drop_remainder=True)
    model.fit(data, epochs=40, shuffle=False, verbose=0)
    made = model.generate(50, 1)
    assert made[:, :, :4].mean() < 0.4 < 0.7 < made[:, :, 4:].mean()
