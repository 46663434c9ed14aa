"""runs/<experiment> + the test part -> metrics/, figures/<experiment>."""

import json
import sys
from pathlib import Path

from engram import params


def main(name: str) -> None:
    """Measures the experiment `name` of `params.yaml` on its test part."""
    chosen = params.load_or_exit()["experiments"][name]
    from engram import models, tasks, tracking  # after the check: TensorFlow

    task, out = tasks.task(chosen["task"]), Path("runs", name)
    runs = json.loads((out / "run.json").read_text())
    trained = [
        models.load(chosen["model"], out / "models" / f"seed-{seed}.keras")
        for seed in runs
    ]
    found = task.evaluate(trained, Path("data/prepared", chosen["dataset"]))
    about = {
        "experiment": name,
        "task": chosen["task"],
        "dataset": chosen["dataset"],
        "model": chosen["model"],
        "seeds": [int(seed) for seed in runs],
        "parameters": trained[0].count_params(),
        "train_seconds": sum(run["seconds"] for run in runs.values()) / len(runs),
        **{key: found[key] for key in task.REPORTED},
    }
    Path("metrics").mkdir(exist_ok=True)
    files = {"": about, ".details": found["details"]}
    for suffix, content in files.items():
        path = Path("metrics", f"{name}{suffix}.json")
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    pictures = task.figures(found, Path("figures", name))

    for seed, metrics in zip(runs, found["per_seed"], strict=True):
        title = f"{name} seed {seed}"
        with tracking.resumed(runs[seed]["run_id"], chosen["dataset"], title):
            size = {"parameters": about["parameters"], "seconds": runs[seed]["seconds"]}
            tracking.log_results({**metrics, **size})
            tracking.log_files([out / "models" / f"seed-{seed}.keras"], "model")
            tracking.log_files(pictures, "figures")


if __name__ == "__main__":
    main(*sys.argv[1:])
