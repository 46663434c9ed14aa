"""An autoencoder is the equation, learns, and starts from what its stack computes."""

import keras
import layer_checks
import numpy as np
import pytest
from keras import ops

from engram import models
from engram.layers import RBM
from engram.layers.rbm.linear_code import LinearCode

SPEC = {"task": "reconstruction", "shape": [4, 3, 2], "visible": 24}
PLAIN = {"units": [9, 6], "code": 3, "optimizer": "adam"}


def _build(rate=0.01, **changes):
    keras.utils.set_random_seed(1)
    model = models.build("deep_autoencoder", SPEC, rate, **(PLAIN | changes))
    model.jit_compile = False  # quicker to build than XLA's
    return model


def _rows(count=60):
    """Returns rows of five kinds, each with a stretch of its own that is bright."""
    rows = np.random.default_rng(1).uniform(0, 0.1, (count, 24)).astype(np.float32)
    for n in range(count):
        rows[n, 4 * (n % 5) : 4 * (n % 5) + 4] = 0.95
    return rows


def test_the_layers_narrow_to_the_code_and_widen_again():
    model = _build()
    names = ["row", "hidden_1", "hidden_2", "code", "visible_3", "visible_2", "visible_1"]
    assert [layer.name for layer in model.layers] == names
    widths = [layer.units for layer in model.layers[1:]]
    assert widths == [9, 6, 3, 6, 9, 24]
    kinds = {layer.name: layer.activation.__name__ for layer in model.layers[1:]}
    assert kinds.pop("code") == "linear" and set(kinds.values()) == {"sigmoid"}
    assert model.input_shape == model.output_shape == (None, 24)


def test_the_reconstruction_is_the_equation():
    model, h = _build(), _rows().astype(float)
    for layer in model.layers[1:]:
        kernel, bias = (one.astype(float) for one in layer.get_weights())
        h = h @ kernel + bias
        h = h if layer.name == "code" else 1 / (1 + np.exp(-h))
    np.testing.assert_allclose(model(_rows()), h, rtol=0, atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_a_pixel():
    model, rows = _build(), _rows()
    y = model.predict(rows, verbose=0).astype(float)
    expected = -(rows * np.log(y) + (1 - rows) * np.log1p(-y)).mean()
    assert model.evaluate(rows, rows, verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_loss_and_its_gradient_come_from_logits(jit_compile):
    # a chance of 1 in float32: from chances, the loss would be cut at 16 nats
    model, rows = _build(1.0, optimizer="sgd"), np.zeros((2, 24), np.float32)
    model.jit_compile = jit_compile
    last = model.get_layer("visible_1")
    last.set_weights([np.zeros((9, 24)), np.full(24, 100.0)])
    assert model.evaluate(rows, rows, verbose=0) == pytest.approx(100.0)
    model.fit(rows, rows, epochs=1, verbose=0)
    bias = last.get_weights()[1]
    np.testing.assert_allclose(bias, 100 - 1 / 24, atol=1e-4)  # sigmoid - target is 1


@pytest.mark.parametrize(("word", "rate"), [("sgd", 1.0), ("adam", 0.02)])
def test_fitting_halves_the_squared_error(word, rate):
    model, rows = _build(rate, optimizer=word), _rows()

    def error():
        return ((model.predict(rows, verbose=0) - rows) ** 2).sum(axis=1).mean()

    before = error()
    model.fit(rows, rows, batch_size=10, epochs=150, verbose=0)
    assert error() < before / 2


def test_another_optimizer_is_refused():
    with pytest.raises(ValueError, match="'sgd' or 'adam'. Received: 'rmsprop'"):
        _build(optimizer="rmsprop")


def test_every_weight_takes_part():
    layer_checks.check_gradients(_build(), _rows())


def test_a_model_comes_back_from_its_file_with_equal_reconstructions(tmp_path):
    model = _build()
    model.save(tmp_path / "model.keras")
    path = tmp_path / "model.keras"
    again = models.load("deep_autoencoder", "reconstruction", path)
    np.testing.assert_array_equal(again(_rows()), ops.convert_to_numpy(model(_rows())))


# --- from a stack ---------------------------------------------------------------------


def _stack(folder, units=(9, 6), code=3, visible="bernoulli"):
    """Saves a stack of RBMs of chance, and a code unless it is 0; returns its layers."""
    kinds = [visible, *["bernoulli"] * (len(units) - 1)]
    pairs = enumerate(zip(units, kinds, strict=True))
    machines = [RBM(size, kind, seed=n) for n, (size, kind) in pairs]
    rows = _rows()
    for machine in machines:
        machine.adapt(rows)
        machine.kernel.assign(10 * machine.kernel)
        rows = ops.convert_to_numpy(machine(rows))
    top = [LinearCode(code, name="code")] if code else []
    for layer in top:
        layer.adapt(rows)
    keras.Sequential([keras.Input((24,)), *machines, *top]).save(folder / "stack.keras")
    return [*machines, *top]


def test_a_net_that_starts_from_a_stack_computes_it_up_and_down(tmp_path):
    layers, model, rows = _stack(tmp_path), _build(), _rows()
    models.start("deep_autoencoder", model, tmp_path / "stack.keras")
    code = keras.Sequential(layers)(rows)
    found = keras.Model(model.input, model.get_layer("code").output)(rows)
    np.testing.assert_allclose(found, code, rtol=0, atol=1e-6)
    down = code
    for layer in reversed(layers):
        down = layer.visible_mean(down)
    np.testing.assert_allclose(model(rows), down, rtol=0, atol=1e-6)


def test_a_start_from_a_stack_goes_on_learning(tmp_path):
    _stack(tmp_path)
    model, rows = _build(), _rows()
    models.start("deep_autoencoder", model, tmp_path / "stack.keras")
    before = model.evaluate(rows, rows, verbose=0)
    weights = [weight.numpy() for weight in model.weights]
    model.fit(rows, rows, batch_size=10, epochs=3, verbose=0)
    assert model.evaluate(rows, rows, verbose=0) < before
    for old, new in zip(weights, model.weights, strict=True):
        assert np.any(old != new.numpy())


@pytest.mark.parametrize(
    ("units", "code", "told"),
    [
        ((9, 5), 3, r"'hidden_2' \(9, 6\) sigmoid. Received: \(9, 5\) sigmoid"),
        ((9, 6), 2, r"'code' \(6, 3\) linear. Received: \(6, 2\) linear"),
        ((9, 6), 0, r"'code' \(6, 3\) linear. Received: none"),
        ((9,), 3, r"'hidden_2' \(9, 6\) sigmoid. Received: none"),
        ((9, 6, 4), 3, r"'code' \(6, 3\) linear. Received: \(4, 3\) linear"),
    ],
)
def test_a_stack_of_other_widths_is_refused_and_its_first_other_layer_named(
    tmp_path, units, code, told
):
    _stack(tmp_path, units, code)
    model = _build()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"stack.keras: .* for {told}"):
        models.start("deep_autoencoder", model, tmp_path / "stack.keras")
    for old, same in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, same)  # nothing is half started


def test_a_stack_with_gaussian_visible_units_is_refused(tmp_path):
    _stack(tmp_path, visible="gaussian")
    told = r"'visible_1' \(9, 24\) sigmoid. Received: \(9, 24\) linear"
    with pytest.raises(ValueError, match=told):
        models.start("deep_autoencoder", _build(), tmp_path / "stack.keras")
