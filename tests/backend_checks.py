"""Runs the layers under the backend of Keras at hand, whichever it is.

`python backend_checks.py FOLDER` writes outputs and gradients of every layer to
FOLDER/found.npz, and trains, saves and reloads a model. `test_backends.py` compares them
with TensorFlow's.
"""

import sys

import keras
import numpy as np
import stlm_equations as equations
from attention_equations import FORMS
from keras import ops

from engram.layers import (
    RBM,
    STLM,
    AttentionRNN,
    BahdanauAttention,
    ConvSTLM2D,
    CrossAttention,
    LuongAttention,
    ParallelSTLM,
    SelfAttention,
)
from engram.layers.rbm.rbm import VISIBLE

B, T, F, U = 3, 5, 4, 2
MASK = np.array([[0, 1, 1, 1, 1], [1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], bool)


def cases():
    """Yields a name, a layer, inputs and a mask."""
    draw = np.random.default_rng(2)
    x, frames, long = (
        draw.normal(size=(B, *size, F)).astype("float32")
        for size in ((T,), (T, 4, 3), (20, 2, 2))
    )
    every = {"return_sequences": True, "return_state": True}
    for k, mode in enumerate(equations.MODES):
        kwargs = {**every, "go_backwards": k in (1, 2, 5)}
        yield f"STLM {mode}", STLM(U, *mode, **kwargs), x, MASK
        if mode[1] == "separate":
            yield f"ParallelSTLM {mode}", ParallelSTLM(U, *mode, **kwargs), x, MASK
    yield "STLM unmasked", STLM(U), x, None
    yield "ParallelSTLM unmasked", ParallelSTLM(U, return_state=True), x, None
    form = {"combine": "weighted", "output_gates": "separate", "padding": "same"}
    yield "ConvSTLM2D", ConvSTLM2D(U, 3, **form, **every), frames, MASK
    yield "ConvSTLM2D in a loop", ConvSTLM2D(U, 1, **every), long, None
    for visible in VISIBLE:
        yield f"RBM {visible}", RBM(U, visible), x[:, 0], None
    for name, form in FORMS.items():
        yield f"SelfAttention, {name}", SelfAttention(4, **form), x, MASK


def outputs_and_gradients():
    """Returns arrays by name: outputs and states, and the gradients of the weights.

    The weights are the same under every backend.
    """
    found = {}
    for name, layer, x, mask in cases():
        layer.build(x.shape)
        equations.draw_weights(layer)
        x = ops.convert_to_tensor(x)
        outputs = layer(x, **_masked(mask))
        for k, one in enumerate(_listed(outputs)):
            found[f"{name}: output {k}"] = ops.convert_to_numpy(one)
        gradients = _gradients(layer, x, mask)
        for weight, one in zip(layer.trainable_weights, gradients, strict=True):
            found[f"{name}: gradient of {weight.name}"] = ops.convert_to_numpy(one)
    return found


def densities():
    """Returns arrays by name: what an RBM says of rows as a density.

    The weights are the same under every backend, but for those that `adapt` sets.
    """
    found = {}
    rows = np.random.default_rng(4).integers(0, 2, (20, F)).astype("float32")
    hidden = rows[:, :U]
    for visible in VISIBLE:
        rbm = RBM(U, visible)
        rbm.build(rows.shape)
        equations.draw_weights(rbm)
        for when in ("drawn", "adapted"):
            found |= {
                f"RBM {visible} {when}: {name}": ops.convert_to_numpy(one)
                for name, one in {
                    "energy": rbm.energy(rows, hidden),
                    "free energy": rbm.free_energy(rows),
                    "reconstruction": rbm.reconstruct(rows),
                }.items()
            }
            rbm.adapt(rows)
        drawn = ops.convert_to_numpy(rbm.sample(rows, 2))
        assert np.isfinite(drawn).all() and np.any(drawn != rows)
    return found


def _masked(mask):
    """Returns the mask as a keyword; none for a layer that takes no mask."""
    return {} if mask is None else {"mask": mask}


def _listed(outputs):
    return outputs if isinstance(outputs, (list, tuple)) else [outputs]


def _loss(outputs):
    return sum(ops.mean(ops.square(one - 0.3)) for one in _listed(outputs))


def _gradients(layer, x, mask):
    """Returns the gradients of the trainable weights, in the backend's own way."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def gradients(x):
            with tf.GradientTape() as tape:
                loss = _loss(layer(x, **_masked(mask)))
            return tape.gradient(
                loss, [weight.value for weight in layer.trainable_weights]
            )

        return gradients(x)
    if keras.backend.backend() == "jax":
        import jax

        fixed = [weight.value for weight in layer.non_trainable_variables]

        def loss(weights, x):
            return _loss(layer.stateless_call(weights, fixed, x, **_masked(mask))[0])

        weights = [weight.value for weight in layer.trainable_weights]
        return jax.jit(jax.grad(loss))(weights, x)
    layer.zero_grad()
    _loss(layer(x, **_masked(mask))).backward()
    return [weight.value.grad for weight in layer.trainable_weights]


def train_save_and_reload(folder):
    """A model of all layers, with dropout and both directions, learns and comes back."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((T, F))
    h = STLM(U, dropout=0.2, recurrent_dropout=0.2, return_sequences=True)(inputs)
    h = keras.layers.Bidirectional(ParallelSTLM(U, return_sequences=True))(h)
    h = keras.layers.Reshape((T, 2, 1, 2 * U))(h)
    h = ConvSTLM2D(U, 2, padding="same", dropout=0.2, recurrent_dropout=0.2)(h)
    h = RBM(8, "gaussian")(keras.layers.Flatten()(h))
    model = keras.Model(inputs, keras.layers.Dense(1)(h))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    draw = np.random.default_rng(3)
    x = draw.normal(size=(32, T, F)).astype("float32")
    y = x[:, :1, 0]
    before, loss = _trained(model), model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, _trained(model), strict=True))
    assert model.evaluate(x, y, verbose=0) < loss
    model.save(f"{folder}/model.keras")
    again = keras.models.load_model(f"{folder}/model.keras")
    wanted = model.predict(x, verbose=0)
    np.testing.assert_allclose(again.predict(x, verbose=0), wanted, rtol=0, atol=1e-6)


def attentions():
    """Returns arrays by name: attention over another sequence, and step by step."""
    draw = np.random.default_rng(5)
    x, memory = (draw.normal(size=(B, n, F)).astype("float32") for n in (T, T + 2))
    cross = CrossAttention(4, kv_heads=2)
    cross.build(x.shape, memory.shape)
    alone = SelfAttention(4, **FORMS["all at once"])
    alone.build(x.shape)
    for layer in (cross, alone):
        equations.draw_weights(layer)
    mask = np.pad(MASK, [(0, 0), (0, 2)])  # (B, T + 2)
    whole = cross(x, memory, memory_mask=mask, return_attention_scores=True)
    _, cache = alone.step(x[:, :3], alone.new_cache(B, T), 0)
    steps, _, seen = alone.step(x[:, 3:], cache, 3, return_attention_scores=True)
    found = {"cross": whole, "steps": (steps, seen)}
    for look in (BahdanauAttention(U), LuongAttention("general")):
        decoder = AttentionRNN(keras.layers.GRUCell(U), look)
        decoder.build(x.shape, memory.shape)
        equations.draw_weights(decoder)
        told = decoder(x, memory, memory_mask=mask, return_attention_scores=True)
        found[type(look).__name__] = told
    return {
        f"{name}: {what}": ops.convert_to_numpy(one)
        for name, pair in found.items()
        for what, one in zip(("y", "alpha"), pair, strict=True)
    }


def _trained(model):
    """Returns the weights that training changes."""
    return [ops.convert_to_numpy(weight.value) for weight in model.trainable_weights]


if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    found = outputs_and_gradients() | densities() | attentions()
    np.savez(f"{folder}/found.npz", **found)
    train_save_and_reload(folder)
