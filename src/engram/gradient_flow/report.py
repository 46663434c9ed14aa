"""A report on one model: every layer's numbers, and a verdict on each in words."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engram.gradient_flow import chain_rule, graph, measures, over_time, spectrum, theory
from engram.gradient_flow.callback import LOGS, NOTHING

Row = dict[str, Any]

WIDEST = 256  # outputs up to which a Jacobian is written out
FAR = 1e3  # a gradient's factor from the strongest or weakest that is worth a word
LOW, HIGH = 0.5, 2.0  # of chi: what a single layer may do unnoticed
MANY = 0.5  # share of a layer that is saturated or dead


def probe(model: keras.Model, x, y=None, probes: int = 8, spectra: bool = True) -> Row:
    """Returns what is measured of a model, as it is used after training.

    Args:
        model: a Sequential or Functional model; compiled, if `y` is given.
        x: its inputs, a batch; 64 rows tell enough.
        y: its targets, or None: then gradients of the loss are left out.
        probes: int, vectors for each norm of a Jacobian.
        spectra: bool, whether singular values are wanted, of the first row's Jacobians:
            `top` and `median` of each layer, `top_on` and `median_on` from the layer's
            output to the model's.

    Returns:
        `layers`, a list of dicts as the rows of `GradientFlow`; `depth`, how many layers
        with kernels gradients pass, `chi`, their mean factor, and `xi`; `over_time`, of
        each recurrent layer `ln` of gradients by lag and state.
    """
    calls, found = measures.measure(model, x, y, probes=probes)
    numbers = {name: np.asarray(value, np.float64) for name, value in found.items()}
    loss = numbers.pop("loss", None)
    numbers.pop("cosine", None)
    for name in LOGS:
        if name in numbers:
            log = numbers[name] / math.log(10)
            numbers[name] = np.where(log < NOTHING, -np.inf, log)
    rows = [
        {"layer": one.name} | {name: float(value[n]) for name, value in numbers.items()}
        for n, one in enumerate(calls)
    ]
    if spectra:
        for row, values in zip(rows, _spectra(model, x), strict=True):
            row.update(values)
    for row, one in zip(rows, calls, strict=True):
        row["kernel"] = any(len(w.shape) > 1 for w in getattr(one.layer, "weights", []))
        row["weights"] = bool(one.weights)
        row["size"] = int(np.prod(one.outputs[0].shape[1:]))
    told = {"layers": rows, "over_time": _over_time(calls), **_depth(rows)}
    return told | ({} if loss is None else {"loss": float(loss)})


def _depth(rows: list[Row]) -> Row:
    """Returns depth, mean factor and depth scale between the first and last kernel.

    chi^(depth - 1) = (|dy/dh_1|^2 / size) / (|dy/dh_last|^2 / size)
    """
    kernels = [row for row in rows if row["kernel"] and math.isfinite(row["jacobian"])]
    depth = len(kernels)
    if depth < 3:
        return {"depth": depth, "chi": math.nan, "xi": math.nan}
    first, last = (
        2 * row["jacobian"] * math.log(10) - math.log(row["size"])
        for row in (kernels[0], kernels[-2])  # the last one gives out what is asked for
    )
    factor = math.exp((first - last) / (depth - 2))
    return {"depth": depth, "chi": factor, "xi": theory.depth_scale(factor)}


def _over_time(calls: list[graph.Call]) -> dict[str, np.ndarray]:
    found = {}
    for one in calls:
        if over_time.can_be_told(one.layer) and one.inputs[0].shape.rank == 3:
            states = one.inputs[1:] or None
            found[one.name] = over_time.gradient_by_lag(one.layer, one.inputs[0], states)
    return found


def _spectra(model, x) -> list[dict[str, float]]:
    """Returns `ln` of singular values of each call, by itself and up to the outputs."""
    one_row = keras.tree.map_structure(lambda part: tf.convert_to_tensor(part)[:1], x)
    with keras.StatelessScope():
        calls, result = graph.record(model, one_row)
        outputs = [o for o in keras.tree.flatten(result) if o.dtype.is_floating]
        sizes = [int(tf.size(y)) for one in calls for y in one.outputs]
        rows = min(WIDEST, max(sizes))
        tiled = keras.tree.map_structure(lambda part: tf.repeat(part, rows, 0), one_row)
        many, results = graph.record(model, tiled)
        ends = [o for o in keras.tree.flatten(results) if o.dtype.is_floating]
        found = [_alone(*both) for both in zip(calls, many, strict=True)]
        on = _to_outputs(calls, outputs, many, ends)
    return [a | b for a, b in zip(found, on, strict=True)]


def _alone(one: graph.Call, tiled: graph.Call) -> dict[str, float]:
    if len(one.inputs) != 1 or len(one.outputs) != 1:
        return {"top": math.nan, "median": math.nan}
    (x,), (y,) = one.inputs, one.outputs
    if int(tf.size(y)) <= WIDEST:
        (found,), log = chain_rule.vjp(
            tiled, [_unit_rows(tiled.outputs[0])], tiled.inputs
        )
        return _named(*_exact(found, y, float(log)), "")

    def push(v):
        return chain_rule.jvp(one, [v])[0]

    def pull(u):
        (found,), log = chain_rule.vjp(one, [u], [x])
        return chain_rule.scaled(found, log)

    return _named(*_iterated(push, pull, x, y), "")


def _to_outputs(calls, outputs, many, ends) -> list[dict[str, float]]:
    none = {"top_on": math.nan, "median_on": math.nan}
    if len(outputs) != 1:
        return [none] * len(calls)
    (y,), (end,) = outputs, ends
    found = []
    if int(tf.size(y)) <= WIDEST:
        pulled = chain_rule.pull(many, [(end, _unit_rows(end))])
        for at in pulled.outputs:
            one = at[0] if len(at) == 1 else None
            found.append(
                _named(*_exact(one.value, y, float(one.log)), "_on") if one else none
            )
        return found
    for n, one in enumerate(calls):
        if len(one.outputs) != 1:
            found.append(none)
            continue
        h, above = one.outputs[0], calls[n + 1 :]

        def push(v, h=h, above=above):
            return chain_rule.push(above, [(h, v)])[id(y)]

        def pull(u, h=h, above=above):
            return chain_rule.pull(above, [(y, u)]).inputs[id(h)]

        found.append(_named(*_iterated(push, pull, h, y), "_on"))
    return found


def _unit_rows(y) -> chain_rule.Scaled:
    """Returns the rows of the unit matrix in `y`'s shape, as many as there are."""
    size = int(np.prod(y.shape[1:]))
    rows = tf.eye(y.shape[0], size, dtype=y.dtype)
    return chain_rule.scaled(tf.reshape(rows, y.shape))


def _exact(found, y, log: float) -> tuple[float, float]:
    if found is None:
        return -math.inf, math.nan
    size = int(tf.size(y))
    return spectrum.exact(np.asarray(found).reshape(len(found), -1)[:size], log)


def _iterated(push, pull, x, y) -> tuple[float, float]:
    start = tf.random.stateless_normal(x.shape, (1, 1), dtype=x.dtype)
    top = spectrum.power_iteration(push, pull, start)
    return top, spectrum.median(push, pull, x, y)


def _named(top: float, median: float, ending: str) -> dict[str, float]:
    return {f"top{ending}": top, f"median{ending}": median}


def verdict(row: Row, strongest: float) -> str:
    """Returns in words what is wrong with a layer, or that nothing is.

    Args:
        row: one of `layers` of `probe`.
        strongest: decimal logarithm of the strongest gradient of all layers, of the loss
            or else of the outputs.
    """
    words = []
    signal = _signal(row)
    if any(math.isnan(row[name]) for name in ("mean", "std")):
        return "gives out numbers that are not finite"
    if signal == -math.inf:
        words.append("no gradient arrives here")
    elif signal < strongest - math.log10(FAR):
        words.append(
            f"gradients have vanished: 1e{signal - strongest:.0f} of the strongest"
        )
    if row.get("gradient") == -math.inf and signal > -math.inf:
        words.append("its weights have no gradient")
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
    strongest = max((s for row in rows if math.isfinite(s := _signal(row))), default=0.0)
    wide = max(len(row["layer"]) for row in rows)
    head = f"{'layer':{wide}}  log|dL/dW|  log dL/dh    chi  log|dy/dh|  log top  log med  flat  dead"
    lines = [head]
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
    lines += ["", *(f"{row['layer']:{wide}}  {verdict(row, strongest)}" for row in rows)]
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
    reach = theory.TRAINABLE * xi
    far = "any depth" if reach > 1000 else f"about {reach:.0f} layers"
    return (
        f"{depth} layers with kernels; from one to the next |g|^2 times {chi:.3g}: depth"
        f" scale 1/|ln chi| = {xi:.3g} layers, trainable to {far}."
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
    return row["signal"] if "signal" in row else row["jacobian"]


def _cell(value: float, width: int) -> str:
    return " " * (width - 1) + "–" if math.isnan(value) else f"{value:{width}.2f}"


def _share(value: float) -> str:
    return "   –" if math.isnan(value) else f"{value:4.0%}"
