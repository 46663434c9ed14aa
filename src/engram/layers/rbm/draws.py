"""Random numbers without a state: the same seed and number give the same draw."""

import math

import tensorflow as tf


def uniform(shape, seed, number, jit_compile, dtype):
    """Returns uniform numbers in [0, 1).

    Args:
        shape: of the result.
        seed: int.
        number: int or int tensor, which draw of this seed.
        jit_compile: bool, whether XLA compiles the caller. On a CPU it needs an algorithm
            by name: with TensorFlow's default it draws a hundred times slower.
        dtype: of the result.
    """
    algorithm = "threefry" if jit_compile else "auto_select"
    both = tf.stack([tf.cast(seed, tf.int64), tf.cast(number, tf.int64)])
    return tf.random.stateless_uniform(shape, both, dtype=dtype, alg=algorithm)


def normal(u1, u2):
    """Returns standard normal numbers from two uniform ones (Box and Muller 1958)."""
    return tf.sqrt(-2 * tf.math.log1p(-u1)) * tf.cos(2 * math.pi * u2)
