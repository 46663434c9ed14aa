r"""Puts a trained translator into MLflow, as a model that MLflow can serve.

    python -m engram.serve runs/french-transformer

The model is logged in the run of the experiment's first seed. What is printed is its
address and the command that serves it; then

    curl 127.0.0.1:5001/invocations -H 'Content-Type: application/json' \
      -d '{"inputs": ["the cat is on the mat"]}'

answers `{"predictions": [{"translation": "le chat est sur le tapis"}]}`. The server
needs Engram in its environment.
"""

import argparse
import json
import shlex
from pathlib import Path

from engram import translate

PORT = 5001  # `make ui` has MLflow's own, 5000


def main(argv: list[str] | None = None) -> None:
    """Logs the model of an experiment and prints how to serve it."""
    parser = argparse.ArgumentParser("python -m engram.serve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, help="folder runs/<experiment> of a suite")
    run = translate.trained(parser.parse_args(argv).run)
    from engram import tracking  # after the checks: MLflow

    place, sides = run.prepared, ("source", "target")
    text = json.loads((place / "text.json").read_text(encoding="utf-8"))
    with tracking.resumed(
        run.about["run_id"],
        name=f"{run.name} seed {run.seed}",
        group=run.experiment["dataset"],
        params={**run.experiment, "seed": run.seed, "learning_rate": run.about["rate"]},
        tags={"experiment": run.name, "model": run.experiment["model"]},
        spec=json.loads((place / "spec.json").read_text()),
        now="serve",
    ):
        uri = tracking.log_model(
            code=Path(__file__).with_name("served_translator.py"),
            files={
                "model": run.file,
                "spec": place / "spec.json",
                **{side: place / f"{side}.model" for side in sides},
            },
            config={"model": run.experiment["model"]},
            example=[text["validation"][0]["source"]],
            answer="translation",
        )
    store = tracking.address()
    print(uri)
    print(
        *([f"MLFLOW_TRACKING_URI={shlex.quote(store)}"] if store else []),
        f"mlflow models serve -m {uri} --env-manager local --port {PORT}",
    )


if __name__ == "__main__":
    main()
