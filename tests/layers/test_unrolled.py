"""Unrolled into dense layers, a stack computes what its RBMs compute."""

import keras
import numpy as np
import pytest
import rbm_equations as equations

from engram.layers import RBM
from engram.layers.rbm import unrolled

V = 6


def _stack(visible="bernoulli", dtype="float32"):
    """Returns three RBMs, 6-5-4-3, of which no weight is zero."""
    kinds = [visible, "bernoulli", "bernoulli"]
    return [
        equations.draw_weights(RBM(units, kind, dtype=dtype), units + 1, seed=units)
        for units, kind in zip((5, 4, 3), kinds, strict=True)
    ]


def _rows(visible="bernoulli", rows=20):
    draw = np.random.default_rng(2)
    if visible == "bernoulli":
        return draw.integers(0, 2, (rows, V)).astype("float32")
    return draw.normal(size=(rows, V)).astype("float32")


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _upwards(rbms, x):
    """Returns what each RBM of the stack says of the one below, in NumPy."""
    for rbm in rbms:
        w = equations.weights(rbm)
        x = (x - w["visible_offset"]) * np.exp(-w.get("log_variance", 0.0))
        x = _sigmoid(w["hidden_bias"] + x @ w["kernel"])
        yield x


def _downwards(rbms, h):
    """Returns the means of the rows, from the top hidden units, in NumPy."""
    for rbm in reversed(rbms):
        w = equations.weights(rbm)
        drive = w["visible_bias"] + (h - w["hidden_offset"]) @ w["kernel"].T
        h = _sigmoid(drive) if rbm.visible == "bernoulli" else w["visible_offset"] + drive
    return h


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_encoder_computes_what_the_stack_computes(visible, dtype):
    rbms, rows = _stack(visible, dtype), _rows(visible)
    layers = unrolled.encoder(rbms)
    assert [layer.name for layer in layers] == ["hidden_1", "hidden_2", "hidden_3"]
    found = rows
    for layer, wanted in zip(layers, _upwards(rbms, rows), strict=True):
        found = layer(found)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        keras.Sequential(rbms)(rows), wanted, rtol=0, atol=1e-6
    )  # the layers themselves stand in a model as well


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_decoder_leads_from_the_top_to_the_means_of_the_rows(visible, dtype):
    rbms, h = _stack(visible, dtype), equations.states(3)
    layers = unrolled.decoder(rbms)
    assert [layer.name for layer in layers] == ["visible_3", "visible_2", "visible_1"]
    found = keras.Sequential(layers)(h.astype("float32"))
    np.testing.assert_allclose(found, _downwards(rbms, h), rtol=0, atol=1e-6)


def test_encoder_and_decoder_together_reconstruct_as_the_mean_field_does():
    rbms, rows = _stack("gaussian"), _rows("gaussian")
    model = keras.Sequential(unrolled.encoder(rbms) + unrolled.decoder(rbms))
    *_, top = _upwards(rbms, rows)
    np.testing.assert_allclose(model(rows), _downwards(rbms, top), rtol=0, atol=1e-6)
    names = {layer.name for layer in model.layers}
    assert len(names) == 6


def test_one_rbm_unrolled_is_its_reconstruction():
    for visible in ("bernoulli", "gaussian"):
        rbms, rows = _stack(visible)[:1], _rows(visible)
        model = keras.Sequential(unrolled.encoder(rbms) + unrolled.decoder(rbms))
        np.testing.assert_allclose(
            model(rows), rbms[0].reconstruct(rows), rtol=0, atol=1e-6
        )


def test_the_dense_layers_are_copies_that_train_on_their_own():
    rbms, rows = _stack(), _rows()
    before = [rbm.get_weights() for rbm in rbms]
    model = keras.Sequential(unrolled.encoder(rbms))
    model.compile("sgd", "mse")
    model.train_on_batch(rows, rows[:, :3])
    for rbm, weights in zip(rbms, before, strict=True):
        for found, wanted in zip(rbm.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(found, wanted)
