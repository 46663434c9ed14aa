"""Clipping shortens gradients; by one factor or weight by weight."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engram.gradient_flow import chain_rule, clipping

GRADIENTS = [np.array([[3.0, 4.0]], "float32"), np.array([0.1, -0.2], "float32")]


def clipped(**how):
    raw = [chain_rule.scaled(g) for g in GRADIENTS]
    return raw, clipping.clipped(raw, keras.optimizers.SGD(1.0, **how))


@pytest.mark.parametrize(
    "how", [{}, {"clipnorm": 0.15}, {"global_clipnorm": 2.0}, {"clipvalue": 0.15}]
)
def test_the_optimizer_of_keras_clips_the_same(how):
    weights = [keras.Variable(np.zeros_like(g)) for g in GRADIENTS]
    optimizer = keras.optimizers.SGD(1.0, **how)
    optimizer.apply([tf.constant(g) for g in GRADIENTS], weights)
    for weight, one in zip(weights, clipped(**how)[1], strict=True):
        expected = one.value.numpy() * np.exp(one.log)
        np.testing.assert_allclose(-weight.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("c", [0.5, 100.0])
def test_global_clipping_keeps_the_direction(c):
    raw, left = clipped(global_clipnorm=c)
    assert float(clipping.cosine(raw, left)) == pytest.approx(1, abs=1e-6)
    norm = np.exp(float(clipping.ln_norm_of_all(left)))
    whole = np.sqrt(sum((g**2).sum() for g in GRADIENTS))
    assert norm == pytest.approx(min(whole, c), rel=1e-5)


def test_clipping_each_weight_turns_the_gradient():
    assert float(clipping.cosine(*clipped(clipnorm=0.15))) < 0.99
    assert float(clipping.cosine(*clipped(clipvalue=0.15))) < 0.99


def test_clipping_leaves_what_has_vanished_as_it_is():
    raw = [chain_rule.scaled(g, log) for g, log in zip(GRADIENTS, (0, -300), strict=True)]
    for how in ({"clipnorm": 9.0}, {"global_clipnorm": 9.0}, {"clipvalue": 9.0}):
        left = clipping.clipped(raw, keras.optimizers.SGD(**how))
        for one, same in zip(raw, left, strict=True):
            assert float(chain_rule.ln_norm(one)) == float(chain_rule.ln_norm(same))
