"""Every reported error equals a plain loop over the readings that were measured."""

import json
import math

import numpy as np
import pytest

from engram.tasks.forecasting_metrics import MAPE_FLOOR, measure, steps


def spec(interval=5, horizon=12, detectors=3):
    return {
        "interval_minutes": interval,
        "horizon": horizon,
        "unit": "km/h",
        "detectors": [f"d{n}" for n in range(detectors)],
    }


def traffic(seeds=2, windows=31, horizon=12, detectors=3):
    """Returns forecasts and a truth with missing readings and standstills, float32."""
    random = np.random.default_rng(7)
    truth = random.uniform(0.5, 90, (windows, horizon, detectors)).astype(np.float32)
    truth[random.random(truth.shape) < 0.15] = np.nan
    truth[random.random(truth.shape) < 0.05] = 0
    noise = random.normal(0, 8, (seeds, *truth.shape))
    return np.nan_to_num(truth, nan=40).astype(np.float32) + noise.astype(
        np.float32
    ), truth


def looped(forecast, truth, chosen):
    """Returns MAE, RMSE and MAPE over the steps `chosen`, one reading at a time."""
    absolute = squared = relative = 0.0
    count = relative_count = 0
    for window in range(truth.shape[0]):
        for step in chosen:
            for detector in range(truth.shape[2]):
                y = float(truth[window, step, detector])
                if math.isnan(y):
                    continue
                error = float(forecast[window, step, detector]) - y
                absolute += abs(error)
                squared += error * error
                count += 1
                if y >= 1.0:
                    relative += abs(error) / abs(y)
                    relative_count += 1
    return {
        "mae": absolute / count,
        "rmse": math.sqrt(squared / count),
        "mape": 100 * relative / relative_count,
    }


@pytest.mark.parametrize(
    ("interval", "horizon", "reported"),
    [
        (5, 12, {15: 3, 30: 6, 45: 9, 60: 12}),
        (5, 3, {15: 3}),
        (5, 11, {15: 3, 30: 6, 45: 9}),
        (5, 24, {15: 3, 30: 6, 45: 9, 60: 12}),
        (15, 4, {15: 1, 30: 2, 45: 3, 60: 4}),
        (10, 6, {30: 3, 60: 6}),
        (20, 3, {60: 3}),
        (60, 1, {60: 1}),
        (60, 5, {60: 1, 180: 3}),
        (60, 12, {60: 1, 180: 3, 360: 6, 720: 12}),
        (5, 2, {10: 2}),
        (20, 2, {40: 2}),
        (120, 3, {360: 3}),
    ],
)
def test_every_error_is_what_a_loop_over_the_readings_gives(interval, horizon, reported):
    about = spec(interval, horizon)
    assert steps(about) == reported
    forecasts, truth = traffic(horizon=horizon)
    found = measure(forecasts, truth, about)
    expected = {}
    for minutes, step in reported.items():
        for name, chosen in (("at", [step - 1]), ("to", range(step))):
            runs = [looped(forecast, truth, chosen) for forecast in forecasts]
            for key in ("mae", "rmse", "mape"):
                expected[f"{key}_{name}_{minutes}"] = [run[key] for run in runs]
    assert set(found["metrics"]) == set(expected)
    for key, (one, two) in expected.items():
        # float32 readings of up to 100 are good to 4e-6
        assert found["per_seed"][0][key] == pytest.approx(one, rel=1e-5)
        assert found["per_seed"][1][key] == pytest.approx(two, rel=1e-5)
        assert found["metrics"][key] == pytest.approx((one + two) / 2, rel=1e-5)
        deviation = abs(one - two) / math.sqrt(2)
        assert found["std"][key] == pytest.approx(deviation, rel=1e-3, abs=1e-4)
    assert found["headline"] == [f"rmse_to_{minutes}" for minutes in reported]
    assert found["sort_by"] == f"rmse_to_{max(reported)}"


def test_the_floor_of_the_relative_error_is_the_one_of_the_loop():
    assert MAPE_FLOOR == 1.0


def test_a_hand_made_case():
    truth = np.array([[[50.0], [40.0]], [[np.nan], [0.5]]])  # 2 windows, 2 steps
    forecasts = np.array([[[[53.0], [36.0]], [[99.0], [0.5]]]])
    metrics = measure(forecasts, truth, spec(15, 2, 1))["metrics"]
    assert metrics["mae_at_15"] == 3.0
    assert metrics["rmse_at_15"] == 3.0
    assert metrics["mape_at_15"] == pytest.approx(6.0)
    assert metrics["mae_at_30"] == 2.0
    assert metrics["rmse_at_30"] == pytest.approx(math.sqrt(8))
    assert metrics["mape_at_30"] == pytest.approx(10.0)  # 0.5 is below the floor
    assert metrics["mae_to_30"] == pytest.approx(7 / 3)
    assert metrics["rmse_to_30"] == pytest.approx(math.sqrt(25 / 3))
    assert metrics["mape_to_30"] == pytest.approx(8.0)


def test_one_seed_has_no_deviation():
    forecasts, truth = traffic(seeds=1)
    found = measure(forecasts, truth, spec())
    assert set(found["std"]) == set(found["metrics"])
    assert set(found["std"].values()) == {None}


def test_what_is_forecast_where_nothing_was_measured_does_not_count():
    forecasts, truth = traffic()
    before = measure(forecasts, truth, spec())
    wild = np.where(np.isnan(truth), np.float32(1e6), forecasts)
    assert measure(wild, truth, spec()) == before


def test_a_perfect_forecast_has_no_error():
    _, truth = traffic()
    perfect = np.nan_to_num(truth, nan=123)[None]
    found = measure(perfect, truth, spec())
    assert set(found["metrics"].values()) == {0.0}
    assert set(found["details"]["detectors"]["mae"]) == {0.0}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_forecast_that_is_not_a_number_is_refused(wrong):
    forecasts, truth = traffic()
    forecasts[1, 4, 2, 0] = forecasts[0, 0, 0, 0] = wrong
    with pytest.raises(
        ValueError, match=f"2 of {forecasts.size} forecasts are NaN or inf"
    ):
        measure(forecasts, truth, spec())


def test_a_nan_forecast_is_refused_even_where_nothing_was_measured():
    forecasts, truth = traffic()
    forecasts[0][np.isnan(truth)] = np.nan
    with pytest.raises(ValueError, match="forecasts are NaN"):
        measure(forecasts, truth, spec())


def test_errors_scale_with_the_unit_and_relative_errors_do_not():
    forecasts, truth = traffic()
    truth = np.where(truth < 2, np.float32(2), truth)  # above the floor in both units
    kilometres = measure(forecasts, truth, spec())["metrics"]
    half = measure(forecasts * 0.5, truth * 0.5, spec())["metrics"]
    for key, value in kilometres.items():
        factor = 1 if key.startswith("mape") else 0.5
        assert half[key] == pytest.approx(factor * value, rel=1e-6)


@pytest.mark.parametrize(("interval", "horizon"), [(5, 12), (5, 24), (10, 6), (60, 5)])
def test_the_paired_sums_add_up_to_the_pooled_rmse(interval, horizon):
    forecasts, truth = traffic(horizon=horizon)
    found = measure(forecasts, truth, spec(interval, horizon))
    paired = found["details"]["paired"]
    assert paired["metric"] == found["sort_by"]
    for one, row in zip(paired["sum"], found["per_seed"], strict=True):
        pooled = math.sqrt(sum(one) / sum(paired["count"]))
        assert pooled == pytest.approx(row[paired["metric"]], rel=1e-6)


@pytest.mark.parametrize(
    ("interval", "in_an_hour"), [(5, 12), (10, 6), (45, 1), (60, 1), (120, 1)]
)
def test_a_paired_sum_is_over_the_windows_of_one_hour(interval, in_an_hour):
    windows, horizon = 2 * in_an_hour + 1, 12
    truth = np.zeros((windows, horizon, 1))
    forecasts = (
        np.arange(windows, dtype=float)[None, :, None, None] + truth
    )  # (1, B, P, 1)
    paired = measure(forecasts, truth, spec(interval, horizon, 1))["details"]["paired"]
    last = max(steps(spec(interval, horizon)).values())
    hours = [range(in_an_hour), range(in_an_hour, 2 * in_an_hour), [windows - 1]]
    assert paired["count"] == [last * len(hour) for hour in hours]
    assert paired["sum"] == [[last * sum(b * b for b in hour) for hour in hours]]


def test_the_curves_are_the_errors_at_each_step():
    forecasts, truth = traffic()
    mae, rmse = measure(forecasts, truth, spec())["details"]["curves"]
    assert mae["x"] == rmse["x"] == list(range(5, 65, 5))
    assert mae["y_label"] == "MAE in km/h"
    for step in range(12):
        runs = [looped(forecast, truth, [step]) for forecast in forecasts]
        assert mae["y"][step] == pytest.approx(
            np.mean([r["mae"] for r in runs]), rel=1e-5
        )
        assert rmse["y"][step] == pytest.approx(
            np.mean([r["rmse"] for r in runs]), rel=1e-5
        )


def test_a_detectors_error_is_over_its_own_readings():
    forecasts, truth = traffic()
    found = measure(forecasts, truth, spec())["details"]["detectors"]
    assert found["name"] == ["d0", "d1", "d2"]
    for n, mae in enumerate(found["mae"]):
        alone = [slice(None), slice(None), slice(n, n + 1)]
        runs = [
            looped(f[tuple(alone)], truth[tuple(alone)], range(12)) for f in forecasts
        ]
        assert mae == pytest.approx(np.mean([run["mae"] for run in runs]), rel=1e-5)


def test_a_detector_that_was_never_measured_is_not_called_perfect():
    forecasts, truth = traffic()
    truth[:, :, 1] = np.nan
    mae = measure(forecasts, truth, spec())["details"]["detectors"]["mae"]
    assert mae[1] is None or math.isnan(mae[1])
    assert mae[0] > 0


def test_a_relative_error_of_nothing_is_not_zero():
    forecasts, _ = traffic()
    standstill = np.zeros(forecasts.shape[1:], np.float32)
    mape = measure(forecasts, standstill, spec())["metrics"].get("mape_to_60")
    assert mape is None or math.isnan(mape)


def test_what_is_measured_can_be_written_as_json():
    forecasts, truth = traffic()
    found = measure(forecasts, truth, spec())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
