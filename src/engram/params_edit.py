"""Changes single values of `params.yaml` and leaves everything else, comments too."""

import functools
import re
from pathlib import Path
from typing import Any

import yaml

COPY = re.compile(r"\s*:\s*(\*[\w-]+)")  # behind a key
NAMED = re.compile(r"\s*:\s*&([\w-]+)")
COPIES = re.compile(r"\*[\w-]+")


class NotEdited(ValueError):
    """A value stands where a change of it would change others."""


def edited(text: str, changes: dict[str, Any]) -> str:
    """Returns a YAML text with other values.

    A block that is a copy (`train: *trained`) becomes `{<<: *trained, key: value}`.

    Args:
        text: of the file.
        changes: dotted name -> value, a scalar or a list of scalars. Each name exists.

    Raises:
        NotEdited: if a value stands in a block that others are copies of, or in a form
            that is not known here.
        KeyError: if there is no such name.
    """
    new = text
    for name, value in changes.items():
        new = _edited(new, name.split("."), value)
    wanted = changed(yaml.safe_load(text), changes)
    try:
        same = yaml.safe_load(new) == wanted
    except yaml.YAMLError:
        same = False
    if not same:
        raise NotEdited(f"{', '.join(changes)}: write them by hand")
    return new


def changed(values: dict, changes: dict[str, Any]) -> dict:
    """Returns a copy of nested dicts with other values, by their dotted names."""
    for name, value in changes.items():
        values = _changed(values, name.split("."), value)
    return values


def value(values: dict, name: str) -> Any:
    """Returns what has a dotted name in nested dicts."""
    return functools.reduce(dict.__getitem__, name.split("."), values)


def _changed(values: dict, names: list[str], value: Any) -> dict:
    """Returns a copy of nested dicts with one other value."""
    name, *more = names
    return {**values, name: _changed(values[name], more, value) if more else value}


def _edited(text: str, names: list[str], value: Any) -> str:
    node, whole = yaml.compose(text, yaml.SafeLoader), ".".join(names)
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        pair = _child(node, name)
        if pair is None:
            if last and _merged(node, name):
                return _with(text, node, f"{name}: {_yaml(value)}", whole)
            raise KeyError(whole)
        key, node = pair
        after = text[key.end_mark.index :]
        if copy := COPY.match(after):
            new = _yaml(value)
            if not last:
                if depth < len(names) - 2 or _child(node, names[-1]) is None:
                    raise NotEdited(f"{whole} stands in {copy[1]}: write {new} by hand")
                new = f"{{<<: {copy[1]}, {names[-1]}: {new}}}"
            at = key.end_mark.index
            return text[: at + copy.start(1)] + new + text[at + copy.end(1) :]
        if (named := NAMED.match(after)) and f"*{named[1]}" in COPIES.findall(text):
            raise NotEdited(
                f"{whole} stands in the block &{named[1]}, of which others are copies:"
                f" write {_yaml(value)} by hand"
            )
    assert node is not None
    return text[: node.start_mark.index] + _yaml(value) + text[node.end_mark.index :]


def _child(node: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((pair for pair in pairs if pair[0].value == name), None)


def _merged(node: yaml.Node | None, name: str) -> bool:
    """Returns whether a block has a name from the block that it is a changed copy of."""
    pair = _child(node, "<<")
    return pair is not None and (
        _child(pair[1], name) is not None or _merged(pair[1], name)
    )


def _with(text: str, node: yaml.Node | None, more: str, whole: str) -> str:
    """Returns the text with one more pair in a block in braces."""
    assert node is not None
    end = node.end_mark.index - 1
    if text[end] != "}":
        raise NotEdited(f"{whole} is taken from another block: write {more} by hand")
    return f"{text[:end]}, {more}{text[end:]}"


def _yaml(value: Any) -> str:
    said = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return said.removesuffix("...").strip()


def write(path: Path, changes: dict[str, Any]) -> None:
    """Changes values of a file; see `edited`."""
    text = edited(path.read_text(encoding="utf-8"), changes)
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
