"""An exported network computes what Keras computes, or is not written."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import small_models
import tensorflow as tf
import toy

from engram import export, models, promote
from engram.layers import STLM, ParallelSTLM

# tf2onnx asks NumPy for names that it no longer has, and flatbuffers an old module.
pytestmark = pytest.mark.filterwarnings("default")
TASKS = [task for task in small_models.MODELS if task != "translation"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns of a task what `promote.trained` would, from a folder of runs."""
    root = tmp_path_factory.mktemp("exported")
    (root / "runs").mkdir()

    def found(task):
        word = small_models.MODELS[task][1]
        if not (root / task).exists():
            file, _, _ = small_models.write(root / task, task)
            place = root / "runs" / task / "models"
            place.mkdir(parents=True)
            shutil.copy(file, place / "seed-1.keras")
        prepared = root / task / small_models.MODELS[task][0]
        block = {"model": word, "task": task}
        return promote.Trained(task, block, "1", {}, {}, prepared)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield found


def network(found):
    """Returns the model; a GAN computes with the mean of its generator's weights."""
    return models.load(found.block["model"], found.block["task"], found.file)


def given(found, task):
    model = network(found)
    return export._inputs(getattr(model, "generator", model), task, found.prepared)


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_model_computes_what_keras_computes(trained, tmp_path, task):
    found = trained(task)
    assert export.exported(found, "saved_model", tmp_path / "out") < 1e-5
    inputs = given(found, task)
    loaded = tf.saved_model.load(str(tmp_path / "out/saved_model"))
    expected = network(found).predict(inputs, verbose=0)
    np.testing.assert_allclose(loaded.serve(inputs), expected, rtol=1e-4, atol=1e-6)
    assert np.ptp(expected) > 0
    assert getattr(network(found), "averaged", True)  # a GAN has other weights, too
    assert (tmp_path / "out/spec.json").read_bytes() == (
        found.prepared / "spec.json"
    ).read_bytes()
    about = json.loads((tmp_path / "out/network.json").read_text())
    assert about["model"] == found.block["model"]


@pytest.mark.parametrize("task", TASKS)
def test_onnx_computes_what_keras_computes(trained, tmp_path, task):
    found = trained(task)
    assert export.exported(found, "onnx", tmp_path / "out") < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "out/network.onnx"))
    inputs = given(found, task)
    if not isinstance(inputs, dict):
        (name,) = (one.name for one in session.get_inputs())
        inputs = {name: inputs}
    fewer = {name: one[:2] for name, one in inputs.items()}  # another size
    (made,) = session.run(None, fewer)
    expected = network(found).predict(inputs, verbose=0)[:2]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [STLM, ParallelSTLM])
@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_an_stlm_is_exported_to_onnx(tmp_path, kind, combine):
    import keras

    layer = kind(3, combine=combine, return_sequences=True)
    net = keras.Sequential([keras.Input((7, 2)), layer])
    small_models.scramble(net)
    x = np.random.default_rng(1).normal(size=(4, 7, 2)).astype(np.float32)
    expected = net.predict(x, verbose=0)
    run = export.WRITERS["onnx"](net, tmp_path / "net.onnx")
    np.testing.assert_allclose(run(x), expected, rtol=1e-4, atol=1e-6)


def test_a_graph_with_inputs_of_its_own_is_refused(trained, tmp_path, monkeypatch):
    """tf2onnx makes inputs of some constants: who feeds them, and what?"""
    import onnx

    load = onnxruntime.InferenceSession

    def more(file):
        model = onnx.load(file)
        constant = onnx.helper.make_tensor_value_info("constant", 1, [3])
        model.graph.input.append(constant)
        return load(model.SerializeToString())

    monkeypatch.setattr(onnxruntime, "InferenceSession", more)
    with pytest.raises(ValueError, match="it makes constant an input"):
        export.exported(trained("density"), "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_that_computes_something_else_is_not_written(trained, tmp_path, monkeypatch):
    def wrong(net, file):
        return lambda inputs: net.predict(inputs, verbose=0) + 1

    monkeypatch.setitem(export.WRITERS, "onnx", wrong)
    with pytest.raises(ValueError, match="as onnx it computes something else"):
        export.exported(trained("density"), "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_translator_is_told_where_it_is_served(trained, tmp_path):
    found = promote.Trained("x", toy.experiment("gru"), "1", {}, {}, Path())
    found.block["task"] = "translation"
    with pytest.raises(ValueError, match="`engram promote` serves it"):
        export.exported(found, "onnx", tmp_path / "out")


def test_the_command_refuses_a_folder_that_is_there_and_a_word_that_is_no_form(tmp_path):
    with pytest.raises(SystemExit, match="is there already"):
        export.main(["toy", "onnx", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        export.main(["toy", "h5", str(tmp_path / "new")])
