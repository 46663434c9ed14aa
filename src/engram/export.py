"""Writes a trained network as a SavedModel or as ONNX, and verifies that it is the same.

    engram export digits-cnn onnx exports/digits-cnn

In the folder of a suite. Of an experiment's seeds the one with the least loss on
validation is taken, as by `engram promote`. The network reads what the model reads:
inputs are scaled as `spec.json`, which is put beside it, says. It is loaded again and
answers rows of the validation part as Keras does, or nothing is written.

Of a GAN the generator is exported. A translator decodes step by step, outside of its
network: `engram promote` serves it.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engram import params, promote, serving

FORMS = {"saved_model": "saved_model", "onnx": "network.onnx"}
ROWS = 3  # of the validation part, to compare on
CLOSE = 1e-4  # of the largest number


def main(argv: list[str] | None = None) -> None:
    """Exports the network of an experiment."""
    parser = argparse.ArgumentParser("engram export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("experiment", help="of params.yaml")
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("folder", type=Path, help="to write")
    given = parser.parse_args(argv)
    try:
        if given.folder.exists():
            raise ValueError(f"{given.folder} is there already")
        found = promote.trained(given.experiment)
        deviation = exported(found, given.form, given.folder)
    except (ValueError, params.ParamsError) as error:
        sys.exit(f"export {given.experiment}: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"export to ONNX needs {error.name}, of Engram's extra `onnx`")
    file = given.folder / FORMS[given.form]
    print(f"{file}: {deviation:.1g} from Keras, as a part of the largest number")


def exported(found: promote.Trained, form: str, folder: Path) -> float:
    """Writes the network and returns how far it is from Keras' own.

    Args:
        found: the trained model.
        form: a key of `FORMS`.
        folder: new, to write.

    Raises:
        ValueError: if it cannot be exported, or computes something else.
    """
    from engram import models

    word, task = found.block["model"], found.block["task"]
    if task == "translation":
        raise ValueError("it decodes outside of its network; `engram promote` serves it")
    model = models.load(word, task, found.file)
    network = _network(model)
    inputs = _inputs(network, task, found.prepared)
    expected = model.predict(inputs, verbose=0)
    network.predict(inputs, verbose=0)  # Keras exports what was called before
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, FORMS[form])
        run = WRITERS[form](network, file)
        made = run(inputs)
        if made.shape != expected.shape:
            raise ValueError(
                f"as {form} it computes {made.shape}. {expected.shape} is expected"
            )
        deviation = serving.deviation(made, expected)
        if deviation > CLOSE:
            raise ValueError(
                f"as {form} it computes something else: {deviation:.1g} from Keras, as a"
                f" part of the largest number. At most {CLOSE:g} is expected"
            )
        shutil.copy(found.prepared / "spec.json", place)
        about = {"experiment": found.experiment, "seed": found.seed, "model": word}
        Path(place, "network.json").write_text(json.dumps(about, indent=2) + "\n")
        shutil.copytree(place, folder)
    return deviation


def _network(model):
    """Returns what a model computes with: of a GAN its generator, with mean weights."""
    generator = getattr(model, "generator", None)
    if generator is None:
        return model
    for weight, mean in zip(model._own(), model.averaged, strict=False):
        weight.assign(mean)
    return generator


def _inputs(network, task: str, prepared: Path) -> Any:
    """Returns a few rows as the network reads them."""
    from engram import tasks

    if task in ("generation", "image_generation"):
        width = network.input_shape[-1]
        return np.random.default_rng(1).normal(size=(ROWS, width)).astype(np.float32)
    batch = next(iter(tasks.task(task).batches(prepared, "validation", ROWS)))
    given = batch[0] if isinstance(batch, tuple) else batch
    return (
        {name: np.asarray(one) for name, one in given.items()}
        if isinstance(given, dict)
        else np.asarray(given)
    )


def _saved_model(network, file: Path) -> Callable:
    """Writes a SavedModel; returns the function that it computes."""
    import tensorflow as tf

    network.export(str(file), format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(file))
    return lambda inputs: np.asarray(loaded.serve(inputs))


def _onnx(network, file: Path) -> Callable:
    """Writes ONNX; returns the function that ONNX Runtime computes with it."""
    import onnxruntime
    import tensorflow as tf
    import tf2onnx  # noqa: F401, Keras says of a missing one that it is TensorFlow's fault

    # ONNX has no calls: functions that XLA would compile become part of the graph.
    tf.config.run_functions_eagerly(True)
    try:
        network.export(str(file), format="onnx", verbose=False)
    finally:
        tf.config.run_functions_eagerly(False)
    session = onnxruntime.InferenceSession(str(file))
    names = [one.name for one in session.get_inputs()]
    known = [one.name for one in network.inputs]
    if sorted(names) != sorted(known):
        others = ", ".join(sorted(set(names) - set(known)))
        raise ValueError(
            f"tf2onnx cannot convert this network: it makes {others} an input"
        )

    def run(inputs):
        given = inputs if isinstance(inputs, dict) else {names[0]: inputs}
        return session.run(None, given)[0]

    return run


WRITERS = {"saved_model": _saved_model, "onnx": _onnx}


if __name__ == "__main__":
    main()
