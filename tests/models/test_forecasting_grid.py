"""Layers over images forecast detectors on a grid, each pixel in its place."""

import json
import shutil

import keras
import numpy as np
import pytest
import yaml
from keras import ops
from toy import ROOT, VIDEO

from engram import models
from engram.models import forecasting as forecasters
from engram.tasks import forecasting

DEEP = {word: VIDEO[word] for word in ("conv_lstm", "conv_stlm")}
STUDY = ROOT / "studies/city_counts/params.yaml"


@pytest.fixture(scope="module")
def grid(tmp_path_factory, write_prepared):
    """A prepared dataset of 2 x 3 detectors, sines without noise."""
    folder = tmp_path_factory.mktemp("grid")
    day = 2 * np.pi * np.arange(240)[:, None] / 48
    spec = write_prepared(folder, 60 + 20 * np.sin(day + np.arange(6)))
    text = json.dumps({**spec, "layout": "grid 2 x 3"})
    (folder / "spec.json").write_text(text)
    return folder


@pytest.fixture(scope="module", params=DEEP)
def fitted(request, grid):
    """Each model in turn, fitted: its word, the model and its losses."""
    model = _build(request.param, grid)
    data = forecasting.batches(grid, "train", batch_size=8, seed=1)
    before = model.evaluate(data, verbose=0)
    model.fit(data, epochs=4, shuffle=False, verbose=0)
    return request.param, model, before, model.evaluate(data, verbose=0)


def _spec(folder):
    return json.loads((folder / "spec.json").read_text())


def _build(word, folder):
    keras.utils.set_random_seed(1)
    model = models.build(word, _spec(folder), 0.01, **DEEP[word])
    model.jit_compile = False
    return model


def _inputs(folder):
    data = forecasting.batches(folder, "test", batch_size=4)
    return next(inputs for inputs, *_ in data.as_numpy_iterator())


class Shifted(keras.layers.Layer):
    """Every pixel gets all steps of the pixel above it and two to the left."""

    def call(self, images):  # (B, T, H, W, 3)
        images = ops.roll(images, (1, 2), axis=(2, 3))
        images = ops.transpose(images, (0, 2, 3, 1, 4))
        return ops.reshape(images, (-1, *images.shape[1:3], 12 * 3))


def test_a_layer_sees_detectors_and_steps_where_they_belong(grid):
    """So nothing is left in which the file under test could change a result."""
    model = forecasters.convolutional(
        lambda return_sequences: Shifted(), _spec(grid), "shifted", 0.01
    )
    draw = np.random.default_rng(1)
    kernel, bias = draw.normal(size=(36, 12)), draw.normal(size=12)
    model.get_layer("change").set_weights([kernel, bias])
    given = {
        "readings": draw.normal(size=(3, 12, 6)).astype(np.float32),
        "slot": np.array([5, 0, 47], np.int32),
    }
    forecast = ops.convert_to_numpy(model(given))
    for b, slot in enumerate(given["slot"]):
        angle = 2 * np.pi * (slot - 12 + np.arange(12)) / 48
        for n in range(6):
            row, column = divmod(n, 3)
            above = (row - 1) % 2 * 3 + (column - 2) % 3
            seen = [given["readings"][b, :, above], np.sin(angle), np.cos(angle)]
            change = np.stack(seen, axis=1).ravel() @ kernel + bias
            wanted = given["readings"][b, -1, n] + change
            np.testing.assert_allclose(forecast[b, :, n], wanted, rtol=0, atol=1e-4)


def test_fitting_at_least_halves_the_loss_on_pure_sines(fitted):
    _, model, before, after = fitted
    assert model.output_shape == (None, 12, 6)
    assert after < before / 2


def test_a_detector_is_forecast_from_its_neighbours_too(fitted, grid):
    _, model, *_ = fitted
    inputs = _inputs(grid)
    other = inputs["readings"].copy()
    other[:, :, 0] += 1
    before = ops.convert_to_numpy(model(inputs))
    change = np.abs(model({**inputs, "readings": other}) - before).max((0, 1))
    assert (change[[0, 1, 3, 4]] > 1e-4).all()  # at and around row 0, column 0


def test_a_model_comes_back_from_its_file_with_equal_forecasts(fitted, grid, tmp_path):
    word, model, *_ = fitted
    model.save(tmp_path / "model.keras")
    again = models.load(word, "forecasting", tmp_path / "model.keras")
    inputs = _inputs(grid)
    np.testing.assert_array_equal(again(inputs), ops.convert_to_numpy(model(inputs)))


@pytest.mark.parametrize("layout", ["ring", "network", "grid", "grid 2x3", "grid 3 x 3"])
@pytest.mark.parametrize("word", DEEP)
def test_a_dataset_without_a_grid_is_refused_by_name(word, layout, grid, tmp_path):
    shutil.copytree(grid, tmp_path / "other")
    text = json.dumps({**_spec(grid), "layout": layout})
    (tmp_path / "other/spec.json").write_text(text)
    with pytest.raises(ValueError) as refused:
        _build(word, tmp_path / "other")
    message = str(refused.value)
    assert f"model '{word}' needs detectors on a grid" in message
    assert "dataset 'sines'" in message and "its 6 detectors" in message
    assert message.endswith(f"Received: {layout!r}")


@pytest.mark.parametrize("word", DEEP)
def test_a_task_without_images_is_refused_by_name(word):
    spec = {"task": "sequences", "dataset": "adding"}
    with pytest.raises(ValueError) as refused:
        models.build(word, spec, 0.01, **DEEP[word])
    message = str(refused.value)
    assert f"model '{word}' needs images" in message
    assert "Received: dataset 'adding' of task 'sequences'" in message


# --- a fair comparison ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("nyc_taxi", {"mlp", "gru", "lstm", "stlm"}),
        ("nyc_taxi", set(DEEP)),
        ("montevideo_bus", {"mlp", "gru", "lstm", "stlm"}),
    ],
)
def test_compared_models_of_the_study_have_parameters_within_3_percent(dataset, words):
    values = yaml.safe_load(STUDY.read_text())
    windows = values["datasets"][dataset]["prepare"]
    spec = {
        "task": "forecasting",
        "dataset": dataset,
        "history": windows["history"],
        "horizon": windows["horizon"],
        "detectors": ["a", "b"],
        "slots_per_day": 24,
        "layout": "grid 1 x 2",
    }
    experiments = values["experiments"].values()
    sizes = {
        one["model"]: models.build(one["model"], spec, 0.01, **one["args"]).count_params()
        for one in experiments
        if one["dataset"] == dataset and one["model"] in words
    }
    assert set(sizes) == words
    assert max(sizes.values()) <= 1.03 * min(sizes.values()), sizes
