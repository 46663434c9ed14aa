"""Every video model predicts from the past alone, learns, and returns from its file."""

import json

import keras
import layer_checks
import numpy as np
import pytest
import yaml
from keras import ops
from toy import ROOT

from engram import models

SPEC = {"task": "video", "height": 8, "width": 12, "mean": 0.1}
DEEP = {
    "conv_lstm": {"filters": 3, "kernel_size": 3},
    "conv_stlm": {
        "filters": 2,
        "kernel_size": 3,
        "combine": "concat",
        "short_horizon": 4,
        "long_horizon": 20,
    },
}
WORDS = {"last_frame": {}} | DEEP


def _build(word, rate=0.01):
    keras.utils.set_random_seed(1)
    model = models.build(word, SPEC, rate, **WORDS[word])
    model.jit_compile = False
    return model


def _drifting(clips=16, steps=7):
    """Returns clips of a square that moves one pixel to the right, round and round."""
    frames = np.zeros((clips, steps, 8, 12, 1), np.float32)
    for clip in range(clips):
        for step in range(steps):
            columns = (clip + step + np.arange(3)) % 12
            frames[clip, step, 2:5, columns] = 1
    return frames


@pytest.fixture(params=WORDS)
def word(request):
    return request.param


@pytest.fixture(params=DEEP)
def deep(request):
    return request.param


def test_a_prediction_is_a_frame_for_each_frame_read(word):
    model = _build(word)
    for clips, steps in ((2, 3), (1, 6)):
        predicted = model.predict(_drifting(clips, steps), verbose=0)
        assert predicted.shape == (clips, steps, 8, 12, 1)
        assert 0 <= predicted.min() and predicted.max() <= 1


def test_a_prediction_knows_nothing_of_the_frames_to_come(word):
    model, frames = _build(word), _drifting()
    other = frames.copy()
    other[:, 4:] = 1 - other[:, 4:]
    before, after = (ops.convert_to_numpy(model(x)) for x in (frames, other))
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 1e-3


def test_a_shorter_clip_has_the_same_predictions(word):
    """So a model can run on from any number of frames."""
    model, frames = _build(word), _drifting()
    whole = ops.convert_to_numpy(model(frames))
    np.testing.assert_allclose(model(frames[:, :3]), whole[:, :3], rtol=0, atol=1e-6)


def test_a_deep_model_remembers_earlier_frames(deep):
    model, frames = _build(deep), _drifting()
    other = frames.copy()
    other[:, 0] = 0
    before, after = (ops.convert_to_numpy(model(x)) for x in (frames, other))
    assert np.abs(after[:, 3] - before[:, 3]).max() > 1e-5


def test_a_deep_model_starts_near_the_mean_of_a_pixel(deep):
    predicted = ops.convert_to_numpy(_build(deep)(np.zeros((1, 3, 8, 12, 1))))
    np.testing.assert_allclose(predicted, SPEC["mean"], rtol=0, atol=1e-3)


def test_the_last_frame_is_what_it_predicts():
    frames = _drifting()
    np.testing.assert_array_equal(_build("last_frame")(frames), frames)


def test_the_last_frame_goes_through_fit_and_learns_nothing():
    model, frames = _build("last_frame"), _drifting()
    loss = model.evaluate(frames[:, :-1], frames[:, 1:], verbose=0)
    stop = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
    history = model.fit(
        frames[:, :-1],
        frames[:, 1:],
        validation_data=(frames[:, :-1], frames[:, 1:]),
        callbacks=[stop],
        verbose=0,
    ).history
    assert history["loss"] == [pytest.approx(loss, rel=1e-5)]
    assert history["val_loss"] == [pytest.approx(loss, rel=1e-5)]
    assert model.count_params() == 0


def test_fitting_at_least_halves_the_loss_of_a_drifting_square(deep):
    model, frames = _build(deep, 0.03), _drifting()
    given, target = frames[:, :-1], frames[:, 1:]
    before = model.evaluate(given, target, verbose=0)
    model.fit(given, target, batch_size=4, epochs=15, verbose=0)
    assert model.evaluate(given, target, verbose=0) < before / 2


def test_every_weight_takes_part(deep):
    layer_checks.check_gradients(_build(deep), _drifting(2))


def test_a_model_comes_back_from_its_file_with_equal_predictions(word, tmp_path):
    model, frames = _build(word), _drifting()
    model.save(tmp_path / "model.keras")
    again = models.load(word, "video", tmp_path / "model.keras")
    np.testing.assert_array_equal(again(frames), ops.convert_to_numpy(model(frames)))
    assert hasattr(again, "solve") == (word == "last_frame")


def test_deep_models_of_the_tour_have_parameters_within_5_percent():
    experiments = yaml.safe_load((ROOT / "params.yaml").read_text())["experiments"]
    sizes = {
        name: models.build(one["model"], SPEC, 0.01, **one["args"]).count_params()
        for name, one in experiments.items()
        if one["task"] == "video" and one["model"] in DEEP
    }
    assert len(sizes) == len(DEEP)
    assert max(sizes.values()) <= 1.05 * min(sizes.values()), json.dumps(sizes)
