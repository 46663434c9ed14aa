"""What an optimizer's clipping leaves of gradients.

    clipnorm          g_i * min(1, c / |g_i|)     each weight by itself: another direction
    global_clipnorm   g * min(1, c / |g|)         all by one factor: the same direction
    clipvalue         min(max(g, -c), c)          each number by itself

Clipping shortens; what has vanished it leaves as it is.
"""

import math

import tensorflow as tf

from engram.gradient_flow.chain_rule import Scaled, aligned, ln_norm


def clipped(gradients: list[Scaled], optimizer) -> list[Scaled]:
    """Returns the gradients as the optimizer of Keras clips them, if it does.

    Args:
        gradients: of all weights.
        optimizer: whose `clipnorm`, `global_clipnorm` or `clipvalue` is taken.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under loss scaling
    if c := optimizer.clipnorm:
        return [
            _by(one, tf.minimum(0.0, math.log(c) - ln_norm(one))) for one in gradients
        ]
    if c := optimizer.global_clipnorm:
        log = tf.minimum(0.0, math.log(c) - ln_norm_of_all(gradients))
        return [_by(one, log) for one in gradients]
    if c := optimizer.clipvalue:
        bounds = [tf.exp(tf.minimum(math.log(c) - one.log, 80.0)) for one in gradients]
        return [
            Scaled(
                tf.clip_by_value(
                    one.value, -tf.cast(b, one.value.dtype), tf.cast(b, one.value.dtype)
                ),
                one.log,
            )
            for one, b in zip(gradients, bounds, strict=True)
        ]
    return gradients


def ln_norm_of_all(gradients: list[Scaled]) -> tf.Tensor:
    """Returns `ln |g|` of the gradients of all weights taken together."""
    return tf.reduce_logsumexp([2 * ln_norm(one) for one in gradients]) / 2


def cosine(some: list[Scaled], others: list[Scaled]) -> tf.Tensor:
    """Returns the cosine of the angle between two lists of gradients."""
    (a, _), (b, _) = aligned(some), aligned(others)

    def dot(a, b):
        pairs = zip(a, b, strict=True)
        return tf.add_n(
            [
                tf.reduce_sum(tf.cast(x, tf.float32) * tf.cast(y, tf.float32))
                for x, y in pairs
            ]
        )

    return dot(a, b) / tf.sqrt(dot(a, a) * dot(b, b))


def _by(one: Scaled, log: tf.Tensor) -> Scaled:
    return Scaled(one.value, one.log + log)
