"""Pictures of forecasts show the numbers that were found."""

import matplotlib
import numpy as np
import pytest
from matplotlib.projections.polar import PolarAxes

from engram.tasks import forecasting_figures

SLOTS, WINDOWS, HORIZON, DETECTORS = 24, 60, 3, 5


def found(layout="ring", band=True):
    """Two and a half days, hour by hour; detector 3 has the liveliest second day."""
    draw = np.random.default_rng(1)
    truth = 50 + draw.normal(size=(WINDOWS, HORIZON, DETECTORS))
    truth[SLOTS : 2 * SLOTS, :, 3] += 20 * draw.normal(size=(SLOTS, HORIZON))
    truth[30, 0, 3] = np.nan
    spec = {
        "layout": layout,
        "dataset": "toy",
        "unit": "km/h",
        "slots_per_day": SLOTS,
        "interval_minutes": 60,
        "horizon": HORIZON,
        "detectors": [f"d{n}$" for n in range(DETECTORS)],
    }
    minutes = [60, 120, 180]
    curves = [{"title": k, "x": minutes, "y": [1, 2, 3]} for k in ("MAE", "RMSE")]
    return {
        "spec": spec,
        "truth": truth,
        "forecast": truth + 1,
        "band": np.array([[-2.0, -2, -2], [5, 5, 5]]) if band else None,
        "details": {"curves": curves, "detectors": {"mae": [1, 2, None, 4, 5]}},
    }


def test_a_forecast_has_the_liveliest_day_and_a_band_on_the_right_side():
    """Forecasts minus truths lie from -2 to 5: so do truths from 5 below to 2 above."""
    some = found()
    figure = forecasting_figures.forecast(some)
    assert "d3" in figure.get_suptitle()
    for axis, step in zip(figure.axes, (1, HORIZON), strict=True):
        measured, forecast = axis.lines
        start = int(measured.get_xdata()[0]) - step
        assert SLOTS - 4 <= start <= SLOTS + 4
        day = slice(start, start + SLOTS)
        np.testing.assert_array_equal(
            measured.get_ydata(), some["truth"][day, step - 1, 3]
        )
        np.testing.assert_array_equal(
            forecast.get_ydata(), some["forecast"][day, step - 1, 3]
        )
        guess = forecast.get_ydata()
        guess = guess[np.isfinite(guess)]
        (band,) = axis.collections
        edges = np.concatenate([path.vertices[:, 1] for path in band.get_paths()])
        assert edges.min() == pytest.approx(guess.min() - 5)
        assert edges.max() == pytest.approx(guess.max() + 2)
    assert not forecasting_figures.forecast(found(band=False)).axes[0].collections


def test_errors_stand_where_their_detectors_are_on_the_ring():
    figure = forecasting_figures.error_by_detector(found())
    (axis,) = figure.axes
    assert isinstance(axis, PolarAxes)
    heights = [bar.get_height() for bar in axis.patches]
    assert heights == [1, 2, 4, 5]  # the one in between was never measured
    middles = [bar.get_x() + bar.get_width() / 2 for bar in axis.patches]
    np.testing.assert_allclose(middles, 2 * np.pi * np.array([0, 1, 3, 4]) / 5, atol=1e-9)
    assert "km/h" in axis.get_title()


@pytest.mark.parametrize("layout", ["ring", "network"])
def test_all_pictures_are_written_and_again_the_same(tmp_path, layout):
    matplotlib.pyplot.close("all")
    files = forecasting_figures.draw(found(layout), tmp_path / "once")
    names = ["error_by_detector", "error_by_horizon", "forecast"]
    assert sorted(file.stem for file in files) == names
    assert not matplotlib.pyplot.get_fignums()
    for file in forecasting_figures.draw(found(layout), tmp_path / "twice"):
        assert (tmp_path / "once" / file.name).read_bytes() == file.read_bytes()
