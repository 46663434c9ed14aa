"""The chain rule in log space: products with a model's Jacobian that never underflow.

A cotangent `u` is pulled back through the layers, a tangent `v` is pushed forward:

    pull:  u <- J_l^T u        last layer first         (VJP)
    push:  v <- J_l v          first layer first        (JVP)

Between two layers a vector is `value * e^log`, its largest entry being 1: thirty layers
of sigmoids leave 1e-37 of a squared gradient, float32 ends at 1e-38. What is no number
has an endless logarithm, and what is added to it, too.
"""

import dataclasses
import math
from typing import NamedTuple

import keras
import tensorflow as tf

from engram.gradient_flow import graph
from engram.gradient_flow.graph import Call

NOTHING = -1e30  # the logarithm of nothing; finite, so that differences stay numbers


class Scaled(NamedTuple):
    """A tensor `value * e^log`."""

    value: tf.Tensor
    log: tf.Tensor


def scaled(value, log=0.0) -> Scaled:
    """Returns `value * e^log` with a largest entry of 1."""
    value = tf.convert_to_tensor(value)
    size = tf.reduce_max(tf.abs(tf.cast(value, tf.float32)))
    some = size > 0
    safe = tf.where(some, size, 1.0)
    log = tf.where(some, tf.cast(log, tf.float32) + tf.math.log(safe), NOTHING)
    log = tf.where(tf.math.is_nan(size), math.inf, log)
    return Scaled(value / tf.cast(safe, value.dtype), log)


def ln_norm(one: Scaled) -> tf.Tensor:
    """Returns `ln |value * e^log|`, very negative for nothing."""
    square = tf.reduce_sum(tf.square(tf.cast(one.value, tf.float32)))
    return one.log + tf.math.log(tf.where(square > 0, square, 1.0)) / 2


def plus(a: Scaled | None, b: Scaled) -> Scaled:
    """Returns the sum of both, the first may be missing."""
    if a is None:
        return b
    (x, y), log = aligned([a, b])
    return scaled(x + y, log)


def aligned(those: list[Scaled]) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Returns values that share one logarithm, and that."""
    top = tf.reduce_max([one.log for one in those])
    shares = [tf.exp(one.log - top) for one in those]
    values = [
        one.value * tf.cast(share, one.value.dtype)
        for one, share in zip(those, shares, strict=True)
    ]
    return values, top


@dataclasses.dataclass
class Pulled:
    """What `pull` found.

    Attributes:
        outputs: of each call, the cotangent of each output, or None.
        weights: by the id of a weight, its gradient.
        inputs: by the id of a tensor that no call returned, its cotangent.
    """

    outputs: list[list[Scaled | None]]
    weights: dict[int, Scaled]
    inputs: dict[int, Scaled]


def pull(
    calls: list[Call], seeds: list[tuple[tf.Tensor, Scaled]], weights: bool = False
) -> Pulled:
    """Pulls cotangents back through all calls.

    Args:
        calls: of `graph.record`.
        seeds: tensors that calls returned, and their cotangents.
        weights: whether gradients of weights are wanted, too.
    """
    pending: dict[int, Scaled] = {}
    for tensor, cotangent in seeds:
        pending[id(tensor)] = plus(pending.get(id(tensor)), cotangent)
    outputs: list[list[Scaled | None]] = []
    gradients: dict[int, Scaled] = {}
    for one in reversed(calls):
        at = [pending.pop(id(y), None) for y in one.outputs]
        outputs.append(at)
        if all(cotangent is None for cotangent in at):
            continue
        moved = one.weights if weights else []
        found, log = vjp(one, at, one.inputs + [weight.value for weight in moved])
        places = [(pending, x) for x in one.inputs] + [(gradients, w) for w in moved]
        for (place, of), gradient in zip(places, found, strict=True):
            if gradient is not None:
                place[id(of)] = plus(place.get(id(of)), scaled(gradient, log))
    return Pulled(outputs[::-1], gradients, pending)


def vjp(one: Call, cotangents: list[Scaled | None], sources: list):
    """Returns `J^T u` of one call for each source, or None, and their logarithm."""
    known = [(y, u) for y, u in zip(one.outputs, cotangents, strict=True) if u]
    values, log = aligned([u for _, u in known])
    found = one.tape.gradient(
        [y for y, _ in known],
        sources,
        output_gradients=[
            tf.cast(u, y.dtype) for (y, _), u in zip(known, values, strict=True)
        ],
    )
    return [None if g is None else tf.convert_to_tensor(g) for g in found], log


def push(calls: list[Call], seeds: list[tuple[tf.Tensor, Scaled]]) -> dict[int, Scaled]:
    """Pushes tangents forward; returns by the id of a tensor its tangent."""
    known = {id(tensor): tangent for tensor, tangent in seeds}
    for one in calls:
        if any(id(x) in known for x in one.inputs):
            tangents = [known.get(id(x)) for x in one.inputs]
            for y, tangent in zip(one.outputs, jvp(one, tangents), strict=True):
                known[id(y)] = tangent
    return known


def jvp(one: Call, tangents: list[Scaled | None]) -> list[Scaled]:
    """Returns `J v` of one call for each output; a missing tangent is zero."""
    some = [(x, v) for x, v in zip(one.inputs, tangents, strict=True) if v]
    values, log = aligned([v for _, v in some])
    values = [tf.cast(v, x.dtype) for (x, _), v in zip(some, values, strict=True)]
    primals = [x for x, _ in some]
    with graph.plainly(one.layer):
        with tf.autodiff.ForwardAccumulator(primals, values) as forward:
            result = one.again()
    outputs = [y for y in keras.tree.flatten(result) if y.dtype.is_floating]
    zero = tf.UnconnectedGradients.ZERO
    return [scaled(forward.jvp(y, unconnected_gradients=zero), log) for y in outputs]


def signs(like: tf.Tensor, seed: int) -> tf.Tensor:
    """Returns Hutchinson's probe, signs at random: `E |J^T u|^2 = |J|_F^2`."""
    draw = tf.random.stateless_uniform(tf.shape(like), (seed, 0))
    return tf.cast(tf.where(draw < 0.5, -1.0, 1.0), like.dtype)
