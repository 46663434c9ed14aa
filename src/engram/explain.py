"""Why would each stage run? Told before `dvc repro` does it.

    engram explain
    engram explain train@traffic-gru evaluate@traffic-gru
    engram explain --suite studies/traffic

For each stage what differs from its last run, as `dvc.lock` has it: a param from a to b,
a function of a file, data, a missing output; and how long the stage took here. Files' old
versions come from git. Nothing is run or changed.
"""

import argparse
import dataclasses
import difflib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from engram import code_changes, locked, progress, repository

FATES = ("will run", "may follow", "put back from DVC's cache", "as they are")
NOTHING = object()  # of a param that one side does not have


@dataclasses.dataclass
class Told:
    """Why a stage would run.

    Attributes:
        stage: its name, such as `"train@traffic-gru"`.
        reasons: lines; none for one that stands as it is.
        after: stages that will run before and write what this one reads.
        restored: whether DVC has the outputs and only has to put them back.
        writes: whether the outputs may be others than before.
    """

    stage: str
    reasons: list[str]
    after: list[str]
    restored: bool
    writes: bool = False

    @property
    def fate(self) -> str:
        """What `dvc repro` makes of it: a word of `FATES`."""
        if self.reasons and not self.restored:
            return "will run"
        if self.after:  # whether what is written there changes, only running it tells
            return "may follow"
        return "put back from DVC's cache" if self.restored else "as they are"


def main(argv: list[str] | None = None) -> None:
    """Prints why stages would run."""
    parser = argparse.ArgumentParser("engram explain", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("stages", nargs="*", help="all, if none is named")
    parser.add_argument(
        "--suite", type=Path, default=Path(), help="folder with dvc.yaml, default: here"
    )
    given = parser.parse_args(argv)
    if not (given.suite / "dvc.yaml").is_file():
        sys.exit(f"{given.suite / 'dvc.yaml'}: no such file")
    os.chdir(given.suite)
    try:
        found = explained()
    except ValueError as error:
        sys.exit(str(error))
    names = [one.stage for one in found]
    if unknown := [name for name in given.stages if name not in names]:
        near = [name for name in names if name.endswith(f"@{unknown[0]}")]
        near += difflib.get_close_matches(unknown[0], names, n=3)
        sys.exit(f"{unknown[0]}: no such stage. Near it: {', '.join(near or names)}")
    shown = [one for one in found if not given.stages or one.stage in given.stages]
    print(text(shown, _seconds()))
    if faults := _faults():
        sys.exit(f"\nbut the check of params.yaml will stop it first:\n{faults}")


def _faults() -> str:
    """Returns what is wrong with this folder's params, if they are a suite's."""
    from engram import params

    file = Path("params.yaml")
    if not file.is_file() or "pipeline/train.py" not in Path("dvc.yaml").read_text():
        return ""
    try:
        params.load(file)
    except params.ParamsError as error:
        return str(error)
    return ""


def explained() -> list[Told]:
    """Returns all stages of the `dvc.yaml` of this folder, in the order of the flow.

    Raises:
        ValueError: if DVC cannot read it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        stages = Repo().stage.load_all("dvc.yaml")
    except DvcException as error:
        raise ValueError(f"dvc.yaml: {error}") from error
    writers = {out.fs_path: stage for stage in stages for out in stage.outs}
    found: dict[str, Told] = {}

    def add(stage):  # behind those whose outputs it reads
        if stage.name in found:
            return
        sources = {
            writer.name: writer
            for dep in stage.deps
            for written, writer in writers.items()
            if locked.overlap(dep.fs_path, written)
        }
        for source in sources.values():
            add(source)
        found[stage.name] = _told(
            stage,
            after=[name for name in sources if found[name].writes],
            read=[out.fs_path for one in sources.values() for out in one.outs],
        )

    for stage in stages:
        add(stage)
    return list(found.values())


def _told(stage, after: list[str], read: list[str]) -> Told:
    """Returns why a stage would run.

    Args:
        stage: DVC's.
        after: names of the stages before it that may write something else.
        read: paths that the stages before it write.
    """
    if not any(one.hash_info for one in (*stage.deps, *stage.outs)):
        restored = not after and _known(stage)
        return Told(stage.name, ["it has not run yet"], after, restored, True)
    inputs = ["its command changed"] if stage.changed_stage() else []
    for dep in stage.deps:
        if dep.status():
            inputs += _of_dep(dep, any(locked.overlap(dep.fs_path, one) for one in read))
    changed = [out for out in stage.outs if out.status()]
    outputs = [f"{out.def_path} {_of_out(out)}" for out in changed if out.exists]
    if missing := [out.def_path for out in changed if not out.exists]:
        outputs.append(f"missing: {', '.join(missing)}")
    restored = bool(inputs or changed) and not after
    restored &= _known(stage) if inputs else all(_kept(out) for out in changed)
    reasons = list(dict.fromkeys(inputs + outputs))
    writes = bool(inputs or after or (outputs and not restored))
    return Told(stage.name, reasons, after, restored, writes)


def _of_dep(dep, written: bool) -> list[str]:
    """Returns what of a dependency changed, a line each."""
    if hasattr(dep, "read_params"):
        return _grouped(_differences(dep.hash_info.value, dep.read_params(), ""))
    path, name = Path(dep.fs_path), _name(dep)
    if not path.exists():
        # one that a stage writes is told there
        return [] if written else [f"{name} is missing"]
    if written:
        return [f"{name} is not what it was"]
    before = code_changes.committed(path, dep.hash_info.value)
    if before is None:
        return [f"{name} changed; git does not have what it was"]
    return code_changes.between(before[1], code_changes.read(path), name)


def _name(dep) -> str:
    """Returns the path from here, or from the repository's folder if it is not below."""
    if not dep.def_path.startswith(".."):
        return dep.def_path
    return Path(dep.fs_path).relative_to(repository.root()).as_posix()


def _grouped(changes: dict[str, str]) -> list[str]:
    """Returns a line for each change; those of one last key and one kind share a line."""
    alike: dict[tuple[str, str], list[str]] = {}
    for key, change in changes.items():
        alike.setdefault((key.rsplit(".", 1)[-1], change), []).append(key)
    return [
        f"{keys[0]}{f' and {len(keys) - 1} alike' if keys[1:] else ''}: {change}"
        for (_, change), keys in alike.items()
    ]


def _differences(was: Any, now: Any, key: str) -> dict[str, str]:
    """Returns of each param that differs, by its dotted name, `a -> b`."""
    if isinstance(was, dict) and isinstance(now, dict):
        found: dict[str, str] = {}
        for one in dict.fromkeys([*was, *now]):
            name = f"{key}.{one}" if key else one
            found |= _differences(was.get(one, NOTHING), now.get(one, NOTHING), name)
        return found
    if was is NOTHING:
        return {key: f"{_short(now)} is new"}
    if now is NOTHING:
        return {key: f"{_short(was)} is gone"}
    return {} if was == now else {key: f"{_short(was)} -> {_short(now)}"}


def _short(value: Any) -> str:
    said = json.dumps(value, default=str)
    return said if len(said) < code_changes.SHORT else said[: code_changes.SHORT] + "…"


def _kept(out) -> bool:
    """Returns whether DVC's cache has an output as the lock names it."""
    return bool(out.use_cache and out.hash_info and not out.changed_cache())


def _known(stage) -> bool:
    """Returns whether DVC's cache has the outputs of a run with these very inputs."""
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.hash_info import HashInfo

    for out in stage.outs:
        out.hash_info = HashInfo()  # those of the lock are of other inputs
    try:
        stage.save_deps()
        stage.repo.stage_cache.restore(stage, dry=True)
    except DvcException:
        return False
    return True


def _of_out(out) -> str:
    if out.use_cache and out.changed_cache():
        return "is not in DVC's cache"
    return "was changed by hand"


def text(told: list[Told], seconds: dict[str, float]) -> str:
    """Returns the stages that would or may run, and a last line that counts."""
    blocks, cost = [], 0.0
    for one in told:
        if one.fate == "as they are":
            continue
        took = 0.0
        if one.fate in ("will run", "may follow"):
            took = progress.expected(one.stage, seconds)
        cost += took
        when = f", about {progress.clock(took)}" if seconds and took else ""
        lines = [f"{one.stage}: {one.fate}{when}", *one.reasons]
        if one.after:
            some = ", ".join(one.after[:3]) + (", …" if len(one.after) > 3 else "")
            lines.append(f"after {some}, if what is written there changes")
        blocks.append("\n    ".join(lines))
    fates = [one.fate for one in told]
    counts = [f"{n} {fate}" for fate in FATES if (n := fates.count(fate))]
    time = f"; about {progress.clock(cost)} at most" if seconds and cost else ""
    several = "s" if len(told) > 1 else ""
    blocks.append(f"Of {len(told)} stage{several} {', '.join(counts)}{time}.")
    return "\n\n".join(blocks)


def _seconds() -> dict[str, float]:
    book = repository.root() / progress.BOOK
    return json.loads(book.read_text()) if book.is_file() else {}
