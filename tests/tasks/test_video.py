"""A frame is predicted from the frames before it, true ones or the model's own."""

import json
import math

import keras
import numpy as np
import pytest

from engram import datasets, models
from engram.datasets import moving_digits
from engram.tasks import video
from engram.tasks.video import DataError, batches, clips, evaluate, figures, prepare
from engram.tasks.video_metrics import measure

SPEC = {"history": 3, "horizon": 2, "unit": "pixels per frame"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving_digits") / "raw"
    datasets.fetch("moving_digits", folder, file="", clips=30)
    return folder


@pytest.fixture(scope="module")
def ready(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(raw, folder, history=10, horizon=10)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Returns a function that writes a prepared folder of frames `(B, T, H, W)`."""

    def write(frames, history=3, horizon=2):
        size = len(frames)
        spec = {
            **SPEC,
            "dataset": "film",
            "fingerprint": "f",
            "history": history,
            "horizon": horizon,
            "height": frames.shape[2],
            "width": frames.shape[3],
            "white": 255,
            "mean": 0.1,
            "parts": {
                "train": [0, size - 4],
                "validation": [size - 4, size - 2],
                "test": [size - 2, size],
            },
        }
        np.save(tmp_path / "frames.npy", frames)
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        return tmp_path

    return write


def spec_of(prepared):
    return json.loads((prepared / "spec.json").read_text())


def noise(size=9, steps=5):
    random = np.random.default_rng(1)
    return random.integers(0, 256, (size, steps, 6, 4), np.uint8)


class Predictor:
    """Predicts with a function of the frames seen; remembers what it was shown."""

    def __init__(self, function):
        self.function = function
        self.shown = []

    def predict(self, frames, batch_size, verbose):
        self.shown.append(frames.copy())
        return self.function(frames)


# prepare


def test_the_parts_are_those_of_the_source(raw, ready):
    spec = spec_of(ready)
    assert spec["parts"] == {
        "train": [0, 18],
        "validation": [18, 24],
        "test": [24, 30],
    }
    for part, (start, end) in spec["parts"].items():
        drawn = moving_digits.film(part, end - start)[0]
        np.testing.assert_array_equal(np.load(ready / "frames.npy")[start:end], drawn)


def test_the_spec_tells_what_later_stages_need(ready):
    spec, frames = spec_of(ready), np.load(ready / "frames.npy")
    assert (spec["task"], spec["dataset"]) == ("video", ready.name)
    assert (spec["history"], spec["horizon"]) == (10, 10)
    assert (spec["height"], spec["width"], spec["white"]) == (24, 24, 255)
    assert frames.dtype == np.uint8
    assert spec["mean"] == pytest.approx(frames[:18].mean() / 255)  # of training alone


def test_a_clip_is_cut_to_history_and_horizon(raw, tmp_path):
    whole = prepare(raw, tmp_path / "a", history=10, horizon=10)
    cut = prepare(raw, tmp_path / "b", history=4, horizon=3)
    a, b = (np.load(tmp_path / name / "frames.npy") for name in "ab")
    np.testing.assert_array_equal(b, a[:, :7])
    assert cut["fingerprint"] != whole["fingerprint"]
    again = prepare(raw, tmp_path / "c", history=10, horizon=10)
    assert again["fingerprint"] == whole["fingerprint"]


def test_more_frames_than_a_clip_has_are_refused(raw, tmp_path):
    with pytest.raises(DataError, match=r"20 frames, .* Received: 15 \+ 6"):
        prepare(raw, tmp_path / "out", history=15, horizon=6)
    assert not (tmp_path / "out").exists()


# batches


@pytest.mark.parametrize("part", ["train", "validation", "test", "train+validation"])
def test_the_target_is_one_frame_ahead(folder, part):
    frames = noise()
    data = list(batches(folder(frames), part, batch_size=2).as_numpy_iterator())
    given, target = (np.concatenate(arrays) for arrays in zip(*data, strict=True))
    first, last = {
        "train": (0, 5),
        "validation": (5, 7),
        "test": (7, 9),
        "train+validation": (0, 7),
    }[part]
    pixels = frames[first:last, ..., None] / np.float32(255)
    assert given.dtype == target.dtype == np.float32
    np.testing.assert_allclose(given, pixels[:, :-1], rtol=1e-6)
    np.testing.assert_allclose(target, pixels[:, 1:], rtol=1e-6)
    assert 0 <= given.min() and given.max() <= 1


def test_a_seed_shuffles_the_clips_anew_in_every_epoch(folder):
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None] + np.zeros(
        (20, 5, 2, 2), np.uint8
    )
    out = folder(frames)

    def epochs(seed):
        data = batches(out, "train", 4, seed=seed)
        return [
            [round(255 * float(one)) for given, _ in data for one in given[:, 0, 0, 0, 0]]
            for _ in range(2)
        ]

    first, second = epochs(1)
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second
    assert epochs(1) == [first, second]
    assert epochs(None) == [list(range(16))] * 2


# evaluate


def test_a_perfect_forecaster_has_no_error(folder):
    frames = noise()
    out = folder(frames)
    truth = clips(out, spec_of(out), "test")

    def knows(seen):
        return truth[:, 1 : seen.shape[1] + 1]

    found = evaluate([Predictor(knows)], out, "train")
    metrics = found["metrics"]
    assert metrics["mse_next"] == metrics["mse_free"] == 0
    assert metrics["mae_next"] == metrics["mae_free"] == 0
    entropy = -(
        truth * np.log(truth.clip(1e-7)) + (1 - truth) * np.log((1 - truth).clip(1e-7))
    )
    expected = entropy[:, 3:].sum((2, 3, 4)).mean()
    assert metrics["bce_next"] == pytest.approx(expected, rel=1e-5)  # not less


def test_free_running_feeds_each_prediction_back(folder):
    out = folder(noise())
    truth = clips(out, spec_of(out), "test")
    model = Predictor(lambda seen: seen * 0.5)
    found = evaluate([model], out, "train")
    _, first, second = model.shown  # all true frames at once; then step by step
    np.testing.assert_array_equal(model.shown[0], truth[:, :-1])
    np.testing.assert_array_equal(first, truth[:, :3])
    np.testing.assert_array_equal(second[:, :3], truth[:, :3])
    np.testing.assert_array_equal(second[:, 3], truth[:, 2] * 0.5)
    np.testing.assert_array_equal(found["free"][:, 0], truth[:, 2, ..., 0] * 0.5)
    np.testing.assert_array_equal(found["free"][:, 1], truth[:, 2, ..., 0] * 0.25)
    np.testing.assert_array_equal(found["following"], truth[:, 2:4, ..., 0] * 0.5)


def test_the_last_frame_is_scored_as_by_hand(ready):
    model = models.build("last_frame", spec_of(ready), 0.01)
    metrics = evaluate([model], ready, "train")["metrics"]
    truth = np.load(ready / "frames.npy")[24:].astype(float) / 255
    after_true = truth[:, 10:] - truth[:, 9:-1]
    after_own = truth[:, 10:] - truth[:, 9:10]
    assert metrics["mse_next"] == pytest.approx(
        (after_true**2).sum((2, 3)).mean(), rel=1e-5
    )
    assert metrics["mse_free"] == pytest.approx(
        (after_own**2).sum((2, 3)).mean(), rel=1e-5
    )
    assert metrics["mae_next"] == pytest.approx(
        np.abs(after_true).sum((2, 3)).mean(), rel=1e-5
    )
    assert metrics["mae_free"] == pytest.approx(
        np.abs(after_own).sum((2, 3)).mean(), rel=1e-5
    )


# metrics


def predictions(seeds=2, size=7):
    random = np.random.default_rng(3)
    truth = random.random((size, 2, 6, 4, 1), np.float32)
    return (*random.random((2, seeds, *truth.shape), np.float32), truth)


def test_every_error_is_what_a_loop_over_the_pixels_gives():
    following, free, truth = predictions()
    found = measure(following, free, truth, SPEC)
    for mode, guesses in (("next", following), ("free", free)):
        for seed, guess in enumerate(guesses):
            mse = mae = bce = 0.0
            for p, y in zip(guess.ravel().tolist(), truth.ravel().tolist(), strict=True):
                mse += (p - y) ** 2
                mae += abs(p - y)
                bce -= y * math.log(p) + (1 - y) * math.log(1 - p)
            frames = 7 * 2
            row = found["per_seed"][seed]
            assert row[f"mse_{mode}"] == pytest.approx(mse / frames, rel=1e-6)
            assert row[f"mae_{mode}"] == pytest.approx(mae / frames, rel=1e-6)
            if mode == "next":
                assert row["bce_next"] == pytest.approx(bce / frames, rel=1e-6)


def test_metrics_are_means_over_seeds_and_std_their_deviation():
    found = measure(*predictions(seeds=3), SPEC)
    for key, value in found["metrics"].items():
        seeds = [row[key] for row in found["per_seed"]]
        assert value == pytest.approx(np.mean(seeds))
        assert found["std"][key] == pytest.approx(np.std(seeds, ddof=1))
    one = measure(*predictions(seeds=1), SPEC)
    assert set(one["std"].values()) == {None}


def test_the_paired_sums_of_the_clips_add_up_to_the_free_running_error():
    following, free, truth = predictions()
    found = measure(following, free, truth, SPEC)
    paired = found["details"]["paired"]
    assert (paired["metric"], paired["kind"]) == (found["sort_by"], "mean")
    assert paired["count"] == [2] * 7
    for one, row in zip(paired["sum"], found["per_seed"], strict=True):
        assert sum(one) / sum(paired["count"]) == pytest.approx(row["mse_free"])
    clip = ((free[0, 4] - truth[4]).astype(float) ** 2).sum()
    assert paired["sum"][0][4] == pytest.approx(clip)


def test_the_curves_are_the_errors_of_each_frame():
    following, free, truth = predictions()
    found = measure(following, free, truth, SPEC)
    for curve, guess in zip(found["details"]["curves"], (following, free), strict=True):
        assert curve["x"] == [4, 5]
        expected = ((guess - truth).astype(float) ** 2).sum((3, 4, 5)).mean((0, 1))
        np.testing.assert_allclose(curve["y"], expected, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5])
def test_a_pixel_that_is_none_is_refused(value):
    following, free, truth = predictions()
    free[1, 2, 0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="1 of 672 predicted pixels"):
        measure(following, free, truth, SPEC)


def test_what_is_measured_can_be_written_as_json():
    found = measure(*predictions(), SPEC)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


# evaluate and figures together, as the stage uses them


def test_evaluate_reports_what_the_stage_writes_and_figures_draws_it(folder, tmp_path):
    found = evaluate([Predictor(lambda seen: seen)] * 2, folder(noise()), "train")
    assert set(video.REPORTED) | {"details", "per_seed"} <= set(found)
    assert len(found["per_seed"]) == 2
    files = figures(found, tmp_path / "figures")
    assert [file.name for file in files] == ["forecast_strips.png", "error_by_frame.png"]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 4000
    before = [file.read_bytes() for file in files]
    again = [file.read_bytes() for file in figures(found, tmp_path / "again")]
    assert again == before


def test_the_strips_show_the_frames_they_are_labelled_with(folder):
    import matplotlib.pyplot as plt

    from engram.tasks import video_figures

    found = evaluate([Predictor(lambda seen: seen)], folder(noise()), "train")
    figure = video_figures.strips(found)
    axis = figure.axes[0]
    (picture,) = axis.get_images()
    paper, numbers = picture.get_array(), [t.get_text() for t in axis.get_xticklabels()]
    assert numbers == ["3", "4", "5"]
    for tick, number in zip(axis.get_xticks(), numbers, strict=True):
        left = int(tick - 2)  # a frame is 4 wide, 6 high
        true = found["frames"][0, int(number) - 1]
        np.testing.assert_array_equal(paper[:6, left : left + 4], true)
        for row, key in ((8, "following"), (16, "free")):
            drawn = paper[row : row + 6, left : left + 4]
            if number == "3":
                assert np.ma.getmaskarray(drawn).all() or np.isnan(drawn).all()
            else:
                np.testing.assert_array_equal(drawn, found[key][0, int(number) - 4])
    plt.close(figure)


def test_a_trained_model_is_measured(ready):
    keras.utils.set_random_seed(1)
    model = models.build("conv_lstm", spec_of(ready), 0.01, filters=2, kernel_size=3)
    metrics = evaluate([model], ready, "train")["metrics"]
    assert all(math.isfinite(value) for value in metrics.values())
