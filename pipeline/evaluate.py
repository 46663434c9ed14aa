"""runs/<experiment> + the test part -> metrics/, figures/<experiment>."""

import json
import sys
from pathlib import Path

from engram import params


def main(name: str) -> None:
    """Measures the experiment `name` of `params.yaml` on its test part."""
    experiment = params.load_or_exit()["experiments"][name]
    from engram import fits, models, tasks, tracking  # after the check: TensorFlow

    task, out = tasks.task(experiment["task"]), Path("runs", name)
    runs = json.loads((out / "run.json").read_text())
    history = json.loads((out / "history.json").read_text())
    words = experiment["model"], experiment["task"]
    trained = [
        models.load(*words, out / "models" / f"seed-{seed}.keras") for seed in runs
    ]
    cost = fits.cost(runs, solved=hasattr(trained[0], "solve"))
    prepared = Path("data/prepared", experiment["dataset"])
    found = task.evaluate(trained, prepared, cost["fitted"]) | {"history": history}
    about = {
        "experiment": name,
        **{key: experiment[key] for key in ("task", "dataset", "model")},
        "parameters": trained[0].count_params(),
        **cost,
        **{key: found[key] for key in task.REPORTED},
    }
    curves = found["details"]["curves"] + fits.curves(history)
    details = found["details"] | {"curves": curves}
    Path("metrics").mkdir(exist_ok=True)
    for suffix, content in {"": about, ".details": details}.items():
        path = Path("metrics", f"{name}{suffix}.json")
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    pictures = task.figures(found, Path("figures", name))

    for (seed, run), metrics in zip(runs.items(), found["per_seed"], strict=True):
        with tracking.resumed(
            run["run_id"],
            name=f"{name} seed {seed}",
            group=experiment["dataset"],
            params={**experiment, "seed": seed, "learning_rate": run["rate"]},
            tags={"experiment": name, "model": experiment["model"]},
            spec=found["spec"],
        ):
            tracking.log_results(metrics)
            tracking.log_files([out / "models" / f"seed-{seed}.keras"], "model")
            tracking.log_files(pictures, "figures")
            pictures = []  # they show the first seed, or the mean of all


if __name__ == "__main__":
    main(*sys.argv[1:])
