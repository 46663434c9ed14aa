"""Pictures of forecasts: against the truth, by horizon, by detector."""

from pathlib import Path
from typing import Any, cast

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MaxNLocator

INK, TRUTH, FORECAST = "#1f2933", "#9aa5b1", "#0b7285"


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "forecast": forecast(found),
        "error_by_horizon": error_by_horizon(found),
        "error_by_detector": error_by_detector(found),
    }
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def forecast(found: dict[str, Any]) -> plt.Figure:
    """Truth and forecast, 15 and 60 minutes ahead, where and when speeds vary most."""
    spec, truth = found["spec"], found["truth"]  # (B, P, N)
    detector = int(np.nanargmax(np.nanstd(truth[:, 0], axis=0)))
    start = _liveliest_day(truth[:, 0, detector], spec["slots_per_day"])
    interval, horizon = spec["interval_minutes"], spec["horizon"]
    shown = sorted({min(max(15 // interval, 1), horizon), horizon})
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(9, 2.6 * len(shown)), layout="constrained", sharex=True
    )
    for axis, step in zip(np.atleast_1d(axes), shown, strict=True):
        _forecast_panel(axis, found, detector, start, step)
    np.atleast_1d(axes)[-1].set_xlabel("hours of the test part")
    name = _plain(spec["detectors"][detector])
    figure.suptitle(f"Forecast at detector {name}, {_plain(spec['dataset'])}", color=INK)
    return figure


def _liveliest_day(truth: np.ndarray, slots: int) -> int:
    """Returns where the day with the largest deviation begins, in whole hours."""
    starts = range(0, max(1, len(truth) - slots), max(1, slots // 24))
    return max(starts, key=lambda start: np.nan_to_num(np.nanstd(truth[start:][:slots])))


def _forecast_panel(
    axis: plt.Axes, found: dict[str, Any], detector: int, start: int, step: int
) -> None:
    spec = found["spec"]
    day = slice(start, start + spec["slots_per_day"])
    truth = found["truth"][day, step - 1, detector]
    guess = found["forecast"][day, step - 1, detector]
    hours = (start + np.arange(len(truth)) + step) * spec["interval_minutes"] / 60
    if found["band"] is not None:
        # f - y lies in [low, high] for 90 % of validation: y in [f - high, f - low]
        low, high = found["band"][:, step - 1]
        label = "90 % of validation errors"
        axis.fill_between(
            hours,
            guess - high,
            guess - low,
            color=FORECAST,
            alpha=0.18,
            lw=0,
            label=label,
        )
    axis.plot(hours, truth, color=TRUTH, lw=2.2, label="measured")
    axis.plot(hours, guess, color=FORECAST, lw=1.3, label="forecast")
    axis.set_title(
        f"{step * spec['interval_minutes']} minutes ahead", loc="left", fontsize=10
    )
    axis.set_ylabel(_plain(spec["unit"]))
    axis.set_ylim(bottom=0)
    axis.legend(ncols=3, frameon=False, fontsize=8, loc="lower left")
    axis.spines[["top", "right"]].set_visible(False)


def error_by_horizon(found: dict[str, Any]) -> plt.Figure:
    """MAE and RMSE at each step ahead."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for curve, line in zip(found["details"]["curves"], ("--", "-"), strict=True):
        axis.plot(curve["x"], curve["y"], line, color=FORECAST, label=curve["title"])
    axis.set_xlabel("minutes ahead")
    axis.set_ylabel(_plain(found["spec"]["unit"]))
    axis.set_ylim(bottom=0)
    axis.set_title("Error by horizon", loc="left", color=INK)
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def error_by_detector(found: dict[str, Any]) -> plt.Figure:
    """MAE of each detector: at its place on the ring, or sorted."""
    mae = np.array(found["details"]["detectors"]["mae"], float)  # None: never measured
    unit = _plain(found["spec"]["unit"])
    if found["spec"]["layout"] == "ring":
        return _on_the_ring(mae, unit)
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axis.fill_between(
        range(1, len(mae) + 1), np.sort(mae)[::-1], color=FORECAST, step="mid"
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_xlabel("detectors, worst first")
    axis.set_ylabel(f"MAE in {unit}")
    axis.set_title("Error by detector", loc="left", color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _on_the_ring(mae: np.ndarray, unit: str) -> plt.Figure:
    figure = plt.figure(figsize=(4.6, 4.8), layout="constrained")
    axis = cast(PolarAxes, figure.add_subplot(projection="polar"))
    angle = 2 * np.pi * np.arange(len(mae)) / len(mae)
    told, width = np.isfinite(mae), 0.8 * 2 * np.pi / len(mae)
    axis.bar(angle[told], mae[told], width=width, color=FORECAST)
    axis.set_theta_zero_location("N")
    axis.set_theta_direction(-1)  # traffic drives clockwise
    axis.set_xticks(angle[::2], [str(n) for n in range(0, len(mae), 2)], fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    axis.set_title(f"MAE in {unit} by detector", color=INK)
    return figure


def _plain(text: str) -> str:
    """Returns text that matplotlib draws as it stands, not as mathematics."""
    return text.replace("$", r"\$")
