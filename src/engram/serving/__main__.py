"""Does a promoted model answer here as where it was promoted?

    python -m engram.serving FOLDER

The folder is `artifacts/served` of the model's own. It is loaded, its example answered
and compared with the answer in it; an answer that differs ends the command with 1.
"""

import argparse
import sys
from pathlib import Path

from engram import serving

CLOSE = 1e-5  # of the largest number of a field


def main(argv: list[str] | None = None) -> None:
    """Prints how far each field of the answer is from what it was."""
    parser = argparse.ArgumentParser("python -m engram.serving", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder")
    folder = Path(parser.parse_args(argv).folder)
    if not (folder / "serving.json").is_file():
        sys.exit(f"{folder}: no folder `served` of a promoted model, with serving.json")
    found = serving.load(folder).deviations()
    for name, deviation in found.items():
        print(f"{name}: {deviation:.1g} from what it was")
    if max(found.values()) > CLOSE:
        sys.exit(f"at most {CLOSE:g} of a field's largest number is expected")


if __name__ == "__main__":
    main()
