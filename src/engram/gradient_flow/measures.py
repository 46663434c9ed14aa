"""All measures of all layers for one batch, as vectors with a number for each layer.

    gradient    ln |dL/dW|           of all weights of a layer, L the loss of `compile`
    clipped     the same after the optimizer's clipping
    signal      ln of the root mean square of dL/dh, h the layer's output
    mean, std, saturated, dead       of h
    chi         |J_l|_F^2 / outputs  of the layer alone, by Hutchinson's probe
    jacobian    ln |dy/dh|_F         from h to the model's outputs y, for each row

Losses that layers add, such as a penalty on weights, are left out of `L`: they reach a
weight without passing the layers above it.
"""

from typing import Any

import keras
import tensorflow as tf

from engram.gradient_flow import activations, chain_rule, clipping, graph
from engram.gradient_flow.chain_rule import Scaled

NAN = float("nan")


def measure(
    model: keras.Model,
    x,
    y=None,
    training: bool = False,
    seed: int = 1,
    probes: int = 1,
    jacobians: bool = True,
) -> tuple[list[graph.Call], dict[str, tf.Tensor]]:
    """Returns the calls of all layers, and vectors of the measures.

    Args:
        model: a Sequential or Functional model, compiled if `y` is given.
        x: its inputs, a batch.
        y: its targets; None leaves out gradients of the loss.
        training: bool, whether layers behave as in training. Nothing they change about
            themselves is kept.
        seed: int, of the probes.
        probes: int, how many for `chi` and `jacobian`.
        jacobians: bool, whether those two are wanted.
    """
    with keras.StatelessScope(collect_losses=True):
        calls, result = graph.record(model, x, training)
        outputs = [o for o in keras.tree.flatten(result) if o.dtype.is_floating]
        found = {}
        if jacobians:
            found["chi"] = chi(calls, seed, probes)
            found["jacobian"] = jacobian(calls, outputs, seed, probes)
        told = [activations.measures(one.layer, one.outputs[0]) for one in calls]
        for name in ("mean", "std", "saturated", "dead"):
            found[name] = tf.stack([one[name] for one in told])
        if y is not None:
            found |= gradients(model, calls, x, y, result, training)
    return calls, found


def gradients(model, calls, x, y, result, training) -> dict[str, Any]:
    """Returns what the loss asks of every layer: gradient, clipped, signal, cosine."""
    wide = keras.tree.map_structure(lambda o: tf.cast(o, tf.float32), result)
    flat = keras.tree.flatten(wide)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        loss = model.compute_loss(x, y, wide, training=training)
    asked = tape.gradient(loss, flat)
    seeds = [
        (o, chain_rule.scaled(g))
        for o, g in zip(keras.tree.flatten(result), asked, strict=True)
        if g is not None
    ]
    pulled = chain_rule.pull(calls, seeds, weights=True)
    ids = list(pulled.weights)
    raw = [pulled.weights[one] for one in ids]
    left = clipping.clipped(raw, model.optimizer) if raw else []
    after = dict(zip(ids, left, strict=True))
    return {
        "loss": loss,
        "cosine": clipping.cosine(raw, left) if raw else tf.constant(NAN),
        "gradient": tf.stack([_of(one, pulled.weights) for one in calls]),
        "clipped": tf.stack([_of(one, after) for one in calls]),
        "signal": tf.stack([ln_root_mean_square(at) for at in pulled.outputs]),
    }


def chi(calls: list[graph.Call], seed: int, probes: int = 1) -> tf.Tensor:
    """Returns `|J|_F^2 / outputs` of each call by itself, a mean over rows and probes."""
    return tf.stack([_chi(one, seed + n, probes) for n, one in enumerate(calls)])


def _chi(one, seed, probes):
    if not one.inputs:
        return tf.constant(NAN)
    squares = []
    for k in range(probes):
        u: list[Scaled | None] = [
            chain_rule.scaled(chain_rule.signs(y, seed + 10_000 * k)) for y in one.outputs
        ]
        found, log = chain_rule.vjp(one, u, one.inputs)
        there = [
            2 * chain_rule.ln_norm(chain_rule.scaled(g, log))
            for g in found
            if g is not None
        ]
        squares.append(tf.reduce_logsumexp([-1e30, *there]))
    outputs = tf.add_n([tf.cast(tf.size(y), tf.float32) for y in one.outputs])
    return tf.exp(tf.reduce_logsumexp(squares) - tf.math.log(outputs * probes))


def jacobian(calls, outputs, seed: int, probes: int = 1) -> tf.Tensor:
    """Returns `ln |dy/dh|_F` of each call's output `h`, root mean square over rows."""
    rows = tf.math.log(tf.cast(tf.shape(outputs[0])[0], tf.float32))
    found = []
    for k in range(probes):
        seeds = [(o, chain_rule.scaled(chain_rule.signs(o, seed + k))) for o in outputs]
        pulled = chain_rule.pull(calls, seeds)
        found.append(tf.stack([2 * _ln_norm(at) for at in pulled.outputs]))
    return (tf.reduce_logsumexp(found, axis=0) - tf.math.log(float(probes)) - rows) / 2


def ln_root_mean_square(at: list[Scaled | None]) -> tf.Tensor:
    """Returns `ln` of the root mean square of a call's cotangents."""
    sizes = [tf.cast(tf.size(one.value), tf.float32) for one in at if one]
    if not sizes:
        return tf.constant(NAN)
    return _ln_norm(at) - tf.math.log(tf.add_n(sizes)) / 2


def _ln_norm(at: list[Scaled | None]) -> tf.Tensor:
    some = [2 * chain_rule.ln_norm(one) for one in at if one]
    return tf.reduce_logsumexp([chain_rule.NOTHING, *some]) / 2


def _of(one: graph.Call, gradients: dict[int, Scaled]) -> tf.Tensor:
    """Returns `ln |g|` of a call's weights; NaN for a layer that has none to train."""
    if not one.weights:
        return tf.constant(NAN)
    return _ln_norm([gradients.get(id(weight)) for weight in one.weights])
