"""A picture of one measure: a row for each layer, a column for each look."""

from typing import Any

import numpy as np

INK = "#1f2933"
TOLD = {
    "gradient": "log10 of the gradient's norm",
    "clipped": "log10 of the gradient's norm after clipping",
    "signal": "log10 of dL/dh, root mean square",
    "update": "log10 of the update's share of the weights",
    "jacobian": "log10 of |dy/dh|",
    "chi": "chi, the layer's factor on squared gradients",
    "saturated": "share of outputs where the slope is flat",
    "dead": "share of units flat for every row",
    "mean": "mean of the outputs",
    "std": "spread of the outputs",
}


def draw(rows: list[dict[str, Any]], measure: str):
    """Returns a matplotlib figure of `rows`, as `GradientFlow` and `probe` write them.

    Layers without a finite number are left out; single numbers that are not finite stay
    white.

    Raises:
        ValueError: if no row has the measure.
    """
    from matplotlib.figure import Figure  # draws without a screen, and without pyplot

    rows = [row for row in rows if np.isfinite(row.get(measure, np.nan))]
    if not rows:
        raise ValueError(
            f"`measure` must have a finite number in some row. Received: {measure!r}"
        )
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    steps = sorted({row["step"] for row in rows})
    table = np.full((len(layers), len(steps)), np.nan)
    for row in rows:
        table[layers.index(row["layer"]), steps.index(row["step"])] = row[measure]
    figure = Figure(
        figsize=(min(4 + 0.25 * len(steps), 11), 1.4 + 0.25 * len(layers)),
        layout="constrained",
    )
    axis = figure.subplots()
    image = axis.imshow(table, aspect="auto", cmap="viridis", interpolation="nearest")
    axis.set_yticks(range(len(layers)), [_plain(layer) for layer in layers], fontsize=8)
    shown = range(0, len(steps), -(-len(steps) // 8))
    axis.set_xticks(shown, [str(steps[k]) for k in shown])
    axis.set_xlabel("step", color=INK)
    axis.tick_params(colors=INK)
    bar = figure.colorbar(image, ax=axis, pad=0.02)
    bar.set_label(TOLD.get(measure, measure), color=INK)
    axis.spines[:].set_visible(False)
    return figure


def _plain(text: str) -> str:
    """Returns text that matplotlib draws as it stands, not as mathematics."""
    return text.replace("$", r"\$")
