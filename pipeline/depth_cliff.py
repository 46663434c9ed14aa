"""data/prepared/<dataset> + a stack of RBMs -> results/<cliff>.{json,png}.

One that was stopped goes on where it was.
"""

import functools
import json
import sys
from pathlib import Path

from engram import params


def main(name: str) -> None:
    """Measures the depth cliff `name` of `params.yaml`."""
    block = params.load_or_exit()["depth_cliffs"][name]
    # after the check: TensorFlow
    from engram import depth_cliff, tracking, training, unfinished
    from engram.models import very_deep_net

    prepared, start = Path("data/prepared", block["dataset"]), Path(block["start"])
    spec = json.loads((prepared / "spec.json").read_text())
    how = {key: block[key] for key in ("depths", "width", "nets", "train")}
    measure = functools.partial(depth_cliff.measure, prepared, start, spec, **how)
    code = [depth_cliff, training, very_deep_net]
    like = unfinished.like(block, [prepared, start], code)
    with (
        unfinished.rows(Path("runs", name, "unfinished.json"), like, measure) as measured,
        tracking.run(
            name=name,
            group=block["dataset"],
            params=block,
            tags={"depth_cliff": name},
            spec=spec,
        ) as (_, record),
    ):
        rows = []
        for row in measured:
            rows.append(row)
            record(depth_cliff.numbers(row), row["depth"])
        results = Path("results")
        results.mkdir(exist_ok=True)
        (results / f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n")
        figure = depth_cliff.draw(rows, block["train"]["optimizer"])
        picture = results / f"{name}.png"
        figure.savefig(picture, dpi=120, metadata={"Software": None})
        tracking.log_files([picture], "figures")


if __name__ == "__main__":
    main(*sys.argv[1:])
