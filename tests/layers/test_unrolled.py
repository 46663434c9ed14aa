"""Unrolled into dense layers, a stack computes what its RBMs compute."""

import keras
import numpy as np
import pytest
import rbm_equations as equations
from rbm_stack import draw_rows, sigmoid, stack, upwards

from engram.layers.rbm import unrolled
from engram.layers.rbm.linear_code import LinearCode


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


# --- with a linear code on top --------------------------------------------------------


def _coded(dtype="float32"):
    """Returns a stack of three RBMs and a code of two units, and rows."""
    rbms, rows = stack(dtype=dtype), draw_rows(rows=60)
    *_, top = upwards(rbms, rows)
    code = LinearCode(2, dtype=dtype, name="code")
    code.adapt(top)
    return [*rbms, code], rows, top


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_code_on_top_is_a_linear_layer_upwards_and_a_sigmoid_downwards(dtype):
    layers, rows, top = _coded(dtype)
    up, down = unrolled.encoder(layers), unrolled.decoder(layers)
    names = ["hidden_1", "hidden_2", "hidden_3", "code"]
    assert [layer.name for layer in up] == names
    assert [layer.name for layer in down] == [f"visible_{n}" for n in (4, 3, 2, 1)]
    kinds = [layer.activation.__name__ for layer in (*up, *down)]
    assert kinds == [*["sigmoid"] * 3, "linear", *["sigmoid"] * 4]
    code = layers[-1](top.astype(dtype))
    np.testing.assert_allclose(keras.Sequential(up)(rows), code, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        down[0](code), layers[-1].visible_mean(code), rtol=0, atol=1e-6
    )


def test_with_a_code_the_net_computes_what_the_stack_computes_up_and_down():
    layers, rows, top = _coded()
    *rbms, code = layers
    net = keras.Sequential(unrolled.encoder(layers) + unrolled.decoder(layers))
    through = np.asarray(code.visible_mean(code(top.astype("float32"))))
    wanted = _downwards(rbms, through)
    np.testing.assert_allclose(net(rows), wanted, rtol=0, atol=1e-5)
