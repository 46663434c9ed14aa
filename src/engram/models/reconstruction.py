"""What all models of reconstruction share: an input of rows, and the optimizer's word."""

from typing import Any

import keras


def inputs(spec: dict[str, Any]) -> keras.KerasTensor:
    """Returns the input `(B, V)`, pixels from 0 to 1."""
    return keras.Input((spec["visible"],), name="row")


def optimizer(word: str, learning_rate) -> keras.Optimizer:
    """Returns `"sgd"`, with a momentum of 0.9, or `"adam"`.

    Args:
        word: one of these.
        learning_rate: float or schedule.

    Raises:
        ValueError: if it is another word.
    """
    if word == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=0.9)
    if word == "adam":
        return keras.optimizers.Adam(learning_rate)
    raise ValueError(f"`optimizer` must be 'sgd' or 'adam'. Received: {word!r}")
