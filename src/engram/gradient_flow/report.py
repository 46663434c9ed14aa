"""What is measured of one model, once: every layer's numbers."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engram.gradient_flow import chain_rule, graph, measures, over_time, spectrum, theory
from engram.gradient_flow.callback import LOGS, NOTHING, require_slopes

Row = dict[str, Any]

WIDEST = 256  # outputs up to which a Jacobian is written out


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
        with kernels gradients pass, `chi`, their mean factor, and `xi = 1 / |ln chi|`,
        the layers over which it makes an e-fold; `over_time`, of each recurrent layer
        `ln` of gradients by lag and state; `loss`, if `y` is given.

    Raises:
        ValueError: if the model's graph of layers is not known, or all its outputs are
            whole numbers.
    """
    require_slopes(model, x)
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

    chi^(depth - 2) = (|dy/dh_1|^2 / size_1) / (|dy/dh_n|^2 / size_n)    n = depth - 1
    """
    kernels = [row for row in rows if row["kernel"] and math.isfinite(row["jacobian"])]
    depth = len(kernels)
    if depth < 3:
        return {"depth": depth, "chi": math.nan, "xi": math.nan}
    first, last = (
        2 * row["jacobian"] * math.log(10) - math.log(row["size"])
        for row in (kernels[0], kernels[-2])  # the last one's output is y
    )
    factor = math.exp((first - last) / (depth - 2))
    return {"depth": depth, "chi": factor, "xi": theory.depth_scale(factor)}


def _over_time(calls: list[graph.Call]) -> dict[str, np.ndarray]:
    found = {}
    for one in calls:
        given = [x.shape.rank for x in one.inputs]
        if over_time.can_be_told(one.layer) and given == [3, *[2] * (len(given) - 1)]:
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
