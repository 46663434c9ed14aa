"""A deep net is the dense layers that it is told to be, learns, and comes back."""

import keras
import layer_checks
import numpy as np
import pytest
from keras import ops

from engram import models
from engram.param_forms.models import DeepNet

SPEC = {"task": "classification", "shape": [4, 3, 2], "classes": 5}
PLAIN = {
    "units": [6, 7],
    "activation": "tanh",
    "optimizer": "sgd",
    "dropout": 0,
    "hidden_rate": 1,
    "logits": "glorot_uniform",
}


def _build(rate=0.1, **changes):
    keras.utils.set_random_seed(1)
    model = models.build("deep_net", SPEC, rate, **(PLAIN | changes))
    model.jit_compile = False  # quicker to build than XLA's
    return model


def _images(count=40):
    """Returns images of five kinds, each with a pixel of its own that is bright."""
    classes = np.arange(count) % 5
    images = np.random.default_rng(1).uniform(0, 0.2, (count, 24))
    images[np.arange(count), classes] = 1
    return images.reshape(count, 4, 3, 2).astype(np.float32), classes


def test_the_layers_have_their_names_and_widths():
    model = _build(units=[6, 7, 8])
    names = [layer.name for layer in model.layers]
    assert names == ["images", "pixels", "hidden_1", "hidden_2", "hidden_3", "logits"]
    shapes = [weight.shape for weight in model.weights]
    assert shapes == [(24, 6), (6,), (6, 7), (7,), (7, 8), (8,), (8, 5), (5,)]
    assert model.input_shape == (None, 4, 3, 2) and model.output_shape == (None, 5)
    assert model.name == "deep_net"


ACTIVATIONS = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_the_logits_are_the_equation(word):
    model, (images, _) = _build(activation=word), _images()
    weights = [ops.convert_to_numpy(one).astype(float) for one in model.weights]
    h = images.reshape(len(images), -1)
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        h = ACTIVATIONS[word](h @ kernel + bias)
    np.testing.assert_allclose(model(images), h @ weights[-2] + weights[-1], atol=1e-5)


def test_weights_start_uniform_within_glorots_bound_and_biases_at_zero():
    model = _build(units=[300, 300])
    kernel, bias = (
        ops.convert_to_numpy(one) for one in model.get_layer("hidden_2").weights
    )
    bound = np.sqrt(6 / 600)
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    assert not bias.any()


def test_logits_may_start_at_zero_and_then_learn():
    model, (images, classes) = _build(logits="zeros"), _images()
    assert not model.predict(images, verbose=0).any()
    hidden = ops.convert_to_numpy(_build().get_layer("hidden_2").kernel)
    np.testing.assert_array_equal(model.get_layer("hidden_2").kernel, hidden)
    before = model.evaluate(images, classes, verbose=0)
    model.fit(images, classes, batch_size=8, epochs=15, verbose=0)
    assert model.evaluate(images, classes, verbose=0) < before / 2


def test_the_loss_is_the_mean_cross_entropy_of_the_logits():
    model, (images, classes) = _build(), _images()
    logits = model.predict(images, verbose=0)
    chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -chances[np.arange(40), classes].mean()
    assert model.evaluate(images, classes, verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("word", "kind"), [("sgd", "SGD"), ("adam", "Adam")])
def test_fitting_at_least_halves_the_loss(word, kind):
    model, (images, classes) = (
        _build({"sgd": 0.1, "adam": 0.01}[word], optimizer=word),
        _images(),
    )
    assert type(model.optimizer).__name__ == kind
    before = model.evaluate(images, classes, verbose=0)
    model.fit(images, classes, batch_size=8, epochs=15, verbose=0)
    assert model.evaluate(images, classes, verbose=0) < before / 2


def test_sgd_has_a_momentum():
    assert _build().optimizer.momentum == 0.9


def test_another_optimizer_is_refused():
    with pytest.raises(ValueError, match="'sgd' or 'adam'. Received: 'rmsprop'"):
        _build(optimizer="rmsprop")


@pytest.mark.parametrize("word", ["sgd", "adam"])
def test_hidden_layers_take_their_share_of_a_step_and_the_logits_all_of_it(word):
    images, classes = _images()
    moved = {}
    for share in (1, 0.1):
        model = _build(0.01, optimizer=word, hidden_rate=share)
        before = {one.path: ops.convert_to_numpy(one) for one in model.weights}
        model.fit(images, classes, batch_size=40, verbose=0)  # one step
        moved[share] = {
            one.path: ops.convert_to_numpy(one) - before[one.path]
            for one in model.weights
        }
    for path, whole in moved[1].items():
        share = 0.1 if path.startswith("hidden_") else 1
        assert np.abs(whole).max() > 1e-5
        np.testing.assert_allclose(moved[0.1][path], share * whole, atol=1e-7)


def test_another_rate_of_hidden_layers_comes_back_from_a_file(tmp_path):
    model, (images, classes) = (
        _build(0.01, optimizer="adam", hidden_rate=0.1),
        _images(),
    )
    model.fit(images, classes, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True).optimizer
    assert again.get_config() == model.optimizer.get_config()
    assert again.hidden_rate == 0.1


def test_dropout_leaves_out_its_share_in_training_alone():
    model, (images, _) = (
        _build(units=[500, 500], dropout=0.3, activation="sigmoid"),
        _images(),
    )
    names = [layer.name for layer in model.layers if "dropout" in layer.name]
    assert names == ["dropout_1", "dropout_2"]
    h = keras.Model(model.input, model.get_layer("dropout_2").output)
    kept = ops.convert_to_numpy(h(images, training=True)) > 0
    assert kept.mean() == pytest.approx(0.7, abs=0.02)
    assert (ops.convert_to_numpy(h(images)) > 0).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("units", []),
        ("units", [6, 0]),
        ("units", 6),
        ("activation", "softmax"),
        ("optimizer", "SGD"),
        ("dropout", 1),
        ("hidden_rate", 0),
        ("hidden_rate", 2),
        ("logits", "ones"),
    ],
)
def test_arguments_that_make_no_net_are_refused(key, value):
    DeepNet.model_validate(PLAIN)
    with pytest.raises(ValueError, match=key):
        DeepNet.model_validate(PLAIN | {key: value})


def test_every_weight_takes_part():
    layer_checks.check_gradients(_build(), _images()[0])


@pytest.mark.parametrize("dropout", [0, 0.5])
def test_a_model_comes_back_from_its_file_with_equal_logits(dropout, tmp_path):
    model, (images, _) = _build(dropout=dropout), _images()
    model.save(tmp_path / "model.keras")
    again = models.load("deep_net", "classification", tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), ops.convert_to_numpy(model(images)))


# --- from a stack ---------------------------------------------------------------------


def _stack(folder, units):
    from engram.layers import RBM

    machines = [RBM(size, seed=n) for n, size in enumerate(units)]
    stack = keras.Sequential([keras.Input((24,)), *machines])
    machines[0].adapt(_images()[0].reshape(40, 24))
    stack.save(folder / "stack.keras")
    return stack


def test_a_net_that_starts_from_a_stack_has_its_hidden_layers(tmp_path):
    stack, model = _stack(tmp_path, [6, 7]), _build(activation="sigmoid")
    logits = model.get_layer("logits").get_weights()
    models.start("deep_net", model, tmp_path / "stack.keras")
    images, _ = _images()
    hidden = keras.Model(model.input, model.get_layer("hidden_2").output)
    expected = stack(images.reshape(40, 24))
    np.testing.assert_allclose(hidden(images), expected, rtol=0, atol=1e-6)
    for before, after in zip(
        logits, model.get_layer("logits").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_layers_above_a_lower_stack_stay_as_they_are(tmp_path):
    _stack(tmp_path, [6])
    model = _build(activation="sigmoid")
    above = model.get_layer("hidden_2").get_weights()
    models.start("deep_net", model, tmp_path / "stack.keras")
    for before, after in zip(
        above, model.get_layer("hidden_2").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_of_a_higher_stack_the_lowest_machines_are_used(tmp_path):
    stack, model = _stack(tmp_path, [6, 7, 8]), _build(activation="sigmoid")
    models.start("deep_net", model, tmp_path / "stack.keras")
    for n, machine in enumerate(stack.layers[:2], start=1):
        kernel = model.get_layer(f"hidden_{n}").kernel
        np.testing.assert_array_equal(kernel, machine.kernel)


@pytest.mark.parametrize("units", [[5], [6, 8], [6, 8, 9]])
def test_a_stack_of_another_form_is_refused(tmp_path, units):
    _stack(tmp_path, units)
    with pytest.raises(ValueError, match=r"stack.keras.*\(24, 6\).*Received: \[\(24, "):
        models.start("deep_net", _build(activation="sigmoid"), tmp_path / "stack.keras")
