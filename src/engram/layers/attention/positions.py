"""The rows of a table of positions, for the layers that add them to the steps."""

from keras import ops


def rows(table, x, start):
    """Returns the rows `(T, F)` of the positions of the steps of `x`.

    Args:
        table: tensor or variable `(longest, F)`.
        x: tensor `(B, T, F)`.
        start: int or int tensor without axes, the position of the first step.

    Raises:
        ValueError: if it is known that there are more steps than positions.
    """
    table = ops.convert_to_tensor(table)
    longest, features = table.shape
    steps = x.shape[1]
    known = steps is not None and isinstance(start, int)
    if known and start + steps > longest:
        raise ValueError(
            f"`x` must end within {longest} positions (`longest`)."
            f" Received: {steps} steps from position {start} on"
        )
    start = ops.cast(start, "int32")
    return ops.slice(table, (start, 0), (ops.shape(x)[1], features))
