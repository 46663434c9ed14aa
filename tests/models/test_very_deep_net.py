"""A very deep net is its equations, whatever its path, and starts as it is told."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from engram import models

SPEC = {"task": "classification", "shape": [4, 3, 1], "classes": 5}
PLAIN = {
    "depth": 3,
    "width": 6,
    "activation": "tanh",
    "initializer": "glorot_uniform",
    "norm": "none",
    "path": "none",
    "optimizer": "sgd",
    "clipnorm": None,
    "global_clipnorm": None,
}
IMAGES = np.random.default_rng(1).uniform(0, 1, (7, 4, 3, 1)).astype(np.float32)


def _build(**changes):
    keras.utils.set_random_seed(1)
    return models.build("very_deep_net", SPEC, 0.1, **(PLAIN | changes))


def _numbers(model):
    """Returns every weight by its path, with biases that are not 0."""
    draw = np.random.default_rng(2)
    for weight in model.trainable_weights:
        if weight.path.endswith(("bias", "scale")):
            weight.assign(draw.normal(0, 0.3, weight.shape))
    return {w.path: ops.convert_to_numpy(w).astype(float) for w in model.weights}


def _dense(h, name, numbers):
    return h @ numbers[f"{name}/kernel"] + numbers[f"{name}/bias"]


def _hidden(h, n, path, numbers):
    """Returns `h_n` by the docstring."""
    new = np.tanh(_dense(h, f"hidden_{n}", numbers))
    if n == 1 or path == "none":
        return new
    if path == "highway":
        t = 1 / (1 + np.exp(-_dense(h, f"gate_{n}", numbers)))
        return t * new + (1 - t) * h
    a = {"residual": 1, "scaled": 1 / math.sqrt(3)}
    scale = a[path] if path in a else numbers[f"scale_{n}/scale"]
    return h + scale * _dense(np.tanh(h), f"hidden_{n}", numbers)


@pytest.mark.parametrize("path", ["none", "residual", "scaled", "rezero", "highway"])
def test_the_logits_are_the_equation(path):
    model = _build(path=path)
    numbers = _numbers(model)
    h = IMAGES.reshape(len(IMAGES), -1)
    for n in (1, 2, 3):
        h = _hidden(h, n, path, numbers)
    wanted = _dense(h, "logits", numbers)
    np.testing.assert_allclose(model(IMAGES), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("path", ["none", "residual"])
def test_what_is_normalised_has_mean_0_and_variance_1(norm, path):
    model = _build(norm=norm, path=path, width=50)
    for n in (2, 3):
        layer = model.get_layer(f"norm_{n}")
        z = keras.Model(model.input, layer.output)(IMAGES, training=True)
        axis = {"batch": 0, "layer": 1}[norm]
        np.testing.assert_allclose(ops.mean(z, axis), 0, atol=1e-4)
        np.testing.assert_allclose(ops.mean(ops.var(z, axis)), 1, atol=0.1)


@pytest.mark.parametrize("path", ["none", "residual", "scaled", "rezero", "highway"])
def test_without_hidden_layers_it_is_logistic_regression(path):
    weights = _build(depth=0, path=path).weights
    assert [w.path for w in weights] == ["logits/kernel", "logits/bias"]


def test_two_ways_to_clip_are_refused():
    with pytest.raises(ValueError, match="clipnorm"):
        _build(clipnorm=1.0, global_clipnorm=1.0)


def test_a_rezero_net_starts_as_one_layer():
    deep, h = _build(path="rezero", depth=9), _build(depth=1)
    for name in ("hidden_1", "logits"):
        h.get_layer(name).set_weights(deep.get_layer(name).get_weights())
    np.testing.assert_allclose(deep(IMAGES), h(IMAGES), rtol=0, atol=1e-6)


def test_a_highway_starts_as_a_path_with_few_changes():
    gate = _build(path="highway").get_layer("gate_2")
    assert (ops.convert_to_numpy(gate.bias) == -2).all()


STARTS = {
    "glorot_uniform": math.sqrt(2 / 400),
    "he_normal": math.sqrt(2 / 200),
    "lecun_normal": math.sqrt(1 / 200),
    "orthogonal": math.sqrt(1 / 200),
}


@pytest.mark.parametrize("word", STARTS)
def test_kernels_start_with_the_spread_of_their_initializer_and_differ(word):
    model = _build(initializer=word, width=200)
    one, other = (
        ops.convert_to_numpy(model.get_layer(f"hidden_{n}").kernel) for n in (2, 3)
    )
    assert one.std() == pytest.approx(STARTS[word], rel=0.02)
    assert np.abs(one - other).max() > 0.01
    if word == "orthogonal":
        np.testing.assert_allclose(one.T @ one, np.eye(200), atol=1e-4)


@pytest.mark.parametrize("word", ["clipnorm", "global_clipnorm"])
def test_gradients_are_clipped_as_told(word):
    model = _build(**{word: 1e-3})
    before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    model.jit_compile = False
    model.fit(IMAGES, np.arange(7) % 5, batch_size=7, verbose=0)
    steps = [
        np.linalg.norm(ops.convert_to_numpy(w) - b) / 0.1  # the first has no momentum
        for w, b in zip(model.trainable_weights, before, strict=True)
    ]
    longest = max(steps) if word == "clipnorm" else np.linalg.norm(steps)
    assert longest == pytest.approx(1e-3, rel=1e-3)


def test_it_comes_back_from_its_file(tmp_path):
    model = _build(path="rezero", norm="batch")
    _numbers(model)
    model.save(tmp_path / "model.keras")
    again = models.load("very_deep_net", "classification", tmp_path / "model.keras")
    np.testing.assert_array_equal(model(IMAGES), again(IMAGES))
