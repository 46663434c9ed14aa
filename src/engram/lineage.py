"""Where does a result come from? The chain from a file, run or model, each link verified.

    engram lineage runs/traffic-stlm/models/seed-1.keras
    engram lineage 04a295a7f589454dbfead1e19ac34f96
    engram lineage models:/traffic@champion

From the file to the stage that wrote it, as `dvc.lock` has it; to that stage's code,
params and data, and the stages before it; and to the run in MLflow, with its params,
data, commit and packages. A line with a cross is a link that does not hold; the command
then ends with 1.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from engram import locked, repository, run_links, stage_links
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
    from engram import recorded  # after the quick answers: mlflow

    run_id = recorded.of_model(what) if what.startswith("models:/") else what
    run = recorded.run(run_id) if run_id else None
    if run is None:
        raise Unknown(f"{what}: no file here, and neither run nor model of the store")
    if run_id != what:
        yield Link(0, what)
        yield Link(1, f"logged by run {run.id}", True)
    suite = repository.root() / ("" if run.tags["suite"] == "tour" else run.tags["suite"])
    name = next((run.tags[key] for key in run_links.KINDS if key in run.tags), None)
    file = suite / "runs" / str(name) / "run.json"
    if not file.is_file():
        yield from run_links.of_run(run, None, suite, 0)
        yield Link(1, f"{file} is missing, so that nothing leads to its stage", False)
        return
    kept = {about["run_id"]: seed for seed, about in json.loads(file.read_text()).items()}
    seed = kept.get(run.tags.get("restored_from", run.id))
    if seed is None:
        yield from run_links.of_run(
            run, locked.read(suite).get(f"train@{name}"), suite, 0
        )
        yield Link(1, f"not the run that {name} kept: {', '.join(kept)}", False)
        return
    yield from of_file(file.with_name("models") / f"seed-{seed}.keras")


def of_file(path: Path) -> Iterator[Link]:
    """Yields the links of a file or folder that a stage wrote.

    Raises:
        Unknown: if none did.
    """
    path = path.resolve()
    suite = next((one for one in path.parents if (one / "dvc.yaml").is_file()), None)
    if suite is None:
        raise Unknown(f"{path}: no dvc.yaml in the folders above it")
    entries, name = locked.read(suite), path.relative_to(suite).as_posix()
    entry = locked.writer(entries, name)
    if entry is None:
        raise Unknown(f"{name}: no stage of {suite / 'dvc.lock'} wrote it")
    yield Link(0, name)
    out = entry.wrote(name)
    assert out is not None
    yield stage_links.content(suite, out, entry.outs[out], 1)
    yield from stage_links.of_stage(suite, entries, entry, set())
    yield from run_links.of_stage(suite, entries, entry)
