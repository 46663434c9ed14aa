"""Positions are added as their equations say, from any start, under any length."""

import keras
import layer_checks
import numpy as np
import pytest
import tensorflow as tf
import transformer_equations as equations
from keras import ops

from engram.layers.attention.learned_positions import LearnedPositions
from engram.layers.attention.sinusoidal_positions import SinusoidalPositions

B, T, F = 2, 5, 6
LAYERS = {
    "sinusoidal": SinusoidalPositions,
    "sinusoidal table": lambda **kwargs: SinusoidalPositions(20, **kwargs),
    "learned": lambda **kwargs: LearnedPositions(20, **kwargs),
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def _x(steps=T, features=F):
    return np.random.default_rng(1).normal(size=(B, steps, features)).astype("float32")


def _added(layer, start, steps=T):
    """Returns what the equation adds `(T, F)`."""
    if isinstance(layer, LearnedPositions):
        return layer.get_weights()[0][start : start + steps]
    return equations.sinusoids(start + steps, F)[start:]


@every_layer
@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_the_position_of_each_step_is_added(make, start, jit_compile):
    layer, x = make(), _x()
    layer.build(x.shape)
    wanted = x + _added(layer, start)
    np.testing.assert_allclose(layer(x, start=start), wanted, rtol=0, atol=2e-6)
    run = lambda x, start: layer(x, start=start)  # noqa: E731
    if jit_compile is not None:
        run = tf.function(run, jit_compile=jit_compile)
    found = run(tf.constant(x), tf.constant(start))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


def test_the_table_is_exact_far_from_the_start():
    layer, x = SinusoidalPositions(5000), np.zeros((1, 1, F), "float32")
    wanted = equations.sinusoids(5000, F)[-1:]
    np.testing.assert_allclose(layer(x, start=4999)[0], wanted, rtol=0, atol=1e-7)


@every_layer
def test_the_number_of_rows_and_steps_may_be_unknown(make):
    inputs = keras.Input((None, F))
    layer = make()
    outputs = layer(inputs)
    assert outputs.shape == (None, None, F)
    model = keras.Model(inputs, outputs)
    for steps in (1, 9):
        x = _x(steps)
        wanted = x + _added(layer, 0, steps)
        np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=0, atol=2e-6)


@every_layer
@pytest.mark.parametrize("start", [0, np.int32(2)])
def test_the_mask_is_passed_on(make, start):
    tokens = np.array([[1, 2, 0, 0, 0], [1, 0, 0, 0, 3]])
    x = keras.layers.Embedding(4, F, mask_zero=True)(tokens)
    y = make()(x, start=ops.convert_to_tensor(start))
    np.testing.assert_array_equal(keras.src.backend.get_keras_mask(y), tokens != 0)


@pytest.mark.parametrize(
    "policy, tolerance",
    [("float64", 1e-12), ("float16", 5e-3), ("mixed_float16", 5e-3)]
    + [("mixed_bfloat16", 4e-2)],
)
@every_layer
def test_the_output_has_the_dtype_of_the_layer(make, policy, tolerance):
    layer = make(dtype=policy)
    y = layer(_x(), start=3)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    wanted = _x() + _added(layer, 3)
    y = ops.convert_to_numpy(ops.cast(y, "float64"))
    np.testing.assert_allclose(y, wanted, rtol=0, atol=tolerance)


def test_every_argument_survives_a_config():
    layer_checks.check_config(SinusoidalPositions(longest=7))
    layer = LearnedPositions(longest=7, embeddings_initializer="zeros")
    config = layer.get_config()
    assert config["longest"] == 7
    assert LearnedPositions.from_config(config).get_config() == config
    assert not np.any(LearnedPositions.from_config(config)(0 * _x()))


def test_learned_positions_are_learned():
    model = keras.Sequential([keras.Input((T, F)), LearnedPositions(T)])
    layer_checks.check_gradients(model, _x())


@every_layer
def test_a_training_step_compiled_by_xla_is_the_same(make):
    def model():
        keras.utils.set_random_seed(1)
        layers = [keras.Input((T, F)), make(), keras.layers.Dense(2)]
        return keras.Sequential(layers)

    layer_checks.check_compiled_step(model, _x(), np.ones((B, T, 2)))


def test_a_reloaded_model_has_the_same_output(tmp_path):
    layers = [SinusoidalPositions(), SinusoidalPositions(9), LearnedPositions(9)]
    model = keras.Sequential([keras.Input((None, F)), *layers])
    modules = [f"engram.layers.attention.{name}_positions" for name in ("sinusoidal",)]
    modules.append("engram.layers.attention.learned_positions")
    layer_checks.check_reload(model, _x(), tmp_path, *modules)


# Errors.


@pytest.mark.parametrize("layer", [SinusoidalPositions, LearnedPositions])
@pytest.mark.parametrize("longest", [0, -3, 2.5])
def test_a_length_that_cannot_be_is_refused(layer, longest):
    layer_checks.check_refused(layer, "longest", longest)


@pytest.mark.parametrize("layer", [SinusoidalPositions, LearnedPositions])
def test_a_sequence_that_is_too_long_is_refused(layer):
    positions = layer(T)
    positions(_x())
    with pytest.raises(ValueError, match=r"`longest`\). Received: 6 steps from"):
        positions(_x(T + 1))
    with pytest.raises(ValueError, match="Received: 5 steps from position 1 on"):
        positions(_x(), start=1)


def test_an_odd_number_of_features_is_refused():
    with pytest.raises(ValueError, match="`x` must have an even .* Received: 5"):
        SinusoidalPositions()(_x(features=5))
