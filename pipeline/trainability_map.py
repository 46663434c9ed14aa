"""data/prepared/<dataset> -> results/<map>.{json,png}.

One that was stopped goes on where it was.
"""

import functools
import json
import sys
from pathlib import Path

from engram import params


def main(name: str) -> None:
    """Measures the trainability map `name` of `params.yaml`."""
    block = params.load_or_exit()["trainability_maps"][name]
    # after the check: TensorFlow
    from engram import tracking, trainability_map, unfinished
    from engram.tasks import classification

    prepared = Path("data/prepared", block["dataset"])
    spec = json.loads((prepared / "spec.json").read_text())
    how = {key: value for key, value in block.items() if key != "dataset"}
    measure = functools.partial(trainability_map.measure, prepared, spec, **how)
    like = unfinished.like(block, [prepared], [trainability_map, classification])
    with (
        unfinished.rows(Path("runs", name, "unfinished.json"), like, measure) as measured,
        tracking.run(
            name=name,
            group=block["dataset"],
            params=block,
            tags={"trainability_map": name},
            spec=spec,
        ) as (_, record),
    ):
        rows = []
        for row in measured:
            rows.append(row)
            if row["accuracy"] is not None:
                record({f"accuracy/{row['sigma_w2']}": row["accuracy"]}, row["depth"])
        theory = block["activation"], block["sigma_b2"]
        found = {"rows": rows, "scales": trainability_map.scales(rows, *theory)}
        results = Path("results")
        results.mkdir(exist_ok=True)
        (results / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
        figure = trainability_map.draw(rows, *theory)
        picture = results / f"{name}.png"
        figure.savefig(picture, dpi=120, metadata={"Software": None})
        tracking.log_files([picture], "figures")


if __name__ == "__main__":
    main(*sys.argv[1:])
