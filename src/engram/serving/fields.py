"""What a request and an answer hold; a request that holds something else is refused."""

import math
from typing import Any, NamedTuple

import numpy as np

TEXT = "text"
KINDS = {"f": "numbers", "i": "whole numbers"}


class Refused(ValueError):
    """A request cannot be answered, told to its sender."""


class Field(NamedTuple):
    """A named part of a request or an answer, `shape` for each of its `B` rows.

    Attributes:
        name: its key.
        dtype: of NumPy, `"float32"`, `"float64"` or `"int64"`; or `"text"`.
        shape: without the rows; -1 for a size that the request decides.
        words: what it is, with its unit.
        low: least value of a request, or None.
        high: largest value of a request, or None.
        gaps: whether numbers of a request may be missing, null or NaN.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    words: str
    low: float | None = None
    high: float | None = None
    gaps: bool = False

    def told(self) -> str:
        """Returns in words what a request has to hold."""
        if self.dtype == TEXT:
            return f"`{self.name}` must be texts, one a row"
        sizes = ", ".join(["B", *map(str, self.shape)])
        shape = f"({sizes},)" if not self.shape else f"({sizes})"
        said = f"`{self.name}` must be {KINDS[np.dtype(self.dtype).kind]} {shape}"
        if self.low is not None:
            least = f" from {self.low:g}"
            said += (
                f"{least} to {self.high:g}" if self.high is not None else f"{least} on"
            )
        return said


def checked(fields: list[Field], request: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a request's arrays, `B` rows each.

    Args:
        fields: that the request must hold.
        request: arrays or lists by name.

    Raises:
        Refused: if one is missing, is not known, or holds something else.
    """
    names = [field.name for field in fields]
    if set(request) != set(names):
        received = ", ".join(map(str, request)) or "nothing"
        raise Refused(f"a request must hold {', '.join(names)}. Received: {received}")
    found = {field.name: _array(field, request[field.name]) for field in fields}
    counts = {name: len(array) for name, array in found.items()}
    if len(set(counts.values())) > 1:
        raise Refused(f"all of a request need as many rows. Received: {counts}")
    if not counts[names[0]]:
        raise Refused(f"{fields[0].told()}. Received: no row")
    return found


def _array(field: Field, value: Any) -> np.ndarray:
    if field.dtype == TEXT:
        if not isinstance(value, (list, tuple, np.ndarray)):
            raise Refused(f"{field.told()}. Received: {value!r}")
        return np.array(list(value), object)
    try:
        array = np.array(value, np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        raise Refused(
            f"{field.told()}. Received: rows of other sizes, or no numbers"
        ) from None
    if array.shape[1:] != field.shape or not array.ndim:
        raise Refused(f"{field.told()}. Received: shape {array.shape}")
    most = np.finfo(np.float32).max
    known = array[~np.isnan(array)] if field.gaps else array
    low = -math.inf if field.low is None else field.low
    high = math.inf if field.high is None else field.high
    whole = np.dtype(field.dtype).kind == "i"
    wrong = ~((abs(known) <= most) & (low <= known) & (known <= high))
    if whole:
        wrong |= known != np.floor(known)
    if wrong.any():
        raise Refused(f"{field.told()}. Received: {known[wrong][0]:g}")
    return array.astype(field.dtype)
