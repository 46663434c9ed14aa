"""Products with Jacobians: adjoint, exact where that can be told, never underflowing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from engram.gradient_flow import chain_rule, graph, spectrum
from engram.layers import STLM, SelfAttention


def normal(*shape):
    return tf.constant(np.random.normal(size=shape).astype("float32"))


LAYERS = {
    "dense": (lambda: keras.layers.Dense(7, "tanh"), (3, 5), {}),
    "conv": (lambda: keras.layers.Conv2D(4, 3, activation="relu"), (2, 6, 6, 3), {}),
    "batch norm": (keras.layers.BatchNormalization, (16, 5), {"training": True}),
    "attention": (lambda: SelfAttention(2, 4), (2, 5, 8), {}),
    "gru": (lambda: keras.layers.GRU(6), (2, 7, 3), {}),
    "lstm": (lambda: keras.layers.LSTM(6, return_sequences=True), (2, 7, 3), {}),
    "stlm": (lambda: STLM(4), (2, 7, 3), {}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_push_and_a_pull_are_adjoint(name):
    make, shape, how = LAYERS[name]
    layer = make()
    layer(normal(*shape))
    with keras.StatelessScope():
        one, _ = graph.call(layer, normal(*shape), **how)
        u, v = normal(*one.outputs[0].shape), normal(*shape)
        (pulled,), log = chain_rule.vjp(one, [chain_rule.scaled(u)], one.inputs)
        (pushed,) = chain_rule.jvp(one, [chain_rule.scaled(v)])
    there = float(tf.reduce_sum(u * pushed.value) * tf.exp(pushed.log))
    back = float(tf.reduce_sum(pulled * v) * tf.exp(log))
    size = float(tf.norm(u) * tf.norm(pushed.value) * tf.exp(pushed.log))
    assert abs(there - back) < 1e-5 * size


def net(depth=10, width=128, scale=2.0, activation="relu"):
    model = keras.Sequential([keras.Input((width,))])
    for _ in range(depth):
        start = keras.initializers.RandomNormal(stddev=(scale / width) ** 0.5)
        model.add(keras.layers.Dense(width, activation, kernel_initializer=start))
    return model


def products(calls, x, y):
    def push(v):
        return chain_rule.push(calls, [(x, v)])[id(y)]

    def pull(u):
        return chain_rule.pull(calls, [(y, u)]).inputs[id(x)]

    return push, pull


def test_singular_values_are_those_of_the_written_out_jacobian():
    calls, y = graph.record(net(), normal(1, 128))
    x = calls[0].inputs[0]
    push, pull = products(calls, x, y)
    rows, _ = graph.record(net_of(calls), tf.repeat(x, 128, 0))
    seed = chain_rule.scaled(tf.eye(128))
    whole = chain_rule.pull(rows, [(rows[-1].outputs[0], seed)]).inputs
    (jacobian,) = whole.values()
    values = np.linalg.svd(jacobian.value.numpy().astype("float64"), compute_uv=False)
    top = spectrum.power_iteration(push, pull, normal(1, 128))
    expected = np.log(values[0]) + float(jacobian.log)
    assert top == pytest.approx(expected, abs=1e-3)
    exact, _ = spectrum.exact(jacobian.value.numpy(), float(jacobian.log))
    assert exact == pytest.approx(expected, abs=1e-5)


def net_of(calls):
    return keras.Sequential([keras.Input((128,)), *(one.layer for one in calls)])


def test_the_median_of_a_wide_layer_by_quadrature():
    layer = keras.layers.Dense(300, kernel_initializer="random_normal")
    x = normal(1, 400)
    one, y = graph.call(layer, x)
    push, pull = products([one], one.inputs[0], y)
    values = np.linalg.svd(layer.kernel.numpy(), compute_uv=False)
    found = spectrum.median(push, pull, x, y)
    assert found == pytest.approx(np.log(np.median(values)), abs=0.05)
    layer.kernel.assign(layer.kernel[:, :1] * np.ones((1, 300)))  # of rank one
    one, y = graph.call(layer, x)
    assert np.isnan(spectrum.median(*products([one], one.inputs[0], y), x, y))


def test_a_hundred_layers_of_sigmoids_do_not_underflow():
    calls, y = graph.record(net(100, 32, 1.0, "sigmoid"), normal(4, 32))
    u = chain_rule.scaled(chain_rule.signs(y, 1))
    (found,) = chain_rule.pull(calls, [(y, u)]).inputs.values()
    ratio = 2 * float(chain_rule.ln_norm(found) - chain_rule.ln_norm(u))
    assert ratio == pytest.approx(100 * np.log(0.0557), rel=0.05)
    pushed = chain_rule.push(calls, [(calls[0].inputs[0], u)])[id(y)]
    assert -330 < 2 * float(chain_rule.ln_norm(pushed)) < -230


def test_sums_keep_what_is_small_beside_nothing():
    small, nothing = chain_rule.scaled([1.0, -2.0], -500.0), chain_rule.scaled([0.0, 0.0])
    for pair in ((small, nothing), (nothing, small)):
        found = chain_rule.plus(*pair)
        assert float(chain_rule.ln_norm(found)) == pytest.approx(-500 + np.log(5) / 2)
    assert float(chain_rule.ln_norm(chain_rule.plus(nothing, nothing))) < -1e29


def test_gradients_are_those_of_the_whole_tape():
    shared = keras.layers.Dense(5, "tanh")
    a, b = keras.Input((5,)), keras.Input((5,))
    merged = keras.layers.Add()([shared(a), shared(shared(b)), a])
    model = keras.Model([a, b], keras.layers.Dropout(0.5)(merged) * merged)
    given = [normal(6, 5), normal(6, 5)]
    calls, y = graph.record(model, given)
    seeds = [(y, chain_rule.scaled(tf.ones_like(y)))]
    pulled = chain_rule.pull(calls, seeds, weights=True)
    with tf.GradientTape() as tape:
        tape.watch(given)
        total = tf.reduce_sum(model(given))
    weights = [weight.value for weight in shared.trainable_variables]
    expected = tape.gradient(total, weights + given)
    found = [pulled.weights[id(weight)] for weight in shared.trainable_variables]
    found += list(pulled.inputs.values())
    sums = sorted(float(tf.norm(one.value) * tf.exp(one.log)) for one in found)
    assert sums == pytest.approx(
        sorted(float(tf.norm(one)) for one in expected), rel=1e-5
    )
