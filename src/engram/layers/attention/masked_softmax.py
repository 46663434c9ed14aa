"""The softmax of attention: exactly 0 where nothing may be seen."""

from keras import ops
from keras.src import backend  # `ops.softmax` warns of a single step, where 1 is right

FAR = 1e9  # taken from a hidden logit, whose weight is then multiplied by 0


def masked_softmax(logits, visible):
    """Returns the softmax over the last axis, of what is visible.

    Args:
        logits: float tensor `(..., S)`, at least float32.
        visible: bool tensor that broadcasts to the logits; None hides nothing.

    Returns:
        Float tensor shaped as the logits. Rows sum to 1, or 0 if all of one is hidden.
    """
    if visible is None:
        return backend.nn.softmax(logits, axis=-1)
    shown = ops.cast(visible, logits.dtype)
    return backend.nn.softmax(logits + (shown - 1) * FAR, axis=-1) * shown
