"""The game of two nets follows its equations, on one device and on two."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from engram import models
from engram.models import generation
from engram.models.generation import Slowed, distance
from engram.tasks import generation_metrics

SPEC = {"task": "generation", "shape": [2]}
FORM = toy.GENERATORS["mlp_gan"] | {"stddev": None}
POINTS = np.random.default_rng(1).normal(size=(24, 2)).astype(np.float32)


def build(rate=0.01, **changes):
    keras.utils.set_random_seed(1)
    return models.build("mlp_gan", SPEC, rate, **(FORM | changes))


def batches(size=8):
    places = np.arange(len(POINTS))
    return tf.data.Dataset.from_tensor_slices((POINTS, places)).batch(
        size, drop_remainder=True
    )


def fit(model, epochs=1, size=8, **kwargs):
    data = batches(size)
    return model.fit(data, epochs=epochs, shuffle=False, verbose=0, **kwargs).history


def softplus(x):
    return np.log1p(np.exp(np.asarray(x, np.float64)))


# the two nets


def test_the_nets_are_their_equations():
    model = build(packing=2, pieces=3)
    numbers = {w.path: np.array(w) for w in model.generator.weights}
    z = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    g = z
    for n in (1, 2):
        g = g @ numbers[f"generator_{n}/kernel"] / np.sqrt(1 + 1e-3)  # mean 0, variance 1
        g = np.maximum(g, 0)
    x = g @ numbers["point/kernel"] + numbers["point/bias"]
    np.testing.assert_allclose(model.generator(z), x, atol=1e-5)
    numbers = {w.path: np.array(w) for w in model.discriminator.weights}
    pack = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    d = pack @ numbers["discriminator_1/kernel"] + numbers["discriminator_1/bias"]
    d = d.reshape(5, 4, 3).max(-1)
    logit = d @ numbers["logit/kernel"] + numbers["logit/bias"]
    np.testing.assert_allclose(model.discriminator(pack), logit, atol=1e-5)


def test_the_published_nets_have_the_published_sizes():
    """Counted by hand of PacGAN's layers; of the generator's, the last has biases."""
    model = build(
        generator=[400] * 4, discriminator=[200] * 3, pieces=5, packing=1, average=0.0
    )
    batch_norm = 4 * 4 * 400
    assert model.generator.count_params() == 2 * 400 + 3 * 400**2 + 802 + batch_norm
    hidden = 3 * 1000 + 2 * (201 * 1000)
    assert model.discriminator.count_params() == hidden + 201


def test_weights_start_as_small_as_is_asked():
    model = build(stddev=0.02, generator=[300], discriminator=[300])
    for net in (model.generator, model.discriminator):
        kernels = [np.array(w) for w in net.weights if w.path.endswith("kernel")]
        spread = np.concatenate([kernel.ravel() for kernel in kernels]).std()
        assert spread == pytest.approx(0.02, rel=0.1)


# the game


@pytest.mark.parametrize("game", ["minimax", "nonsaturating"])
def test_the_losses_of_a_step_are_those_of_the_paper(game):
    """At a rate of nothing the nets stay as they are, and the noise is drawn again."""
    model = build(rate=1e-30, game=game, packing=2, penalty=0.0, average=0.0)
    history = fit(model, size=24)
    place = tf.range(24)
    model.optimizer.iterations.assign(0)
    made = [model.generator(model._noise(place, n), training=True) for n in (0, 1)]
    told, guessed, again = (
        np.array(model.discriminator(np.reshape(one, (12, 4)))) for one in (POINTS, *made)
    )
    expected = softplus(-told).mean() + softplus(guessed).mean()
    assert history["discriminator"][0] == pytest.approx(expected, rel=1e-5)
    loss = {"minimax": -softplus(again).mean(), "nonsaturating": softplus(-again).mean()}
    assert history["loss"][0] == pytest.approx(loss[game], rel=1e-5)
    for name, logits in {"real": told, "fake": guessed}.items():
        assert history[name][0] == pytest.approx(
            (1 / (1 + np.exp(-logits))).mean(), rel=1e-5
        )


@pytest.mark.parametrize("game", ["minimax", "nonsaturating"])
def test_each_net_goes_down_its_own_loss_and_leaves_the_other_alone(game):
    """A step of plain gradient descent, against gradients of NumPy's differences."""
    model = build(game=game, packing=1, penalty=0.5, average=0.0)
    model.compile(keras.optimizers.SGD(1.0))
    before = model.generator.get_weights()
    noises = [np.array(model._drawn([model.seed, n], 24)) for n in (0, 1)]

    def d_loss():
        fake = model.generator(noises[0], training=True)
        with tf.GradientTape() as slope:
            x = tf.constant(POINTS)
            slope.watch(x)
            told = model.discriminator(x)
        steep = np.sum(np.array(slope.gradient(told, x)) ** 2, axis=1).mean()
        guessed = model.discriminator(fake)
        return softplus(-told).mean() + softplus(guessed).mean() + 0.25 * steep

    def g_loss():
        guessed = model.discriminator(model.generator(noises[1], training=True))
        if game == "minimax":
            return -softplus(guessed).mean()
        return softplus(-np.array(guessed)).mean()

    def slope_of(loss, weight):
        start, found = np.array(weight), np.zeros(weight.shape)
        for at in np.ndindex(*start.shape):
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved[at] += sign * 1e-2
                weight.assign(moved)
                ends.append(loss())
            found[at] = (ends[0] - ends[1]) / 2e-2
        weight.assign(start)
        return found

    logit = model.discriminator.get_layer("logit").kernel
    point = model.generator.get_layer("point").kernel
    expected = np.array(logit) - slope_of(d_loss, logit)
    model.generator.set_weights(before)
    fit(model, size=24)
    np.testing.assert_allclose(logit, expected, atol=2e-3)
    after = model.generator.get_weights()
    model.generator.set_weights(before)
    model.generator(noises[0], training=True)  # the moving statistics go on
    expected = np.array(point) - slope_of(g_loss, point)
    model.generator.set_weights(after)
    np.testing.assert_allclose(point, expected, atol=2e-3)


def test_the_discriminator_takes_its_steps_on_shares_of_the_batch():
    model = build(d_steps=3, packing=2, penalty=0.0)
    fit(model, size=12)  # two batches
    assert int(model.optimizer.iterations) == 2
    assert int(model.d_optimizer.iterations) == 6


def test_what_is_seen_of_a_step_is_of_its_last_share():
    model = build(rate=1e-30, d_steps=3, packing=2)
    history = fit(model, size=24)
    told = np.array(model.discriminator(POINTS[2::3].reshape(4, 4)))
    expected = (1 / (1 + np.exp(-told))).mean()
    assert history["real"][0] == pytest.approx(expected, rel=1e-5)


def test_without_an_average_points_are_the_generators_own(tmp_path):
    model = build(average=0.0)
    fit(model)
    z = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(model(z), model.generator(z, training=False))
    model.save(tmp_path / "model.keras")
    again = models.load("mlp_gan", "generation", tmp_path / "model.keras")
    np.testing.assert_array_equal(again.generate(9, 3), model.generate(9, 3))


def test_parameters_are_those_of_the_two_nets():
    counts = {build(average=average).count_params() for average in (0.0, 0.9)}
    model = build()
    nets = model.generator, model.discriminator
    assert counts == {sum(net.count_params() for net in nets)}


def test_the_discriminators_rate_falls_with_the_generators():
    falling = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model = build(rate=falling, d_steps=3)
    for step in range(10):
        expected = float(falling(step))
        for n in range(3):
            rate = float(model.d_optimizer._learning_rate(3 * step + n))
            assert rate == pytest.approx(expected)
    again = Slowed.from_config(model.d_optimizer._learning_rate.get_config())
    assert float(again(7)) == float(falling(2))


@pytest.mark.parametrize(
    ("size", "changes", "parts"),
    [(6, {"packing": 4}, 4), (8, {"packing": 1, "d_steps": 3}, 3)],
)
def test_a_batch_that_cannot_be_shared_is_refused(size, changes, parts):
    with pytest.raises(ValueError, match=f"multiple of {parts}, .* Received: {size} "):
        fit(build(**changes), size=size)


def test_a_held_batch_that_is_no_number_of_packs_is_refused():
    with pytest.raises(ValueError, match="multiple of 2, .* Received: 5 points"):
        fit(build(packing=2), validation_data=batches(5))


def test_batches_of_no_fixed_size_are_refused():
    data = tf.data.Dataset.from_tensor_slices((POINTS, np.arange(24))).batch(8)
    with pytest.raises(ValueError, match="fixed size, .*drop_remainder=True.*TensorSpec"):
        build().fit(data)


@pytest.mark.parametrize(
    ("name", "value"),
    [("game", "zero-sum"), ("packing", 0), ("d_steps", 0), ("average", 1.0)]
    + [("average", -0.1), ("penalty", -1.0)],
)
def test_settings_that_make_no_game_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"`{name}` .* Received: '?{value}"):
        build(**{name: value})


def test_another_batch_size_draws_noise_for_each_of_its_points():
    model, places = build(rate=1e-30, average=0.0, packing=1, penalty=0.0), tf.range(24)
    for size in (8, 12, 24):
        history = fit(model, size=size)
    model.optimizer.iterations.assign(5)  # before the last step: 3 + 2 of them
    made = model.generator(model._noise(places, 0), training=True)
    fake = (1 / (1 + np.exp(-np.array(model.discriminator(made))))).mean()
    assert history["fake"][0] == pytest.approx(fake, rel=1e-5)


def test_the_model_makes_points_with_the_mean_of_the_weights():
    model, known = build(average=0.75), []
    means = [np.array(w) for w in model._own()]

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            known.append([np.array(w) for w in model._own()])

    model.steps_per_execution = 1
    fit(model, callbacks=[Look()])
    assert len(known) == 3
    for weights in known:
        means = [0.75 * m + 0.25 * w for m, w in zip(means, weights, strict=True)]
    for kept, mean in zip(model.averaged, means, strict=True):
        np.testing.assert_allclose(kept, mean, rtol=1e-5, atol=1e-7)
    z = np.ones((3, 2), np.float32)
    assert np.abs(np.array(model(z)) - np.array(model.generator(z))).max() > 1e-6
    model.generator.set_weights(_in_order(model, means))
    np.testing.assert_allclose(model(z), model.generator(z), atol=1e-6)


def _in_order(model, numbers):
    """Returns numbers of `_own` in the order of the generator's `set_weights`."""
    named = {w.path: x for w, x in zip(model._own(), numbers, strict=True)}
    return [named[w.path] for w in model.generator.weights]


def test_held_points_are_compared_by_their_distance():
    model = build()
    seen = model.evaluate(batches(24), verbose=0, return_dict=True)
    noise = np.array(model._drawn([model.seed + 1, 0], 4096))[:24]
    expected = float(distance(tf.constant(POINTS), model(noise)))
    assert seen["loss"] == pytest.approx(expected, rel=1e-5)
    known = generation_metrics.distance(POINTS, np.array(model(noise)))
    assert expected == pytest.approx(known, rel=1e-4)
    assert generation.CLOSEST == generation_metrics.CLOSEST


# files, stops and devices


def test_a_model_comes_back_from_its_file(tmp_path):
    model = build()
    fit(model)
    model.save(tmp_path / "model.keras")
    again = models.load("mlp_gan", "generation", tmp_path / "model.keras")
    np.testing.assert_array_equal(again.generate(50, 3), model.generate(50, 3))
    own = ("game", "packing", "d_steps", "average", "penalty", "seed")
    for key in own:
        assert getattr(again, key) == getattr(model, key)
    pack = POINTS[:4].reshape(2, 4)
    np.testing.assert_array_equal(again.discriminator(pack), model.discriminator(pack))


def test_training_goes_on_bit_for_bit_after_a_stop(tmp_path):
    """Both nets, both optimizers, the mean of the weights, and the noise to come."""
    whole, first, second = build(), build(), build(rate=0.5)
    second.set_weights([weight + 1 for weight in second.get_weights()])
    fit(whole, epochs=4)
    fit(first, epochs=2)
    first.save_weights(tmp_path / "stopped.weights.h5")
    second.load_weights(tmp_path / "stopped.weights.h5")
    assert int(second.d_optimizer.iterations) == 6
    fit(second, epochs=4, initial_epoch=2)
    for one, other in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("optimizer", "d_optimizer"):
        states = [getattr(model, name).variables for model in (whole, second)]
        for one, other in zip(*states, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_file_has_all_that_training_goes_on_with(tmp_path):
    whole, first = build(), build()
    fit(whole, epochs=4)
    fit(first, epochs=2)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    fit(second, epochs=4, initial_epoch=2)
    for one, other in zip(whole.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


TWO = """
import json, sys
import numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [half, half])
import keras
from engram import distribution, models
form, spec = json.loads(sys.argv[1]), {"task": "generation", "shape": [2]}
points = np.random.default_rng(1).normal(size=(96, 2)).astype(np.float32)
found = {}
for word in ("one_device", "mirrored"):
    keras.utils.set_random_seed(1)
    data = tf.data.Dataset.from_tensor_slices((points, np.arange(96))).batch(
        16, drop_remainder=True
    )
    with distribution.scope(word):
        model = models.build("mlp_gan", spec, 0.01, **form)
        found[word] = model.fit(data, epochs=3, shuffle=False, verbose=0).history
    found[word]["made"] = np.array(model.generate(20, 1)).tolist()
    found[word]["replicas"] = model.distribute_strategy.num_replicas_in_sync
print(json.dumps(found))
"""


@pytest.mark.parametrize("game", ["minimax", "nonsaturating"])
def test_two_devices_play_the_game_of_one(game):
    """In a process of its own, since TensorFlow fixes its devices as it starts."""
    form = FORM | {"game": game, "d_steps": 2, "packing": 2}
    done = subprocess.run(
        [sys.executable, "-c", TWO, json.dumps(form)],
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


def test_a_game_finds_where_the_points_are():
    """All points are near (3, -2), the generator begins around (0, 0)."""
    keras.utils.set_random_seed(1)
    points = np.random.default_rng(1).normal((3, -2), 0.1, (256, 2)).astype(np.float32)
    model = build(rate=0.01, generator=[16], discriminator=[16], average=0.9, penalty=1.0)
    data = tf.data.Dataset.from_tensor_slices((points, np.arange(256))).batch(64)
    data = data.map(lambda x, n: (tf.ensure_shape(x, (64, 2)), n))
    assert np.abs(np.array(model.generate(200, 1)).mean(0) - (3, -2)).max() > 1
    model.fit(data, epochs=100, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        np.array(model.generate(200, 1)).mean(0), (3, -2), atol=0.5
    )
