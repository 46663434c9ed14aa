"""Links from a stage to its code, params and data, as `dvc.lock` has them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from engram import code_changes, locked, repository

SHORT = 7  # letters of a commit


class Link(NamedTuple):
    """A line of the chain: `holds` is None for a heading."""

    depth: int
    words: str
    holds: bool | None = None


def content(suite: Path, name: str, digest: str, depth: int) -> Link:
    """Returns whether a file or folder is what `dvc.lock` has."""
    path = suite / name
    if not path.exists():
        return Link(depth, f"{name} is missing here, md5 {digest}", False)
    same = code_changes.is_still(path, digest)
    said = "is" if same else "is not"
    return Link(depth, f"{name} {said} what dvc.lock has, md5 {digest}", same)


def of_stage(
    suite: Path, entries: dict[str, locked.Entry], entry: locked.Entry, told: set[str]
) -> Iterator[Link]:
    """Yields the links of a stage, and of those before it that are not in `told` yet."""
    told.add(entry.stage)
    yield Link(1, f"stage {entry.stage}")
    yield from _params(suite, entry)
    sources = locked.before(entries, entry)
    here = 0
    for name, digest in entry.deps.items():
        if any(locked.overlap(name, out) for one in sources for out in one.outs):
            yield content(suite, name, digest, 2)
        elif link := _code(suite, name, digest):
            yield link
        else:
            here += 1
    if here:
        yield Link(2, f"{here} files and folders of code are as here", True)
    for source in sources:
        if source.stage not in told:
            yield from of_stage(suite, entries, source, told)


def _code(suite: Path, name: str, digest: str) -> Link | None:
    """Returns where a version of code is; None for the one that is here."""
    path = (suite / name).resolve()
    short = path.relative_to(repository.root().resolve()).as_posix()
    if code_changes.is_still(path, digest):
        return None
    if found := code_changes.committed(path, digest):
        return Link(2, f"{short} as in commit {found[0][:SHORT]}, not as here", True)
    return Link(2, f"{short}: neither here nor in git is what it was", False)


def _params(suite: Path, entry: locked.Entry) -> Iterator[Link]:
    now = locked.load(suite / "params.yaml")
    for key, value in entry.params.items():
        there: Any = now
        for part in key.split("."):
            there = there.get(part) if isinstance(there, dict) else None
        said = "is" if there == value else "is not"
        yield Link(2, f"{key} {said} as in params.yaml", there == value)
