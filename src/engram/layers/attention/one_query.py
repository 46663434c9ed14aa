"""What layers with one query at a time share: from energies to alpha and context."""

import keras
from keras import ops

from engram.layers.attention.masked_softmax import masked_softmax


def look(energies, memory, memory_mask):
    """Returns the context `(B, M)` and alpha `(B, S)` of energies `(B, S)`.

    The softmax is taken in float32 at least. Alpha is 0 at hidden steps, and everywhere
    where a row hides all of them.
    """
    wide = keras.backend.result_type(energies.dtype, "float32")
    check_mask("memory_mask", memory_mask, memory.shape)
    alpha = masked_softmax(ops.cast(energies, wide), memory_mask)
    context = ops.einsum("bs,bsm->bm", ops.cast(alpha, memory.dtype), memory)
    return context, alpha


def check_axes(name, shape, *axes):
    """Raises a ValueError unless a tensor has as many axes as are named."""
    if len(shape) != len(axes):
        raise ValueError(
            f"`{name}` must have the shape ({', '.join(axes)}). Received: {tuple(shape)}"
        )


def check_memory(shape):
    """Raises a ValueError if the shape of `memory` is not `(B, S, M)`."""
    check_axes("memory", shape, "batch", "source steps", "features")


def check_mask(name, mask, shape):
    """Raises a ValueError if a mask does not fit a tensor of the shape `(B, T, F)`."""
    if mask is None:
        return
    wanted, found = tuple(shape[:2]), tuple(mask.shape)
    if len(found) != 2 or any(
        None not in pair and pair[0] != pair[1]
        for pair in zip(found, wanted, strict=True)
    ):
        raise ValueError(
            f"`{name}` must have the shape (batch, steps) = {wanted}. Received: {found}"
        )
