"""Measures what docs/gradient_flow.md tells: theory beside nets, and a picture.

    python docs/gradient_flow.py     # writes gradient_flow.json and .png

The table has random nets, drawn anew for each seed. The picture has the gradients of nets
that read scikit-learn's digits, before their first step.
"""

import json
import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from engram.gradient_flow import chain_rule, graph, measures, over_time, theory

DOCS = Path(__file__).parent
INK = "#1f2933"
WIDTH, DEPTH = 512, 20  # of the nets in the table
ROWS = 64  # inputs of a net, each with a probe of its own
PROBES = 8  # of one and the same input, where theory tells what they have in common
NARROW = 400  # units where all singular values are wanted
SPECTRA = [
    ("linear", "Gaussian", 5),
    ("linear", "orthogonal", 5),
    ("relu", "Gaussian", 5),
    ("relu", "orthogonal", 5),
]
IMAGES = 256  # of the picture


def main() -> None:
    """Measures, writes both files, and the table into the page."""
    rows = table()
    (DOCS / "gradient_flow.json").write_text(json.dumps(rows, indent=2) + "\n")
    page = DOCS / "gradient_flow.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), rows), encoding="utf-8")
    draw().savefig(DOCS / "gradient_flow.png", dpi=120, metadata={"Software": None})


def filled(page: str, rows: list[dict]) -> str:
    """Returns the page with the table of `rows` between its marks."""
    before, rest = page.split("<!-- measured -->\n")
    _, after = rest.split("<!-- end -->")
    lines = ["| net | what | theory | measured |", "| :-- | :-- | --: | --: |"]
    lines += [
        f"| {row['net']} | {row['what']} | {row['theory']:.4g} |"
        f" {row['measured']:.4g} ± {row['error']:.1g} |"
        for row in rows
    ]
    body = "\n".join(["", *lines, "", ""])
    return f"{before}<!-- measured -->\n{body}<!-- end -->{after}"


def table(seeds: int = 16) -> list[dict]:
    """Returns rows of net, what is measured, theory, mean and standard error."""
    critical = theory.critical("tanh", 0.05)
    rows = [plain("tanh", s, 0.05, seeds) for s in (1.0, 1.3, 1.5, critical, 2.5, 4.0)]
    rows += [plain("sigmoid", s, 0.0, seeds) for s in (1.0, 4.0, 16.0)]
    rows += [plain("linear", 1.0, 0.0, seeds)]
    rows += [plain("relu", s, 0.0, 2 * seeds) for s in (1.0, 2.0)]
    rows += [batch_norm(seeds // 4, rows=count) for count in (32, 128, 512)]
    rows += [residual(20, scale, seeds) for scale in (1.0, 20**-0.5, 0.0)]
    rows += [spread_of_squares(*net, seeds // 4) for net in SPECTRA]
    return [*rows, gated()]


def plain(activation: str, sigma_w2: float, sigma_b2: float, seeds: int) -> dict:
    """Returns `chi` of a plain net, a layer's factor on squared gradients.

    Preactivations start at their fixed point. For ReLU one input is looked at: there
    `theory.spread` knows by how much finite width lowers the mean of `ln`, `beta / 2`,
    which is added back.
    """
    q = 1.0  # ReLU: any, chi is the same even where it dies out from layer to layer
    if activation != "relu":
        q = theory.variance(activation, sigma_w2, sigma_b2)
    phi, _ = theory.ACTIVATIONS[activation]
    model = keras.Sequential([keras.Input((WIDTH,))])
    for _ in range(DEPTH):
        model.add(keras.layers.Dense(WIDTH, activation))
    inputs, beta = (ROWS, WIDTH), 0.0
    if activation == "relu":
        inputs, beta = (1, WIDTH), theory.spread("relu", DEPTH, WIDTH, PROBES)

    def ln_factor(seed):
        draw = np.random.default_rng(seed)
        for weight in model.weights:
            wide = len(weight.shape) == 2
            scale = math.sqrt(sigma_w2 / WIDTH if wide else sigma_b2)
            weight.assign(scale * draw.standard_normal(weight.shape, np.float32))
        x = phi(math.sqrt(q) * draw.standard_normal(inputs))
        return ln_pulled(model, np.repeat(x, PROBES, 0) if beta else x, seed) + beta / 2

    logs = np.array([ln_factor(seed) for seed in range(seeds)]) / DEPTH
    name = f"{activation}, sigma_w² = {sigma_w2:.4g}"
    expected = theory.chi(activation, sigma_w2, sigma_b2)
    factor = math.exp(logs.mean())
    return row(name, "chi, a layer", expected, factor, factor * standard_error(logs))


def batch_norm(seeds: int, width: int = WIDTH, rows: int = 128, depth: int = 10) -> dict:
    """Returns a layer's factor where batches are normalised before every ReLU."""
    model = keras.Sequential([keras.Input((width,))])
    for _ in range(depth):
        he = keras.initializers.HeNormal()
        model.add(keras.layers.Dense(width, use_bias=False, kernel_initializer=he))
        model.add(keras.layers.BatchNormalization(epsilon=1e-7))
        model.add(keras.layers.ReLU())

    def ln_factor(seed):
        draw = np.random.default_rng(seed)
        for layer in model.layers[::3]:
            kernel = draw.standard_normal((width, width), np.float32)
            layer.kernel.assign(kernel * math.sqrt(2 / width))
        x = draw.standard_normal((rows, width), np.float32)
        with keras.StatelessScope():
            calls, y = graph.record(model, x, training=True)
            u = chain_rule.scaled(chain_rule.signs(y, seed))
            outputs = chain_rule.pull(calls, [(y, u)]).outputs
        # from the last ReLU's output to the first one's
        first, last = (chain_rule.ln_norm(outputs[n][0]) for n in (2, -1))
        return 2 * float(first - last) / (depth - 1)

    logs = np.array([ln_factor(seed) for seed in range(seeds)])
    factor = math.exp(logs.mean())
    name, what = f"batch norm and ReLU, {rows} rows", "factor of a layer"
    expected = theory.batch_norm("relu")
    return row(name, what, expected, factor, factor * standard_error(logs))


def residual(depth: int, scale: float, seeds: int, width: int = WIDTH) -> dict:
    """Returns `ln` of the factor of blocks `h + scale W relu(h)`, of all together."""
    h = inputs = keras.Input((width,))
    for _ in range(depth):
        branch = keras.layers.Dense(width, use_bias=False)(keras.layers.ReLU()(h))
        h = keras.layers.Add()([h, branch])
    model = keras.Model(inputs, h)

    def ln_factor(seed):
        draw = np.random.default_rng(seed)
        for weight in model.weights:
            kernel = draw.standard_normal((width, width), np.float32)
            weight.assign(kernel * scale * math.sqrt(2 / width))
        return ln_pulled(model, draw.standard_normal((ROWS, width), np.float32), seed)

    logs = np.array([ln_factor(seed) for seed in range(seeds)])
    name = f"{depth} residual blocks, scale {scale:.4g}"
    expected = theory.residual(depth, scale)
    return row(name, "ln of the factor", expected, logs.mean(), standard_error(logs))


def spread_of_squares(activation: str, start: str, depth: int, seeds: int) -> dict:
    """Returns the relative variance of the squared singular values of a whole net.

        Var[s^2] / E[s^2]^2 = depth (kappa - 1 + initial)

    with `kappa` of `theory.spread_of_slopes`, `initial` 1 for Gaussian weights and 0
    for orthogonal ones. Source: Pennington, Schoenholz & Ganguli 2017, Resurrecting the
    sigmoid in deep learning through dynamical isometry.
    """
    gain = 2.0 if activation == "relu" else 1.0
    model = keras.Sequential([keras.Input((NARROW,))])
    for _ in range(depth):
        model.add(keras.layers.Dense(NARROW, activation, use_bias=False))

    def spread(seed):
        draw = np.random.default_rng(seed)
        for weight in model.weights:
            kernel = draw.standard_normal((NARROW, NARROW))
            if start == "orthogonal":
                kernel = np.linalg.qr(kernel)[0] * math.sqrt(NARROW)
            weight.assign(kernel * math.sqrt(gain / NARROW))
        x = np.repeat(draw.standard_normal((1, NARROW)), NARROW, 0)
        calls, y = graph.record(model, x.astype(np.float32))
        unit = chain_rule.scaled(tf.eye(NARROW))
        (found,) = chain_rule.pull(calls, [(y, unit)]).inputs.values()
        squares = np.linalg.svd(np.asarray(found.value), compute_uv=False) ** 2
        return squares.var() / squares.mean() ** 2

    found = np.array([spread(seed) for seed in range(seeds)])
    kappa = theory.spread_of_slopes(activation)
    expected = depth * (kappa - 1 + (start == "Gaussian"))
    name = f"{depth} layers, {activation}, {start} weights"
    error = standard_error(found)
    return row(name, "relative variance of s²", expected, found.mean(), error)


def gated(steps: int = 25, bias: float = 3.0) -> dict:
    """Returns dh/dh of a GRU with an update bias and no kernels, its first entry."""
    layer = keras.layers.GRU(4)
    layer.build((None, steps, 2))
    for weight in layer.trainable_variables:
        weight.assign(np.zeros(weight.shape))
    layer.cell.bias.assign(np.repeat([[bias, 0, 0], [0, 0, 0]], 4, axis=1))
    found, log = over_time.state_jacobian(layer, np.ones((steps, 2), np.float32))
    expected = 1 / (1 + math.exp(-bias)) ** steps
    measured = found * math.exp(log)
    off = np.abs(measured - expected * np.eye(4)).max()
    what = f"dh/dh {steps} steps before"
    return row("GRU, update bias 3", what, expected, measured[0, 0], off)


def ln_pulled(model: keras.Model, x, seed: int) -> float:
    """Returns `ln(|J^T u|^2 / |u|^2)` of a whole model, over all rows."""
    calls, y = graph.record(model, x)
    u = chain_rule.scaled(chain_rule.signs(y, seed))
    (found,) = chain_rule.pull(calls, [(y, u)]).inputs.values()
    return 2 * float(chain_rule.ln_norm(found) - chain_rule.ln_norm(u))


def standard_error(values: np.ndarray) -> float:
    """Returns the standard error of a mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def row(net: str, what: str, expected, measured, error) -> dict:
    """Returns a line of the table."""
    numbers = {"theory": expected, "measured": measured, "error": error}
    return {"net": net, "what": what} | {k: float(v) for k, v in numbers.items()}


def digit_nets(depth: int = 20, width: int = 100) -> dict[str, keras.Model]:
    """Returns nets that read digits, by what they are made of."""
    glorot, he = keras.initializers.GlorotUniform, keras.initializers.HeNormal
    return {
        "sigmoid, Glorot": digit_net(depth, width, "sigmoid", glorot),
        "tanh, Glorot": digit_net(depth, width, "tanh", glorot),
        "ReLU, He": digit_net(depth, width, "relu", he),
        "ReLU, He, batch norm": digit_net(depth, width, "relu", he, norm=True),
        "ReLU, He, residual, 1/√L": digit_net(depth, width, "relu", he, depth**-0.5),
    }


def digit_net(depth, width, activation, start, residual=0.0, norm=False):
    """Returns a compiled classifier of digits; its dense layers are `hidden_n`."""
    h = inputs = keras.Input((64,))
    for n in range(1, depth + 1):
        layer = keras.layers.Dense(
            width, kernel_initializer=start(seed=n), name=f"hidden_{n}"
        )
        if residual and n > 1:
            branch = layer(keras.layers.Activation(activation)(h))
            h = keras.layers.Add()([h, keras.layers.Rescaling(residual)(branch)])
            continue
        h = layer(h)
        h = keras.layers.BatchNormalization()(h) if norm else h
        h = h if residual else keras.layers.Activation(activation)(h)
    model = keras.Model(
        inputs, keras.layers.Dense(10, kernel_initializer=start(seed=0))(h)
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def draw() -> Figure:
    """Returns the picture: a line for each net, the gradient of each layer's weights."""
    digits = load_digits()
    x = (digits.data[:IMAGES] / 16 - 0.5).astype(np.float32)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    colours = ("#b5179e", "#e07b00", "#52606d", "#2b6cb0", "#0b7285")
    ends = []
    for (name, model), colour in zip(digit_nets().items(), colours, strict=True):
        calls, found = measures.measure(
            model, x, digits.target[:IMAGES], training=True, jacobians=False
        )
        logs = {
            one.name: float(log) / math.log(10)
            for one, log in zip(calls, found["gradient"], strict=True)
            if one.name.startswith("hidden_")
        }
        layers = range(1, len(logs) + 1)
        axis.plot(layers, list(logs.values()), "o-", color=colour, markersize=3.5)
        ends.append((logs["hidden_1"], name, colour))
    place = -math.inf
    for end, name, colour in sorted(ends):
        place = max(end, place + 0.75)  # names side by side
        axis.text(0.5, place, name, ha="right", va="center", color=colour, fontsize=9)
    axis.set_xlim(-6, 20.5)
    axis.set_xticks([1, 5, 10, 15, 20])
    axis.set_xlabel("layer, 20 is next to the logits", color=INK)
    axis.set_ylabel("log10 |dL/dW|", color=INK)
    axis.tick_params(colors=INK)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
