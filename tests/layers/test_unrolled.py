"""Unrolled into dense layers, a stack computes what its RBMs compute."""

import keras
import numpy as np
import pytest
import rbm_equations as equations
from rbm_stack import draw_rows, sigmoid, stack, upwards

from engram.layers.rbm import unrolled


def _downwards(rbms, h):
    """Returns the means of the rows, from the top hidden units, in NumPy."""
    for rbm in reversed(rbms):
        w = equations.weights(rbm)
        drive = w["visible_bias"] + (h - w["hidden_offset"]) @ w["kernel"].T
        h = sigmoid(drive) if rbm.visible == "bernoulli" else w["visible_offset"] + drive
    return h


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_encoder_computes_what_the_stack_computes(visible, dtype):
    rbms, rows = stack(visible, dtype), draw_rows(visible)
    layers = unrolled.encoder(rbms)
    assert [layer.name for layer in layers] == ["hidden_1", "hidden_2", "hidden_3"]
    found = rows
    for layer, wanted in zip(layers, upwards(rbms, rows), strict=True):
        found = layer(found)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        keras.Sequential(rbms)(rows), wanted, rtol=0, atol=1e-6
    )  # the layers themselves stand in a model as well


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_decoder_leads_from_the_top_to_the_means_of_the_rows(visible, dtype):
    rbms, h = stack(visible, dtype), equations.states(3)
    layers = unrolled.decoder(rbms)
    assert [layer.name for layer in layers] == ["visible_3", "visible_2", "visible_1"]
    found = keras.Sequential(layers)(h.astype("float32"))
    np.testing.assert_allclose(found, _downwards(rbms, h), rtol=0, atol=1e-6)


def test_encoder_and_decoder_together_reconstruct_as_the_mean_field_does():
    rbms, rows = stack("gaussian"), draw_rows("gaussian")
    model = keras.Sequential(unrolled.encoder(rbms) + unrolled.decoder(rbms))
    *_, top = upwards(rbms, rows)
    np.testing.assert_allclose(model(rows), _downwards(rbms, top), rtol=0, atol=1e-6)
    names = {layer.name for layer in model.layers}
    assert len(names) == 6


def test_one_rbm_unrolled_is_its_reconstruction():
    for visible in ("bernoulli", "gaussian"):
        rbms, rows = stack(visible)[:1], draw_rows(visible)
        model = keras.Sequential(unrolled.encoder(rbms) + unrolled.decoder(rbms))
        np.testing.assert_allclose(
            model(rows), rbms[0].reconstruct(rows), rtol=0, atol=1e-6
        )


def test_the_dense_layers_are_copies_that_train_on_their_own():
    rbms, rows = stack(), draw_rows()
    before = [rbm.get_weights() for rbm in rbms]
    model = keras.Sequential(unrolled.encoder(rbms))
    model.compile("sgd", "mse")
    model.train_on_batch(rows, rows[:, :3])
    for rbm, weights in zip(rbms, before, strict=True):
        for found, wanted in zip(rbm.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(found, wanted)
