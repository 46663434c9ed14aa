"""data/prepared/<dataset> + a stack of RBMs -> results/<cliff>.{json,png}."""

import json
import sys
from pathlib import Path

from engram import params


def main(name: str) -> None:
    """Measures the depth cliff `name` of `params.yaml`."""
    block = params.load_or_exit()["depth_cliffs"][name]
    from engram import depth_cliff, tracking  # after the check: TensorFlow

    prepared, results = Path("data/prepared", block["dataset"]), Path("results")
    spec = json.loads((prepared / "spec.json").read_text())
    how = {key: block[key] for key in ("depths", "width", "nets", "train")}
    with tracking.run(
        name=name,
        group=block["dataset"],
        params=block,
        tags={"depth_cliff": name},
        spec=spec,
    ) as (_, record):
        rows = depth_cliff.measure(
            prepared, Path(block["start"]), spec, record=record, **how
        )
        results.mkdir(exist_ok=True)
        (results / f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n")
        picture = results / f"{name}.png"
        figure = depth_cliff.draw(rows, block["train"]["optimizer"])
        figure.savefig(picture, dpi=120, metadata={"Software": None})
        tracking.log_files([picture], "figures")


if __name__ == "__main__":
    main(*sys.argv[1:])
