"""data/prepared/<dataset> -> runs/<experiment>/{models, history, run, chosen}."""

import functools
import json
import sys
from pathlib import Path

from engram import params


def main(name: str) -> None:
    """Trains the experiment `name` of `params.yaml`, one model per seed."""
    experiment = params.load_or_exit()["experiments"][name]
    # After the check, since TensorFlow takes its time.
    from engram import distribution, models, restarts, tasks, tracking, training

    block = experiment["train"]
    if lacking := distribution.lacking(block.get("require")):
        sys.exit(f"train {name}: {lacking}")
    prepared, out = Path("data/prepared", experiment["dataset"]), Path("runs", name)
    spec = json.loads((prepared / "spec.json").read_text())
    task = tasks.task(experiment["task"])
    build = functools.partial(models.of_experiment, experiment, spec)
    batches = functools.partial(task.batches, prepared, batch_size=block["batch_size"])
    watch = None
    if hasattr(task, "watch"):
        watch = functools.partial(task.watch, prepared=prepared)

    def recorder(seed, rate, kept):
        return tracking.run(
            name=f"{name} seed {seed} rate {rate:g}",
            group=experiment["dataset"],
            params={**experiment, "seed": seed, "learning_rate": rate},
            tags={"experiment": name, "model": experiment["model"], **training.devices()},
            spec=spec,
            kept=kept,
        )

    how = training.settings(experiment["start"], block)
    chief = distribution.is_chief(how.strategy)
    told = recorder if chief else training.unrecorded
    with restarts.kept(f"train@{name}", {f"experiments.{name}": experiment}, chief) as at:
        trained = training.train(build, batches, how, block["seeds"], told, watch, at)
        if not chief:  # of several workers one writes
            return

        (out / "models").mkdir(parents=True, exist_ok=True)
        for one in trained:
            one.model.save(out / "models" / f"seed-{one.seed}.keras")
        write = {
            "history": {one.seed: one.history for one in trained},
            "run": {one.seed: one.about() for one in trained},
            "chosen": training.chosen(how, trained),
        }
        for stem, content in write.items():
            (out / f"{stem}.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
