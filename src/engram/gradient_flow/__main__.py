"""Reports how gradients flow through a model of your own.

    python -m engram.gradient_flow model.keras data.npz

`model.keras` is a saved Sequential or Functional model. `data.npz` has an array for each
input under its name, or `x` if there is one input alone, and, to hear of gradients of the
loss, the targets as `y` (`np.savez("data.npz", x=x, y=y)`); 64 rows are enough. The model
is loaded in Keras' safe mode: nothing in it is run as code.
"""

import argparse
import os
import sys
import zipfile
from pathlib import Path

ROWS = 64


def main(argv: list[str] | None = None) -> None:
    """Prints a report, or one line that says what is wrong."""
    parser = argparse.ArgumentParser(
        "python -m engram.gradient_flow", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", type=Path, help="a .keras file")
    parser.add_argument("data", type=Path, help="a .npz file")
    parser.add_argument("--rows", type=int, default=ROWS, help="of the data, default 64")
    parser.add_argument("--no-spectra", action="store_true", help="skip singular values")
    given = parser.parse_args(argv)
    for path in (given.model, given.data):
        if not path.is_file():
            sys.exit(f"{path}: no such file")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import tensorflow as tf

    from engram.gradient_flow import report, verdict

    try:
        model = _loaded(given.model)
        x, y = _read(given.data, model, given.rows)
        told = report.probe(model, x, y, spectra=not given.no_spectra)
    except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as error:
        sys.exit(" ".join(str(error).split()))
    print(verdict.text(told))


def _loaded(path: Path):
    """Returns the model of a file, compiled where its optimizer and loss are known.

    Raises:
        ValueError: if Keras cannot load it.
    """
    import keras

    from engram import layers, schedules  # noqa: F401, the second for compiled models

    for name in layers.__all__:
        getattr(layers, name)  # registers it
    try:
        try:
            return keras.models.load_model(path, safe_mode=True)
        except (ValueError, TypeError):
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: Keras cannot load it in safe mode: {first}") from error


def _read(path: Path, model, rows: int):
    """Returns the first rows of inputs, by name, and of targets or None.

    Raises:
        ValueError: if an input is missing or the file is none of arrays.
    """
    import numpy as np

    from engram.gradient_flow import graph

    names = [x.name for x in graph.graph_of(model).inputs]
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name][:rows] for name in file.files}
    except (ValueError, OSError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of arrays written by np.savez") from error
    if len(names) == 1 and "x" in data:
        data[names[0]] = data["x"]
    missing = [name for name in names if name not in data]
    if missing:
        raise ValueError(
            f"{path}: must have an array for each input, {', '.join(names)}"
            f"{' (or x)' if len(names) == 1 else ''}. Received: {', '.join(sorted(data))}"
        )
    given = [data[name] for name in names]
    y = data.get("y")
    if y is not None and not getattr(model, "compiled", False):
        print("The model is not compiled: gradients of a loss are left out.\n")
        y = None
    return given[0] if len(given) == 1 else given, y


if __name__ == "__main__":
    main()
