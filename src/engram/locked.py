"""What `dvc.lock` says: of each stage, hashes of what went in and of what came out."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from engram import code_changes


@dataclasses.dataclass
class Entry:
    """A stage as it last ran.

    Attributes:
        stage: name, such as `"train@traffic-gru"`.
        deps: path, as `dvc.yaml` has it -> DVC's MD5, of a folder with `.dir` behind it.
        params: dotted name -> value.
        outs: as `deps`.
        digest: SHA-256 of all that, by which a run names the entry that it belongs to.
    """

    stage: str
    deps: dict[str, str]
    params: dict[str, Any]
    outs: dict[str, str]
    digest: str

    @property
    def item(self) -> str:
        """What stands behind the `@`: an experiment, a dataset."""
        return self.stage.partition("@")[2]

    def wrote(self, path: str) -> str | None:
        """Returns the output that `path` is, or is part of."""
        return next((out for out in self.outs if Path(path).is_relative_to(out)), None)


def read(suite: Path) -> dict[str, Entry]:
    """Returns the stages of the `dvc.lock` in a folder, by name; none without one."""
    file = suite / "dvc.lock"
    stages = load(file)["stages"] if file.is_file() else {}
    return {stage: _entry(stage, block) for stage, block in stages.items()}


def load(file: Path) -> dict[str, Any]:
    """Returns what is in a YAML file as DVC reads it: to it `1e-05` is a number."""
    from dvc.utils.serialize import load_yaml

    return load_yaml(str(file))


def _entry(stage: str, block: dict[str, Any]) -> Entry:
    deps, outs = (
        {one["path"]: one["md5"] for one in block.get(key, [])}
        for key in ("deps", "outs")
    )
    files = block.get("params", {}).values()
    params = {key: value for values in files for key, value in values.items()}
    text = json.dumps([stage, deps, params, outs], sort_keys=True)
    return Entry(stage, deps, params, outs, hashlib.sha256(text.encode()).hexdigest())


def is_current(suite: Path, entry: Entry, params: dict[str, Any]) -> bool:
    """Returns whether a stage's code, data and params are those of its last run."""
    same = entry.params == params
    return same and all(
        code_changes.is_still(suite / path, digest) for path, digest in entry.deps.items()
    )


def writer(entries: dict[str, Entry], path: str) -> Entry | None:
    """Returns the stage that wrote a file or folder."""
    return next((one for one in entries.values() if one.wrote(path)), None)


def before(entries: dict[str, Entry], entry: Entry) -> list[Entry]:
    """Returns the stages whose outputs a stage read, in the order of its inputs."""
    found = {
        one.stage: one
        for dep in entry.deps
        for one in entries.values()
        if any(overlap(dep, out) for out in one.outs)
    }
    return list(found.values())


def overlap(one: str, other: str) -> bool:
    """Returns whether one of two paths is the other, or a folder above it."""
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)
