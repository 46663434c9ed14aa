"""What a sweep tries: `name=low..high`, `name=low..high:log`, `name=one,other`."""

import contextlib
import re
from typing import Any

from engram import params, params_edit

RANGE = re.compile(r"(-?[\d.e+-]+?)\.\.(-?[\d.e+-]+?)(:log)?")
Space = dict[str, dict[str, Any]]  # param -> its choices, or the ends of its range


def read(words: list[str], block: dict[str, Any]) -> Space:
    """Returns what `name=values` words say of an experiment's params.

    Raises:
        ValueError: if one is no param there, or its values cannot be read.
    """
    space: Space = {}
    for word in words:
        name, about = _dimension(word, block)
        if name in space:
            raise ValueError(f"{name}: given twice")
        space[name] = about
    return space


def _dimension(word: str, block: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name and the values of `name=values`."""
    name, _, said = word.partition("=")
    place: Any = block
    for part in name.split("."):
        if not isinstance(place, dict) or part not in place:
            known = ", ".join(place) if isinstance(place, dict) else "nothing"
            raise ValueError(f"{name}: no such param. Known there: {known}")
        place = place[part]
    if found := RANGE.fullmatch(said):
        try:
            low, high = (_number(one) for one in found.groups()[:2])
        except ValueError:
            raise ValueError(f"{word}: not a range of numbers") from None
        if not low < high or (found[3] and low <= 0):
            raise ValueError(f"{word}: a range goes up, a logarithmic one from above 0")
        whole = isinstance(low, int) and isinstance(high, int)
        return name, {"whole": whole, "low": low, "high": high, "log": bool(found[3])}
    choices = [_value(one) for one in said.split(",")]
    if len(choices) < 2 or "" in choices:
        raise ValueError(f"{word}: neither low..high nor values separated by commas")
    return name, {"choices": choices}


def _number(said: str) -> float | int:
    return int(said) if re.fullmatch(r"-?\d+", said) else float(said)


def _value(said: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False, "null": None}
    if said in words:
        return words[said]
    with contextlib.suppress(ValueError):
        return _number(said)
    return said


def ends(about: dict[str, Any]) -> list[Any]:
    """Returns the values of a dimension, of a range both ends."""
    return about["choices"] if "choices" in about else [about["low"], about["high"]]


def check(name: str, block: dict[str, Any], space: Space) -> None:
    """Tries all values of a list and both ends of a range, one param at a time.

    Raises:
        ValueError: if `params.yaml` could not hold one.
    """
    for key, about in space.items():
        for value in ends(about):
            try:
                params.check_experiment(name, params_edit.changed(block, {key: value}))
            except params.ParamsError as error:
                raise ValueError(f"{key}: {value!r} cannot be tried: {error}") from None


def now(block: dict[str, Any], space: Space) -> dict[str, Any] | None:
    """Returns the params that are there, or None if one is not in the space."""
    found = {key: params_edit.value(block, key) for key in space}
    for key, value in found.items():
        about = space[key]
        if "choices" in about and value not in about["choices"]:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if "low" in about and not (number and about["low"] <= value <= about["high"]):
            return None
    return found
