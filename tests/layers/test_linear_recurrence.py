"""The linear recurrence equals a plain loop, and so does its gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engram.layers.stlm.linear_recurrence import linear_recurrence

T, B, N = 6, 2, 3
WAYS = ("eager", "traced", "unknown steps", "scan")


def _drawn(steps=T, dtype="float64"):
    """Returns `decay`, `drive`, `first`."""
    draw = np.random.default_rng(1)
    shapes = [(steps, B, N), (steps, B, N), (B, N)]
    low, high = [0.1, -2, -2], [1.0, 2, 2]
    drawn = map(draw.uniform, low, high, shapes)
    return [tf.constant(one, dtype) for one in drawn]


def _plain(decay, drive, first):
    """Returns the states of a loop written out."""
    found, c = [], first
    for t in range(decay.shape[0]):
        c = decay[t] * c + drive[t]
        found.append(c)
    return tf.stack(found)


def _with_gradients(recurrence, *given):
    with tf.GradientTape() as tape:
        tape.watch(given)
        c = recurrence(*given)
        loss = tf.reduce_sum(tf.square(c - 0.3))
    return [c, *tape.gradient(loss, given)]


@pytest.fixture(params=WAYS)
def found(request, monkeypatch):
    """A function to the states and the gradients, computed by one of the ways."""
    if request.param == "scan":  # what other backends do
        monkeypatch.setattr(keras.backend, "backend", lambda: "another")

    def run(*given):
        return _with_gradients(linear_recurrence, *given)

    if request.param == "unknown steps":
        shapes = [(None, B, N), (None, B, N), (B, N)]
        return tf.function(run, [tf.TensorSpec(shape, "float64") for shape in shapes])
    return tf.function(run) if request.param == "traced" else run


@pytest.mark.parametrize("steps", [1, 2, T])
def test_every_way_equals_a_loop_and_its_gradient(found, steps):
    given = _drawn(steps)
    wanted = _with_gradients(_plain, *given)
    for one, other in zip(found(*given), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_long_sequences_neither_overflow_nor_fade(found):
    decay, drive, first = _drawn(400)
    decay = tf.ones_like(decay)
    c, ddecay, ddrive, dfirst = found(decay, drive, first)
    np.testing.assert_allclose(c[-1], first + tf.reduce_sum(drive, 0), rtol=1e-12)
    np.testing.assert_allclose(ddrive[0], dfirst, rtol=1e-12)
    assert np.isfinite(ddecay).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_dtype_is_kept(dtype):
    for one in _with_gradients(linear_recurrence, *_drawn(dtype=dtype)):
        assert one.dtype == dtype


def test_the_gradient_takes_what_is_asked_by_a_name_as_pytorch_gives_it(monkeypatch):
    kept = {}

    def custom_gradient(run):
        def call(*given):
            c, kept["gradient"] = run(*given)
            return c

        return call

    monkeypatch.setattr(keras.ops, "custom_gradient", custom_gradient)
    given = _drawn()
    asked = tf.cos(linear_recurrence(*given))
    by_name = kept["gradient"](*given, upstream=asked)
    for one, other in zip(by_name, kept["gradient"](asked), strict=True):
        np.testing.assert_array_equal(one, other)
