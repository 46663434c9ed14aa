"""The source of a dataset -> data/raw/<dataset>."""

import sys
from pathlib import Path

from engram import datasets, params


def main(name: str) -> None:
    """Generates or downloads the dataset `name` of `params.yaml`."""
    block = params.load_or_exit()["datasets"][name]
    target = Path("data/raw", name)
    try:
        datasets.fetch(block["source"], target, file=block["file"], **block["fetch"])
    except (datasets.mirror.FetchError, ValueError) as error:
        sys.exit(f"fetch {name}: {error}")
    print(f"{target} is ready")


if __name__ == "__main__":
    main(*sys.argv[1:])
