"""A draw depends on seed and number alone, and has the distribution it says."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from engram.layers.rbm import draws

either_way = pytest.mark.parametrize("jit_compile", [False, True])
SHAPE = (300, 200)


def _uniform(seed, number, jit_compile, dtype="float32"):
    """Returns a draw, in a compiled function as training makes it."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def draw(number):
        return draws.uniform(SHAPE, seed, number, jit_compile, dtype)

    return draw(tf.constant(number, tf.int64)).numpy()


@either_way
def test_seed_and_number_say_what_is_drawn(jit_compile):
    found = _uniform(1, 2, jit_compile)
    np.testing.assert_array_equal(_uniform(1, 2, jit_compile), found)
    for other in (_uniform(1, 3, jit_compile), _uniform(2, 2, jit_compile)):
        assert abs(np.corrcoef(found.ravel(), other.ravel())[0, 1]) < 4 / 60_000**0.5


@either_way
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_draws_are_uniform(jit_compile, dtype):
    found = _uniform(1, 2**40, jit_compile, dtype)  # also late in a long training
    assert found.dtype == dtype
    assert found.min() >= 0 and found.max() < 1
    assert scipy.stats.kstest(found.ravel(), "uniform").pvalue > 1e-3
    rows = found - found.mean(axis=0)
    among = np.corrcoef(rows.T)[np.triu_indices(SHAPE[1], 1)]
    assert np.abs(among).max() < 6 / np.sqrt(SHAPE[0])


def test_two_uniform_draws_make_a_normal_one():
    found = draws.normal(*(_uniform(1, n, False, "float64") for n in (1, 2))).numpy()
    assert scipy.stats.kstest(found.ravel(), "norm").pvalue > 1e-3


def test_the_ends_of_the_uniform_interval_give_finite_normal_numbers():
    below_one = np.float32(1 - 2**-24)
    ends = tf.constant([0.0, below_one], tf.float32)
    assert np.isfinite(draws.normal(ends, ends)).all()
