"""What all models of images share: input, logits, loss and optimizer."""

from typing import Any

import keras


def inputs(spec: dict[str, Any]) -> keras.KerasTensor:
    """Returns the input `(B, H, W, F)`, numbers from 0 to 1."""
    return keras.Input(tuple(spec["shape"]), name="images")


def classifier(
    images: keras.KerasTensor,
    h: keras.KerasTensor,
    spec: dict[str, Any],
    name: str,
    optimizer: keras.Optimizer,
) -> keras.Model:
    """Returns a compiled model that tells a class by the features of an image.

        logits = h W + b        (B, C), cross-entropy

    Args:
        images: input, of `inputs`.
        h: features `(B, U)`, computed from it.
        spec: contents of `spec.json`.
        name: name of the model.
        optimizer: with its learning rate.
    """
    logits = keras.layers.Dense(spec["classes"], name="logits")(h)
    model = keras.Model(images, logits, name=name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def optimizer(word: str, learning_rate, **how) -> keras.Optimizer:
    """Returns `"sgd"`, with a momentum of 0.9, or `"adam"`.

    Args:
        word: one of these.
        learning_rate: float or schedule.
        **how: what else the optimizer takes, such as `clipnorm`.

    Raises:
        ValueError: if it is another word.
    """
    if word == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=0.9, **how)
    if word == "adam":
        return keras.optimizers.Adam(learning_rate, **how)
    raise ValueError(f"`optimizer` must be 'sgd' or 'adam'. Received: {word!r}")
