"""What a layer gives out: its mean and spread, and how much of it is flat.

A number `y = f(z)` is saturated where the slope `f'(z)` is below 5 % of the steepest: no
gradient worth the name passes there. A unit is dead where that holds for every row.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

FLAT = 0.05  # of the steepest slope

# f'(z) as a share of the steepest, told from y = f(z)
SLOPES: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "linear": tf.ones_like,
    "sigmoid": lambda y: 4 * y * (1 - y),
    "tanh": lambda y: 1 - y * y,
    "softsign": lambda y: tf.square(1 - tf.abs(y)),
    "relu": lambda y: tf.cast(y > 0, y.dtype),
    "relu6": lambda y: tf.cast((y > 0) & (y < 6), y.dtype),
    "hard_sigmoid": lambda y: tf.cast((y > 0) & (y < 1), y.dtype),
    "elu": lambda y: tf.minimum(y, 0) + 1,
    "selu": lambda y: tf.where(y > 0, 1.0, 1 + y / (1.0507 * 1.6733)),
}


def measures(layer, output: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns mean, spread, and the shares saturated and dead; NaN where `f` is unknown.

    Args:
        layer: the layer that gave the output; its last axis counts the units.
        output: float tensor `(B, ..., U)`.
    """
    y = tf.cast(output, tf.float32)
    center = tf.reduce_mean(y)
    # not tf.math.reduce_std: its square loses small spreads around large means
    found = {"mean": center, "std": tf.sqrt(tf.reduce_mean(tf.square(y - center)))}
    slope = SLOPES.get(word(layer))
    if slope is None or len(output.shape) < 2:
        return {
            **found,
            "saturated": tf.constant(float("nan")),
            "dead": found["mean"] * float("nan"),
        }
    flat = tf.cast(slope(y) < FLAT, tf.float32)
    every = tf.reduce_min(flat, axis=list(range(len(output.shape) - 1)))  # (U,)
    return {**found, "saturated": tf.reduce_mean(flat), "dead": tf.reduce_mean(every)}


def word(layer) -> str:
    """Returns the name of the function whose values a layer gives out, or ""."""
    if isinstance(layer, keras.layers.ReLU):
        plain = not layer.negative_slope and not layer.threshold
        return {None: "relu", 6: "relu6"}.get(layer.max_value, "") if plain else ""
    if isinstance(layer, keras.layers.RNN):
        return ""  # h is a gate times a function, not a function's value
    if isinstance(layer, keras.layers.ELU):
        return "elu" if layer.alpha == 1 else ""
    return getattr(getattr(layer, "activation", None), "__name__", "")
