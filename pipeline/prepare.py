"""data/raw/<dataset> -> data/prepared/<dataset>: the split is chosen here, once."""

import sys
from pathlib import Path

from engram import params, tasks


def main(name: str) -> None:
    """Prepares the dataset `name` of `params.yaml` for its task."""
    block = params.load_or_exit()["datasets"][name]
    task = tasks.task(block["task"])
    raw, out = Path("data/raw", name), Path("data/prepared", name)
    try:
        spec = task.prepare(raw, out, **block["prepare"])
    except ValueError as error:
        sys.exit(f"prepare {name}: {error}")
    print(f"{out}: {spec['parts']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
