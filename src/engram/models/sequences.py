"""What all models of sequences share: inputs, head, loss and optimizer."""

from collections.abc import Callable
from typing import Any

import keras


def recurrent(
    layer: Callable, spec: dict[str, Any], name: str, learning_rate
) -> keras.Model:
    """Returns a compiled model that reads a sequence and tells what the spec asks for.

        h      = layer(x)        (B, U), or (B, T, U) for a class at each step
        number: output = h W + b       (B, 1),            squared error
        class:  logits = h W + b       (B, C), (B, T, C), cross-entropy

    Trained by Adam. Gradients longer than 1, all weights together, are shortened to 1:
    through hundreds of steps a few are very long.

    Args:
        layer: function of `return_sequences`, a bool, to a layer from `(B, T, F)` to `h`.
        spec: contents of `spec.json`.
        name: name of the model.
        learning_rate: float or schedule.
    """
    x = keras.Input((spec["history"], spec["features"]), name="sequence")
    h = layer(return_sequences=spec["target"] == "class at each step")(x)
    if spec["target"] == "number":
        output = keras.layers.Dense(1, name="number")(h)
        loss = keras.losses.MeanSquaredError()
    else:
        output = keras.layers.Dense(spec["classes"], name="logits")(h)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras.Model(x, output, name=name)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate, global_clipnorm=1.0), loss=loss
    )
    return model
