"""Puts a trained model into MLflow's registry, under an alias, with a card.

    engram promote traffic-stlm champion

In the folder of a suite. Of an experiment's seeds the one with the least loss on
validation is taken. Every link of its lineage must hold. The registered model has the
name of the dataset, so that experiments on the same data are its versions, and

    export MLFLOW_TRACKING_URI=$(python -m engram.store)
    mlflow models serve -m models:/ring_road@champion --env-manager local --port 5001

answers requests by whichever of them is the champion. The server needs Engram in its
environment.
"""

import argparse
import json
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from engram import params

PORT = 5001  # `make ui` has MLflow's own, 5000
Json = dict[str, Any]


class Trained(NamedTuple):
    """A seed of an experiment that was trained and measured."""

    experiment: str
    block: Json  # of `params.yaml`
    seed: str
    about: Json  # what `run.json` has of the seed
    metrics: Json  # of all seeds
    prepared: Path

    @property
    def file(self) -> Path:
        """The model."""
        return Path("runs", self.experiment, "models", f"seed-{self.seed}.keras")


def main(argv: list[str] | None = None) -> None:
    """Promotes the model of an experiment and prints how to serve it."""
    parser = argparse.ArgumentParser("engram promote", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("experiment", help="of params.yaml")
    parser.add_argument("alias", nargs="?", default="champion", help="default: champion")
    parser.add_argument("--name", help="of the registered model; default: the dataset's")
    given = parser.parse_args(argv)
    try:
        found = trained(given.experiment)
        name = given.name or found.block["dataset"]
        _check(name, given.alias)
        _verify(found)
        version, before = promoted(found, name, given.alias)
    except (ValueError, params.ParamsError) as error:
        sys.exit(f"promote {given.experiment}: {error}")
    from engram import tracking

    moved = f"; version {before} was" if before not in (None, version) else ""
    print(f"{name}: version {version} is {given.alias}{moved}")
    store = tracking.address()
    print(
        *([f"MLFLOW_TRACKING_URI={shlex.quote(store)}"] if store else []),
        f"mlflow models serve -m {shlex.quote(f'models:/{name}@{given.alias}')}"
        f" --env-manager local --port {PORT}",
    )


def trained(name: str) -> Trained:
    """Returns the seed with the least loss on validation; the first one if none has any.

    Raises:
        ValueError: if there is no such experiment here, or something is not done yet.
    """
    experiments = params.load()["experiments"]
    if name not in experiments:
        raise ValueError(f"no such experiment. Known: {', '.join(experiments)}")
    run, metrics = Path("runs", name, "run.json"), Path("metrics", f"{name}.json")
    block = experiments[name]
    prepared = Path("data/prepared", block["dataset"])
    for file, stage in (
        (run, f"train@{name}"),
        (metrics, f"evaluate@{name}"),
        (prepared / "spec.json", f"prepare@{block['dataset']}"),
    ):
        if not file.is_file():
            raise ValueError(f"{file} is not there: dvc repro {stage}")
    seeds = json.loads(run.read_text())

    def loss(seed: str) -> float:
        held = seeds[seed].get("held_loss")
        return float("inf") if held is None else held

    seed, told = min(seeds, key=loss), json.loads(metrics.read_text())
    found = Trained(name, block, seed, seeds[seed], told, prepared)
    if not found.file.is_file():
        raise ValueError(f"{found.file} is not there: dvc repro train@{name}")
    return found


def _check(name: str, alias: str) -> None:
    """Raises a ValueError unless MLflow takes the words; it would say so at the end."""
    if not name.strip() or re.search(r"[/:@]", name):
        raise ValueError(f"--name must be a name without / : or @. Received: {name!r}")
    reserved = re.fullmatch(r"v\d+|latest", alias, re.IGNORECASE)
    if reserved or not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias):
        raise ValueError(
            "the alias must be up to 255 letters, digits, _ or -, and neither 'latest'"
            f" nor a version such as 'v1'. Received: {alias!r}"
        )


def _verify(found: Trained) -> None:
    """Raises a ValueError if a link of the model's or its metrics' lineage is broken."""
    from engram import lineage

    metrics = Path("metrics", f"{found.experiment}.json")
    links = [one for file in (found.file, metrics) for one in lineage.of_file(file)]
    broken = dict.fromkeys(link.words for link in links if link.holds is False)
    if broken:
        lines = "".join(f"\n  ✗ {words}" for words in broken)
        raise ValueError(f"its lineage does not hold:{lines}")


def promoted(found: Trained, name: str, alias: str) -> tuple[str, str | None]:
    """Logs and registers the model; returns its version, and the one before, or None.

    Args:
        found: the model.
        name: of the registered model.
        alias: that it gets.

    Raises:
        ValueError: if the alias is that of a model of another task or dataset, or the
            model answers its example with no number.
    """
    from engram import model_card, recorded, registry, serving

    run = recorded.kept(found.about["run_id"])
    assert run, "its lineage holds"
    block, spec = found.block, json.loads((found.prepared / "spec.json").read_text())
    tags = {
        "experiment": found.experiment,
        "seed": found.seed,
        "task": block["task"],
        "model": block["model"],
        "fingerprint": spec["fingerprint"],
    }
    _check_sameness(registry.has_alias(name, alias), tags, f"{name}@{alias}")
    task = serving.TASKS[block["task"]]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "served")
        words = {key: tags[key] for key in ("task", "model")}
        words["fitted"] = found.about["fitted"]
        served = serving.keep(folder, found.file, found.prepared, words)
        card = model_card.card(
            name,
            alias,
            {
                "experiment": found.experiment,
                "block": block,
                "seed": found.seed,
                **found.about,
            },
            spec,
            found.metrics,
            (served.given, served.answered),
            task.LIMITS,
            (run.id, run.tags),
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        code = Path(__file__).with_name("served_model.py")
        packages = getattr(task, "PACKAGES", ())
        address = registry.log_model(run.id, code, folder, served, packages)
    return registry.register(address, name, alias, card, tags)


def _check_sameness(
    was: dict[str, str] | None, now: dict[str, str], address: str
) -> None:
    """Raises a ValueError if who asks for an alias would get answers of another kind."""
    for key in ("task", "fingerprint"):
        if was and key in was and was[key] != now[key]:
            raise ValueError(
                f"{address} is of another {key}. Expected {was[key]}, received"
                f" {now[key]}: give it another name with --name"
            )


if __name__ == "__main__":
    main()
