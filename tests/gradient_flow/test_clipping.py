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


@pytest.mark.parametrize("how", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping_that_acts_brings_nothing_back_that_has_vanished(how):
    """One weight has a gradient of norm 5, the other of 0.2 e^-300."""
    raw = [chain_rule.scaled(g, log) for g, log in zip(GRADIENTS, (0, -300), strict=True)]
    left = clipping.clipped(raw, keras.optimizers.SGD(**{how: 0.15}))
    (near, far), (near_left, far_left) = (
        [float(chain_rule.ln_norm(one)) for one in some] for some in (raw, left)
    )
    assert near_left < near - 3  # it acts
    if how == "global_clipnorm":  # all by one factor, so the first to the last as before
        assert far_left - near_left == pytest.approx(far - near, abs=1e-4)
    else:
        assert far_left == far
