"""What the numbers of `report.probe` say, in words."""

import math
from typing import Any

import numpy as np

from engram.gradient_flow import theory

Row = dict[str, Any]

FAR = 1e3  # a gradient's factor from the last layer's that is worth a word
LOW, HIGH = 0.5, 2.0  # of chi: what a single layer may do unnoticed
MANY = 0.5  # share of a layer that is saturated or dead
HEAD = "log|dL/dW|  log dL/dh    chi  log|dy/dh|  log top  log med  flat  dead"


def verdict(row: Row, last: float) -> str:
    """Returns in words what is wrong with a layer, or that nothing is.

    Args:
        row: one of `layers` of `probe`.
        last: decimal logarithm of the gradient at the last layer, of the loss or else of
            the outputs.
    """
    words = []
    signal = _signal(row)
    if any(math.isnan(row[name]) for name in ("mean", "std")):
        return "gives out numbers that are not finite"
    if signal == math.inf:
        words.append("gradients arrive that are not finite")
    elif signal == -math.inf:
        words.append("no gradient arrives here")
    elif signal < last - math.log10(FAR):
        words.append(
            f"gradients have vanished: 1e{signal - last:.0f} of the last layer's"
        )
    elif signal > last + math.log10(FAR):
        words.append(
            f"gradients have exploded: 1e{signal - last:.0f} of the last layer's"
        )
    if row.get("gradient") == -math.inf and signal > -math.inf:
        words.append("its weights have no gradient")
    if row.get("gradient") == math.inf and signal < math.inf:
        words.append("its weights' gradient is not finite")
    if row["dead"] > MANY:
        words.append(f"{row['dead']:.0%} of its units are flat for every row")
    elif row["saturated"] > MANY:
        words.append(f"{row['saturated']:.0%} of its outputs are flat")
    if row["chi"] < LOW:
        words.append(f"weakens gradients, |g|^2 times {row['chi']:.2g}")
    elif row["chi"] > HIGH:
        words.append(f"strengthens gradients, |g|^2 times {row['chi']:.2g}")
    if row["kernel"] and not row["weights"]:
        words.append("frozen")
    return "; ".join(words) or "fine"


def text(told: Row) -> str:
    """Returns the report as lines of text."""
    rows = told["layers"]
    last = next((s for row in rows[::-1] if math.isfinite(s := _signal(row))), 0.0)
    wide = max(len(row["layer"]) for row in rows)
    lines = [f"{'layer':{wide}}  {HEAD}"]
    if not math.isfinite(told.get("loss", 0.0)):
        lines.insert(0, f"The loss is {told['loss']}: its gradients tell nothing.\n")
    for row in rows:
        cells = [
            _cell(row.get("gradient", math.nan), 10),
            _cell(row.get("signal", math.nan), 9),
            _cell(row["chi"], 5),
            _cell(row["jacobian"], 10),
            _cell(row.get("top_on", math.nan) / math.log(10), 7),
            _cell(row.get("median_on", math.nan) / math.log(10), 7),
            _share(row["saturated"]),
            _share(row["dead"]),
        ]
        lines.append(f"{row['layer']:{wide}}  " + "  ".join(cells))
    lines += ["", *(f"{row['layer']:{wide}}  {verdict(row, last)}" for row in rows)]
    lines += ["", depth_in_words(told)]
    for name, logs in told["over_time"].items():
        lines.append(f"{name}, over time: {lag_in_words(logs)}")
    lines += [
        "",
        "Logarithms are decimal; top and med: singular values of dy/dh, first row.",
    ]
    return "\n".join(lines)


def depth_in_words(told: Row) -> str:
    """Returns one line on depth, factor and depth scale."""
    depth, chi, xi = told["depth"], told["chi"], told["xi"]
    if math.isnan(chi):
        return f"{depth} layers with kernels: too few to tell a depth scale."
    words = f"{depth} layers with kernels; from one to the next |g|^2 times {chi:.3g}: "
    reach = theory.TRAINABLE * xi
    if reach > 1000:
        return f"{words}gradients stay, trainable to any depth."
    if chi > 1:  # how deep such nets train, the fixed point of correlations tells
        return f"{words}it grows e-fold every {xi:.3g} layers."
    return (
        f"{words}depth scale 1/|ln chi| = {xi:.3g} layers, trainable to about"
        f" {reach:.0f} layers."
    )


def lag_in_words(logs: np.ndarray) -> str:
    """Returns what is left of a gradient at the farthest lag, the strongest state's."""
    near, far = logs[0].max(), logs[-1].max()
    lags = len(logs) - 1
    if not np.isfinite(far):
        return f"nothing of a gradient is left {lags} steps back"
    return (
        f"{lags} steps back a gradient has {math.exp(far - near):.2g} of its size,"
        f" a factor of {math.exp((far - near) / lags):.3g} a step"
    )


def _signal(row: Row) -> float:
    """Returns the gradient that arrives, a logarithm; -inf where none can."""
    found = row["signal"] if "signal" in row else row["jacobian"]
    return -math.inf if math.isnan(found) else found


def _cell(value: float, width: int) -> str:
    return " " * (width - 1) + "–" if math.isnan(value) else f"{value:{width}.2f}"


def _share(value: float) -> str:
    return "   –" if math.isnan(value) else f"{value:4.0%}"
