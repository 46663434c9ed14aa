"""Where does a result come from? The chain from a file, run or model, each link verified.

    engram lineage runs/traffic-stlm/models/seed-1.keras
    engram lineage 04a295a7f589454dbfead1e19ac34f96
    engram lineage models:/ring_road@champion

From the file to the stage that wrote it, as `dvc.lock` has it; to that stage's code,
params and data, and the stages before it; and to the run in MLflow, with its params,
data, commit and packages. A line with a cross is a link that does not hold; the command
then ends with 1.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from engram import locked, recorded, repository, run_links, stage_links
from engram.recorded import Run
from engram.stage_links import Link


class Unknown(ValueError):
    """What was asked for is nothing that a stage wrote or a store knows."""


def main(argv: list[str] | None = None) -> None:
    """Prints the chain of a file, run or model."""
    parser = argparse.ArgumentParser("engram lineage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", help="a path, the id of a run, or models:/...")
    given = parser.parse_args(argv)
    try:
        links = list(chain(given.what))
    except Unknown as error:
        sys.exit(str(error))
    print("\n".join(_line(link) for link in links))
    broken = sum(link.holds is False for link in links)
    held = sum(bool(link.holds) for link in links)
    print(f"\n{held} links hold" + (f", {broken} do not" if broken else ""))
    sys.exit(1 if broken else 0)


def _line(link: Link) -> str:
    sign = {None: "", True: "✓ ", False: "✗ "}[link.holds]
    return f"{'  ' * link.depth}{sign}{link.words}"


def chain(what: str) -> Iterator[Link]:
    """Yields the links of a path, a run's id or a model's address.

    Raises:
        Unknown: if it is none of these.
    """
    if Path(what).exists():
        yield from of_file(Path(what))
        return
    run_id = recorded.of_model(what) if what.startswith("models:/") else what
    run = recorded.run(run_id) if run_id else None
    if run is None:
        raise Unknown(
            f"{what}: no file here, and neither run nor model of the store. Expected: a"
            " file that a stage wrote, a run's id of 32 digits, or models:/<name>@<alias>"
            + (
                f". Of that experiment: runs/{what}/models"
                if Path("runs", what).is_dir()
                else ""
            )
        )
    if run_id != what:
        yield Link(0, what)
        yield Link(1, f"logged by run {run.id}", True)
    yield from _of_run(run)
    if run_id != what:
        yield from run_links.of_model(what, run)


def _of_run(run: Run) -> Iterator[Link]:
    """Yields the links of a run: those of the files of its stage, if it was kept."""
    suite = repository.root()
    if run.tags.get("suite", "tour") != "tour":
        suite /= run.tags["suite"]
    stage = run.tags.get("dvc.stage", "")
    if "continues" in run.tags:  # opened by evaluate, for a run that was not known
        stage = f"train@{run.tags['experiment']}"
    entry = locked.read(suite).get(stage)
    if entry is None:
        yield from run_links.of_run(run, None, suite, 0)
        yield Link(1, "no stage of dvc.lock is its own", False)
    elif run.tags.get("dvc.lock") != entry.digest:
        yield from run_links.of_run(run, None, suite, 0)
        yield Link(1, f"it is not the run that {entry.stage} of dvc.lock kept", False)
    else:
        yield from of_file(suite / _result(run, entry))


def _result(run: Run, entry: locked.Entry) -> str:
    """Returns the file that a run left: its seed's model, or the stage's first output."""
    seed = run.params.get("seed")
    for folder in ("models", "pretrained"):
        if (out := f"runs/{entry.item}/{folder}") in entry.outs and seed:
            return f"{out}/seed-{seed}.keras"
    return next(iter(entry.outs))


def of_file(path: Path) -> Iterator[Link]:
    """Yields the links of a file or folder that a stage wrote.

    Raises:
        Unknown: if none did.
    """
    path = path.absolute()
    suite = next((one for one in path.parents if (one / "dvc.yaml").is_file()), None)
    if suite is None:
        raise Unknown(f"{path}: no dvc.yaml in the folders above it")
    entries, name = locked.read(suite), path.relative_to(suite).as_posix()
    entry = locked.writer(entries, name)
    if entry is None:
        raise Unknown(f"{name}: no stage of {suite / 'dvc.lock'} wrote it")
    os.chdir(suite)  # the store is that of the suite
    yield Link(0, name)
    out = entry.wrote(name)
    assert out is not None
    yield stage_links.content(suite, out, entry.outs[out], 1)
    yield from stage_links.of_stage(suite, entries, entry, set())
    yield from run_links.of_stage(suite, entries, entry)
