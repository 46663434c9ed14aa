"""The contract of every layer: what its tests call, whatever the layer computes."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

RELOAD = """
import importlib, sys
import keras, numpy as np

folder, *modules = sys.argv[1:]
for module in modules:
    importlib.import_module(module)
model = keras.models.load_model(f"{folder}/model.keras")
inputs = list(np.load(f"{folder}/inputs.npz").values())
outputs = model(inputs if len(inputs) > 1 else inputs[0])
np.save(f"{folder}/outputs.npy", keras.ops.convert_to_numpy(outputs))
"""


def check_config(layer):
    """Every `__init__` argument survives a round trip through the config.

    Give each argument another value than its default: a `get_config` that answers with
    the default would pass otherwise.
    """
    arguments = dict(inspect.signature(type(layer).__init__).parameters)
    del arguments["self"], arguments["kwargs"]
    config = layer.get_config()
    lost = set(arguments) - set(config)
    assert not lost, f"get_config() loses {sorted(lost)}"
    for name, argument in arguments.items():
        assert config[name] != argument.default, f"give `{name}` a value of its own"
        if isinstance(config[name], bool | int | float | str):
            assert config[name] == getattr(layer, name), f"get_config() changes {name}"
    copy = type(layer).from_config(config)
    assert copy.get_config() == config


def check_reload(model, inputs, tmp_path, *modules):
    """Saved, and reloaded by a fresh process, the model has the same output.

    The process imports `modules`, as a user of the layer would, and names no
    `custom_objects`.
    """
    from keras import ops

    given = inputs if isinstance(inputs, list) else [inputs]
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "inputs.npz", *given)
    run = [sys.executable, "-c", RELOAD, str(tmp_path), *modules]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = ops.convert_to_numpy(model(inputs))
    again = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-6)


def check_gradients(model, inputs):
    """Every trainable weight has a finite gradient, and the output depends on each."""
    names = [weight.path for weight in model.trainable_weights]
    for name, gradient in zip(names, gradients(model, inputs), strict=True):
        assert np.isfinite(gradient).all(), f"{name}: the gradient is not finite"
        assert np.any(gradient), f"{name}: the gradient is zero"


def check_policies(make, inputs, tolerance):
    """In mixed precision the output has the compute dtype and is near to float32's.

    Args:
        make: function from a dtype policy's name to a layer that is ready to call.
        inputs: array to call it with.
        tolerance: largest difference from float32 in units of the output's spread, for
            `mixed_float16`; `mixed_bfloat16`, three bits shorter, may differ 8 times it.
    """
    import keras
    from keras import ops

    reference = make("float32")
    expected = ops.convert_to_numpy(reference(inputs))
    for policy, allowed in (("mixed_float16", 1), ("mixed_bfloat16", 8)):
        layer = make(policy)
        layer(inputs)  # builds it
        layer.set_weights(reference.get_weights())
        output = layer(inputs)
        compute = keras.dtype_policies.get(policy).compute_dtype
        assert keras.backend.standardize_dtype(output.dtype) == compute
        assert {weight.dtype for weight in layer.weights} == {"float32"}
        output = ops.convert_to_numpy(ops.cast(output, "float32"))
        difference = np.abs(output - expected).max() / expected.std()
        assert difference < allowed * tolerance, f"{policy} differs by {difference}"


def check_compiled_step(make, inputs, target):
    """A training step compiled by XLA leaves the same weights as a plain one.

    Args:
        make: function without arguments to a model, with the same weights every time.
        inputs: array to train on.
        target: array that the output should become.
    """
    after = []
    for jit_compile in (False, True):
        model = make()
        model.compile("sgd", "mse", jit_compile=jit_compile)
        before = model.get_weights()
        model.train_on_batch(inputs, target)
        assert model.jit_compile is jit_compile
        assert any(
            np.any(old != new)
            for old, new in zip(before, model.get_weights(), strict=True)
        )
        after.append(model.get_weights())
    for plain, compiled in zip(*after, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-6)


def check_refused(make, argument, value):
    """`make(argument=value)` raises a ValueError that names both."""
    with pytest.raises(ValueError) as raised:
        make(**{argument: value})
    assert f"`{argument}`" in str(raised.value)
    assert f"Received: {value}" in str(raised.value)


def gradients(model, inputs):
    """Returns the gradient of the sum of squared outputs for each trainable weight."""
    import tensorflow as tf
    from keras import ops

    with tf.GradientTape() as tape:
        loss = ops.sum(ops.square(model(inputs)))
    found = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    return [np.asarray(gradient) for gradient in found]
