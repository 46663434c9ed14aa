"""The convolutional nets are their equations, and learn what stands where in an image."""

import keras
import numpy as np
import pytest

from engram import models

SPEC = {"task": "classification", "shape": [7, 6, 2], "classes": 5}
CNN = {
    "filters": [3, 4],
    "kernel_size": 3,
    "units": 6,
    "flip": True,
    "shift": 0.2,
    "dropout": 0.5,
    "optimizer": "adam",
}
RESIDUAL = {
    "filters": [4, 6],
    "blocks": 2,
    "flip": True,
    "shift": 0.2,
    "dropout": 0.5,
    "weight_decay": 0.01,
    "optimizer": "sgd",
}
IMAGES = np.random.default_rng(1).uniform(0, 1, (5, 7, 6, 2)).astype(np.float32)


def _build(word, spec=SPEC, rate=0.1, **changes):
    keras.utils.set_random_seed(1)
    form = CNN if word == "cnn" else RESIDUAL
    return models.build(word, spec, rate, **(form | changes))


def _numbers(model):
    """Returns every weight by its path, none of them as it starts."""
    draw = np.random.default_rng(2)
    for weight in model.weights:
        if weight.path.endswith("variance"):
            weight.assign(draw.uniform(0.5, 2, weight.shape))
        elif "seed" not in weight.path:
            weight.assign(draw.normal(0, 0.4, weight.shape))
    return {weight.path: np.array(weight) for weight in model.weights}


def _convolved(x, kernel, strides=1):
    """Returns the convolution with zeros around, as TensorFlow places them."""
    size = kernel.shape[0]
    out = [-(-side // strides) for side in x.shape[1:3]]
    pads = [
        max((n - 1) * strides + size - side, 0)
        for n, side in zip(out, x.shape[1:3], strict=True)
    ]
    x = np.pad(x, [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    y = np.zeros((len(x), *out, kernel.shape[-1]))
    for i in range(out[0]):
        for j in range(out[1]):
            at = x[:, i * strides :, j * strides :][:, :size, :size]
            y[:, i, j] = np.einsum("bhwf,hwfk->bk", at, kernel)
    return y


def _pooled(x):
    high, wide = (-(-side // 2) for side in x.shape[1:3])
    rows = [
        [x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2)) for j in range(wide)]
        for i in range(high)
    ]
    return np.stack([np.stack(row, 1) for row in rows], 1)


def test_the_logits_of_the_textbook_are_the_equation():
    model = _build("cnn")
    numbers = _numbers(model)
    h = IMAGES
    for n in (1, 2):
        name = f"convolution_{n}"
        z = _convolved(h, numbers[f"{name}/kernel"]) + numbers[f"{name}/bias"]
        h = _pooled(np.maximum(z, 0))
    h = h.reshape(len(h), -1) @ numbers["dense/kernel"] + numbers["dense/bias"]
    wanted = np.maximum(h, 0) @ numbers["logits/kernel"] + numbers["logits/bias"]
    np.testing.assert_allclose(model(IMAGES), wanted, rtol=0, atol=1e-4)


def test_the_logits_of_residual_blocks_are_the_equation():
    model = _build("residual_cnn")
    numbers = _numbers(model)

    def bent(h, name):
        mean, variance, beta, gamma = (
            numbers[f"norm_{name}/{key}"]
            for key in ("moving_mean", "moving_variance", "beta", "gamma")
        )
        return np.maximum((h - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)

    h = _convolved(IMAGES, numbers["convolution_first/kernel"])
    for n, strides in zip((1, 2, 3, 4), (1, 1, 2, 1), strict=True):
        g = bent(h, f"{n}a")
        if strides == 2:
            h = _convolved(g, numbers[f"convolution_short_{n}/kernel"], 2)
        new = _convolved(g, numbers[f"convolution_{n}a/kernel"], strides)
        h = h + _convolved(bent(new, f"{n}b"), numbers[f"convolution_{n}b/kernel"])
    h = bent(h, "last").mean((1, 2))
    wanted = h @ numbers["logits/kernel"] + numbers["logits/bias"]
    np.testing.assert_allclose(model(IMAGES), wanted, rtol=0, atol=1e-4)


def test_weights_decay_but_for_biases_and_those_of_norms():
    model = _build("residual_cnn", flip=False, shift=0)
    how = model.optimizer
    decays = {v.path for v in model.trainable_variables if how._use_weight_decay(v)}
    kernels = {v.path for v in model.trainable_variables if v.path.endswith("kernel")}
    assert decays == kernels


@pytest.mark.parametrize(("filters", "blocks", "parameters"), [([16, 32, 64], 1, 77_562)])
def test_the_small_net_of_the_study_has_less_than_100_000_parameters(
    filters, blocks, parameters
):
    spec = {"task": "classification", "shape": [28, 28, 1], "classes": 10}
    model = _build("residual_cnn", spec, filters=filters, blocks=blocks)
    moving = sum(int(np.prod(w.shape)) for w in model.non_trainable_weights)
    assert model.count_params() - moving == parameters


@pytest.mark.parametrize("word", ["cnn", "residual_cnn"])
def test_a_cross_is_told_from_a_circle_wherever_it_is(word):
    draw = np.random.default_rng(3)
    cross = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], np.float32)
    shapes = (cross, 1 - cross)
    y = draw.integers(0, 2, 300)
    x = np.zeros((300, 9, 9, 1), np.float32)
    for n, label in enumerate(y):
        i, j = draw.integers(0, 7, 2)
        x[n, i : i + 3, j : j + 3, 0] = shapes[label]
    spec = {"task": "classification", "shape": [9, 9, 1], "classes": 2}
    rate = 0.01 if word == "cnn" else 0.05
    model = _build(word, spec, rate, dropout=0.0, shift=0.1)
    model.fit(x[:200], y[:200], 20, epochs=15, verbose=0)
    told = model.predict(x[200:], verbose=0).argmax(1)
    assert (told == y[200:]).mean() > 0.9


@pytest.mark.parametrize("word", ["cnn", "residual_cnn"])
def test_a_net_is_saved_and_loaded_as_it_is(word, tmp_path):
    model = _build(word)
    _numbers(model)
    model.save(tmp_path / "model.keras")
    again = models.load(word, "classification", tmp_path / "model.keras")
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
