"""A forecast reads the past of its own part, and is scored on what was measured."""

import json

import keras
import numpy as np
import pytest

from engram import datasets
from engram.tasks import forecasting
from engram.tasks.forecasting import DataError, batches, evaluate, fill, prepare, windows

SPLIT = [0.6, 0.2, 0.2]
ABOUT = {"interval_minutes": 5, "unit": "km/h", "missing": [0], "first_reading": "06:00"}


@pytest.fixture
def made(tmp_path):
    """Returns a function that prepares readings `(steps, N)` and returns the folder."""
    count = iter(range(9))

    def make(readings, history=3, horizon=2, split=SPLIT, **about):
        place = tmp_path / str(next(count))
        place.mkdir()
        steps, detectors = np.shape(readings)
        lines = [",".join(f"d{n}" for n in range(detectors))]
        lines += [",".join(f"{value:.9g}" for value in row) for row in readings]
        (place / "own.csv").write_text("\n".join(lines) + "\n")
        arguments = {"file": str(place / "own.csv"), **ABOUT, **about}
        datasets.fetch("detector_csv", place / "raw", **arguments)
        prepare(place / "raw", place / "out", history, horizon, split)
        return place / "out"

    return make


@pytest.fixture
def folder(tmp_path):
    """Returns a function that writes a prepared folder directly."""

    def write(readings, history=3, horizon=2, parts=None, **changes):
        steps, detectors = np.shape(readings)
        ends = [round(0.6 * steps), round(0.8 * steps), steps]
        parts = parts or dict(
            zip(forecasting.PARTS, zip([0, *ends], ends, strict=False), strict=True)
        )
        about = {
            "unit": "km/h",
            "interval_minutes": 5,
            "slots_per_day": 288,
            "first_slot": 0,
            "history": history,
            "horizon": horizon,
            "detectors": [f"d{n}" for n in range(detectors)],
            "parts": parts,
            "mean": 10.0,
            "std": 4.0,
            "fingerprint": "f",
        } | changes
        np.save(tmp_path / "readings.npy", np.asarray(readings, np.float32))
        (tmp_path / "spec.json").write_text(json.dumps(about))
        return tmp_path

    return write


def spec_of(prepared):
    return json.loads((prepared / "spec.json").read_text())


def speeds(steps=50, detectors=3, seed=1):
    random = np.random.default_rng(seed)
    return random.uniform(20, 90, (steps, detectors)).astype(np.float32)


# prepare


def test_the_parts_follow_each_other_in_time_60_20_20(made):
    readings = speeds(50)
    out = made(readings)
    assert spec_of(out)["parts"] == {
        "train": [0, 30],
        "validation": [30, 40],
        "test": [40, 50],
    }
    np.testing.assert_array_equal(np.load(out / "readings.npy"), readings)


@pytest.mark.parametrize("steps", [49, 51, 52, 53, 97])
@pytest.mark.parametrize("split", [SPLIT, [0.7, 0.1, 0.2], [1 / 3, 1 / 3, 1 / 3]])
def test_every_reading_is_in_exactly_one_part(steps, split):
    parts = forecasting._parts(steps, split, 2)
    assert list(parts) == ["train", "validation", "test"]
    steps_of = [step for start, end in parts.values() for step in range(start, end)]
    assert steps_of == list(range(steps))
    for share, (start, end) in zip(split, parts.values(), strict=True):
        assert end - start == pytest.approx(share * steps, abs=1)


def test_the_scaling_is_that_of_the_training_part(made):
    readings = speeds(50)
    spec = spec_of(made(readings))
    train = readings[:30].astype(np.float64)
    assert spec["mean"] == pytest.approx(train.mean(), rel=1e-12)
    assert spec["std"] == pytest.approx(train.std(), rel=1e-7)  # float32 deviations


def test_the_scaling_knows_nothing_of_validation_and_test(made):
    readings, other = speeds(50), speeds(50)
    other[30:] = 1000
    one, two = spec_of(made(readings)), spec_of(made(other))
    assert (one["mean"], one["std"]) == (two["mean"], two["std"])
    assert one["fingerprint"] != two["fingerprint"]


def test_a_missing_reading_is_not_part_of_the_scaling(made):
    readings = speeds(50)
    readings[3, 1], readings[7, 2] = 0, np.nan
    known = np.delete(readings[:30].ravel(), [3 * 3 + 1, 7 * 3 + 2]).astype(np.float64)
    spec = spec_of(made(readings))
    assert spec["mean"] == pytest.approx(known.mean(), rel=1e-12)
    assert spec["std"] == pytest.approx(known.std(), rel=1e-7)
    assert spec["missing_share"] == pytest.approx(2 / 150)


@pytest.mark.parametrize("mark", [0, -1, -999.9, 0.1])
def test_a_value_declared_missing_is_no_reading(made, mark):
    readings = speeds(50)
    readings[5, 0] = readings[45, 2] = mark
    found = np.load(made(readings, missing=[mark]) / "readings.npy")
    assert np.argwhere(np.isnan(found)).tolist() == [[5, 0], [45, 2]]


def test_a_zero_that_is_not_declared_missing_is_a_standstill(made):
    readings = speeds(50)
    readings[5, 0] = 0
    out = made(readings, missing=[])
    assert np.load(out / "readings.npy")[5, 0] == 0
    assert spec_of(out)["missing_share"] == 0


@pytest.mark.parametrize(
    ("steps", "part"), [(5, "train"), (20, "validation"), (21, "validation")]
)
def test_a_part_shorter_than_one_window_is_refused(made, steps, part):
    with pytest.raises(DataError, match=f"the {part} part has .* of {steps} steps"):
        made(speeds(steps))


def test_a_test_part_shorter_than_one_window_is_refused(made):
    with pytest.raises(
        DataError, match="the test part has 4 of 40 steps, but one window"
    ):
        made(speeds(40), split=[0.6, 0.3, 0.1])


def test_parts_of_exactly_one_window_are_enough(made):
    out = made(speeds(25))
    for part in ("validation", "test"):
        past, _, _ = windows(out, spec_of(out), part)
        assert len(past) == 1


def test_a_detector_that_is_silent_in_training_is_named(made):
    readings = speeds(50)
    readings[:30, 1] = 0
    with pytest.raises(DataError, match=r"detector 'd1' has no reading .*first 30 steps"):
        made(readings)


def test_a_detector_that_is_silent_after_training_is_kept(made):
    readings = speeds(50)
    readings[30:, 1] = 0
    assert np.isnan(np.load(made(readings) / "readings.npy")[30:, 1]).all()


@pytest.mark.parametrize("part", [slice(30, 40), slice(40, 50)])
def test_a_part_without_any_reading_is_refused(made, part):
    readings = speeds(50)
    readings[part] = 0
    with pytest.raises(DataError, match="part has no reading"):
        made(readings)


def test_equal_readings_have_equal_fingerprints_and_one_other_reading_changes_it(made):
    readings, other = speeds(50), speeds(50)
    other[49, 2] += 0.25
    one, two, three = (
        spec_of(made(r))["fingerprint"] for r in (readings, readings, other)
    )
    assert one == two != three


def test_readings_without_a_graph_have_an_empty_one(made):
    graph = np.load(made(speeds(50)) / "graph.npy")
    assert graph.shape == (3, 0)


def test_the_spec_tells_what_later_stages_need(made):
    out = made(speeds(50), interval_minutes=15)
    spec = spec_of(out)
    assert spec["slots_per_day"] == 96
    assert spec["first_slot"] == 24  # 06:00
    assert spec["detectors"] == ["d0", "d1", "d2"]
    assert (spec["history"], spec["horizon"]) == (3, 2)
    assert (spec["unit"], spec["dataset"]) == ("km/h", out.name)


def test_a_series_that_never_changes_can_be_scaled(made):
    spec = spec_of(made(np.full((50, 2), 61.3)))
    assert spec["mean"] == np.float32(61.3)
    assert spec["std"] == 1.0


# windows


@pytest.mark.parametrize("part", ["train", "validation", "test", "train+validation"])
@pytest.mark.parametrize(("history", "horizon"), [(3, 2), (1, 1), (4, 1), (2, 6)])
def test_every_window_is_inside_its_part_and_none_is_left_out(
    folder, part, history, horizon
):
    readings = np.arange(60)[:, None] + [0, 1000]  # each reading tells its own step
    out = folder(readings, history, horizon)
    parts = spec_of(out)["parts"]
    first, last = parts[part.split("+")[0]][0], parts[part.split("+")[-1]][1]
    past, future, _ = windows(out, spec_of(out), part)
    assert len(past) == len(future) == last - first - history - horizon + 1
    whole = np.concatenate([past, future], axis=1)  # (B, T + P, N)
    assert whole.min(axis=(1, 2)).tolist() == list(range(first, first + len(whole)))
    assert whole[:, :, 0].max() == last - 1
    np.testing.assert_array_equal(np.diff(whole, axis=1), 1)
    np.testing.assert_array_equal(whole[:, :, 1] - whole[:, :, 0], 1000)


def test_training_and_validation_join_without_a_seam(folder):
    out = folder(speeds(60))
    counts = {
        part: len(windows(out, spec_of(out), part)[0])
        for part in ("train", "validation", "train+validation")
    }
    # the windows across the border are new: history + horizon - 1 of them
    assert counts["train+validation"] == counts["train"] + counts["validation"] + 4


@pytest.mark.parametrize(
    ("interval", "first_slot"), [(5, 0), (5, 287), (30, 13), (60, 23)]
)
@pytest.mark.parametrize("part", ["train", "validation", "test", "train+validation"])
def test_slot_is_the_interval_of_the_day_of_the_first_predicted_step(
    folder, part, interval, first_slot
):
    day = 1440 // interval
    clock = (first_slot + np.arange(900)) % day  # each reading tells its own interval
    out = folder(clock[:, None], slots_per_day=day, first_slot=first_slot)
    _, future, slot = windows(out, spec_of(out), part)
    assert slot.dtype == np.int32
    np.testing.assert_array_equal(slot, future[:, 0, 0])


# fill


def test_a_gap_takes_the_last_reading_and_a_leading_one_the_mean():
    gap = np.nan
    past = np.array([[[gap], [gap], [1.5], [gap], [gap], [2.0]]])
    assert fill(past).ravel().tolist() == [0, 0, 1.5, 1.5, 1.5, 2.0]


def test_filling_follows_the_readings_one_by_one_and_never_the_future():
    random = np.random.default_rng(3)
    past = random.normal(size=(20, 9, 4)).astype(np.float32)
    past[random.random(past.shape) < 0.5] = np.nan
    before = past.copy()
    filled = fill(past)
    for b, n in np.ndindex(20, 4):
        known = np.float32(0)
        for t in range(9):
            known = known if np.isnan(past[b, t, n]) else past[b, t, n]
            assert filled[b, t, n] == known
    later = past.copy()
    later[:, 5:] = 99
    np.testing.assert_array_equal(fill(later)[:, :5], filled[:, :5])
    np.testing.assert_array_equal(past, before)  # the view of the readings is not touched


# batches


def gathered(data):
    """Returns readings, slot, target and weight of all batches in their order."""
    rows = [
        (given["readings"], given["slot"], target, weight)
        for given, target, weight in data
    ]
    return [np.concatenate(arrays) for arrays in zip(*rows, strict=True)]


def gappy(steps=60, detectors=3):
    readings = speeds(steps, detectors)
    readings[np.random.default_rng(5).random(readings.shape) < 0.2] = np.nan
    return readings


def test_batches_have_the_promised_shapes_and_lose_no_window(folder):
    out = folder(gappy())  # 36 training steps: 32 windows
    found = list(batches(out, "train", 10))
    assert [len(target) for _, target, _ in found] == [10, 10, 10, 2]
    for given, target, weight in found:
        size = len(target)
        assert given["readings"].shape == (size, 3, 3)
        assert given["readings"].dtype == "float32"
        assert given["slot"].shape == (size,)
        assert given["slot"].dtype == "int32"
        assert target.shape == weight.shape == (size, 2, 3)
        assert target.dtype == weight.dtype == "float32"


def test_batches_are_the_windows_scaled_with_weight_zero_where_nothing_was_measured(
    folder,
):
    out = folder(gappy())
    past, future, slot = windows(out, spec_of(out), "test")
    readings, slots, target, weight = gathered(batches(out, "test", 4))
    np.testing.assert_array_equal(slots, slot)
    np.testing.assert_array_equal(weight, ~np.isnan(future))
    assert 0 < weight.mean() < 1
    np.testing.assert_array_equal(target[weight == 0], 0)
    known = weight == 1
    np.testing.assert_allclose(target[known] * 4 + 10, future[known], rtol=1e-6)
    np.testing.assert_array_equal(readings, fill((past - 10.0) / 4.0))
    assert np.isfinite(readings).all() and np.isfinite(target).all()


def test_without_a_seed_every_epoch_is_in_time_order(folder):
    out = folder(gappy())
    data = batches(out, "train", 7)
    for _ in range(2):  # slots number the windows here, from `history`
        assert gathered(data)[1].tolist() == list(range(3, 35))


def test_equal_seeds_shuffle_alike_in_every_epoch_and_epochs_differ(folder):
    out = folder(gappy())

    def epochs(seed):
        data = batches(out, "train", 7, seed=seed)
        return [gathered(data)[1].tolist() for _ in range(3)]

    one, again, other = epochs(1), epochs(1), epochs(2)
    assert one == again
    assert one != other
    assert one[0] != one[1] != one[2] != one[0]
    assert all(sorted(epoch) == sorted(one[0]) for epoch in one + other)
    assert sorted(one[0]) == list(range(3, 35))  # every window, once


def test_a_shuffled_window_keeps_its_own_target_and_weight(folder):
    out = folder(gappy())
    plain, shuffled = (gathered(batches(out, "train", 7, seed=s)) for s in (None, 4))
    order = np.argsort(shuffled[1])
    for one, two in zip(plain, shuffled, strict=True):
        np.testing.assert_array_equal(one, two[order])


# evaluate


def persistence(history, horizon, detectors):
    """A model that repeats the last reading."""
    readings = keras.Input((history, detectors), name="readings")
    slot = keras.Input((), dtype="int32", name="slot")
    repeated = keras.ops.repeat(readings[:, -1:, :], horizon, axis=1)
    return keras.Model({"readings": readings, "slot": slot}, repeated)


@pytest.fixture(scope="module")
def repeater():
    return persistence(3, 12, 2)


@pytest.mark.parametrize("speed", [61.3, 0.1, 7])
def test_persistence_is_perfect_on_a_series_that_never_changes(made, repeater, speed):
    found = evaluate([repeater], made(np.full((90, 2), speed), horizon=12), "train")
    errors = {key: value for key, value in found["metrics"].items() if "mape" not in key}
    assert set(errors.values()) == {0.0}
    np.testing.assert_array_equal(found["forecast"], np.float32(speed))
    np.testing.assert_array_equal(found["band"], 0)


def test_persistence_lags_a_ramp_by_its_slope_at_every_step(made, repeater):
    ramp = np.stack([20 + 0.5 * np.arange(90), 90 - 0.5 * np.arange(90)], axis=1)
    found = evaluate([repeater], made(ramp, horizon=12), "train")
    for minutes, step in {15: 3, 30: 6, 45: 9, 60: 12}.items():
        lags = 0.5 * np.arange(1, step + 1)
        expected = {
            f"mae_at_{minutes}": lags[-1],
            f"rmse_at_{minutes}": lags[-1],
            f"mae_to_{minutes}": lags.mean(),
            f"rmse_to_{minutes}": np.sqrt(np.square(lags).mean()),
        }
        for key, value in expected.items():
            assert found["metrics"][key] == pytest.approx(value, rel=1e-5), key


def test_evaluate_scores_the_test_part_and_reports_what_is_kept(made, repeater):
    readings = speeds(90, 2)
    readings[80, 1] = 0  # missing
    out = made(readings, horizon=12)
    found = evaluate([repeater, repeater], out, "train", batch_size=2)
    spec = spec_of(out)
    _, truth, slot = windows(out, spec, "test")
    np.testing.assert_array_equal(found["truth"], truth)
    np.testing.assert_array_equal(found["slot"], slot)
    assert found["forecast"].shape == truth.shape == (4, 12, 2)
    assert found["band"].shape == (2, 12)
    assert set(forecasting.REPORTED) <= set(found)
    kept = {key: found[key] for key in (*forecasting.REPORTED, "details", "per_seed")}
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert found["fingerprint"] == spec["fingerprint"]
    assert set(found["std"].values()) == {0.0}  # the same model twice


def test_the_size_of_a_batch_does_not_change_a_result(made, repeater):
    out = made(speeds(90, 2), horizon=12)
    one, two = (evaluate([repeater], out, "train", batch_size=size) for size in (1, 64))
    assert one["metrics"] == two["metrics"]


def test_a_model_that_breaks_down_is_refused(made):
    out = made(speeds(90, 2), horizon=12)
    broken = keras.Sequential([persistence(3, 12, 2), keras.layers.Rescaling(np.nan)])
    with pytest.raises(ValueError, match="forecasts are NaN or infinite"):
        evaluate([broken], out, "train")
