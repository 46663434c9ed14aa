"""What checkpoints add to the time of training, in the tour's own experiments.

Each trains as its stage does, the first seed and rate, in turn with checkpoints and
without, in this process; what is compared is the time of the whole training.

    python benchmarks/checkpoint_cost.py   # writes results/checkpoint_cost.json
"""

import itertools
import json
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import logging_cost
import yaml

from engram import checkpoints, repository, training

EXPERIMENTS = {"digits-cnn": 7, "traffic-gru": 3, "french-transformer": 3}  # pairs
ROOT = logging_cost.ROOT
Seconds = list[float]


def main() -> None:
    """Measures, prints the table and writes the results file."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        rows = [measured(name, values, pairs) for name, pairs in EXPERIMENTS.items()]
    content = {
        "rows": rows,
        "geomean": statistics.geometric_mean(row["ratio"] for row in rows),
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("keras", "tensorflow")},
    }
    out = ROOT / "benchmarks/results/checkpoint_cost.json"
    out.write_text(json.dumps(content, indent=2) + "\n")


def measured(name: str, values: dict, pairs: int) -> dict:
    """Returns a line of the table."""
    numbers, written = itertools.count(), []
    write = checkpoints.write

    def counted(folder, arrays, about):
        began = time.perf_counter()
        write(folder, arrays, about)
        written.append(time.perf_counter() - began)

    def fit(folder: Path | None) -> float:
        began = time.perf_counter()
        logging_cost.fit(name, values, training.unrecorded, folder)
        return time.perf_counter() - began

    checkpoints.write = counted
    try:
        fit(None)  # the first one reads data and traces what the others have
        found: tuple[Seconds, Seconds] = [], []
        for _ in range(pairs):
            found[0].append(fit(Path(f"checkpoints-{next(numbers)}")))
            found[1].append(fit(None))
    finally:
        checkpoints.write = write
    ours, peer = map(statistics.median, found)
    each, own = len(written) / pairs, sum(written) / sum(found[0])
    print(
        f"{name}: {ours:.2f} s with {each:.0f} checkpoints, {peer:.2f} s without,"
        f" {ours / peer - 1:+.1%}; writing alone {own:.1%}",
        flush=True,
    )
    return {
        "case": f"{each:.0f} checkpoints in {ours:.1f} s",
        "pair": f"{name}, with checkpoints against without",
        "ours": 1 / ours,
        "peer": 1 / peer,
        "ratio": peer / ours,
        "unit": "fits/s",
        "writing": own,
        "spread": [max(side) / min(side) for side in found],
    }


if __name__ == "__main__":
    main()
