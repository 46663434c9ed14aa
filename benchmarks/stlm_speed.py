"""STLM against `keras.layers.LSTM` and against its own cell in `keras.layers.RNN`.

Every layer runs as it is best: with XLA or without, and the LSTM unrolled as well where
the sequence is short. Best stands against best. A training step is forward, loss and the
gradients of all weights; inference is forward alone. All run in one process, interleaved,
after warm-up; the table has medians. `concat` has the LSTM's output width, `sum` its
units.

    python benchmarks/stlm_speed.py         # writes benchmarks/results/stlm_speed.json
"""

import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from engram import repository
from engram.layers import STLM, STLMCell

SHAPES = (  # batch, steps, features, output width
    (64, 12, 207, 64),
    (64, 50, 32, 128),
    (32, 200, 16, 128),
    (128, 28, 28, 128),
    (16, 784, 1, 64),
)
ROUNDS, WARM_UP = 30, 4
SHORT = 32  # steps; a longer loop takes minutes to compile unrolled
LAYERS: dict[str, Callable[[int], keras.Layer]] = {
    "LSTM": keras.layers.LSTM,
    "LSTM unrolled": lambda width: keras.layers.LSTM(width, unroll=True),
    "concat": lambda width: STLM(width // 2),
    "concat, cell": lambda width: keras.layers.RNN(STLMCell(width // 2)),
    "sum": lambda width: STLM(width, combine="sum"),
    "sum, cell": lambda width: keras.layers.RNN(STLMCell(width, combine="sum")),
}
PAIRS = {  # what is measured: ours, peers
    "concat against LSTM": ("concat", ("LSTM", "LSTM unrolled")),
    "sum against LSTM": ("sum", ("LSTM", "LSTM unrolled")),
    "concat against its cell": ("concat", ("concat, cell",)),
    "sum against its cell": ("sum", ("sum, cell",)),
}


def main() -> None:
    """Measures, prints the table and writes the results file."""
    rows = []
    for shape in SHAPES:
        check(shape)
        for kind, seconds in measure(shape).items():
            for pair, (ours, peers) in PAIRS.items():
                fast, with_ours = best(seconds, (ours,))
                slow, with_peer = best(seconds, peers)
                rows.append(
                    {
                        "case": f"{pair}, {kind}, {shape}",
                        "pair": f"{pair}, {kind}",
                        "ours": 1000 * fast,
                        "peer": 1000 * slow,
                        "ratio": slow / fast,
                        "ours with": with_ours,
                        "peer with": with_peer,
                    }
                )
                show(rows[-1])
    write(rows)


def check(shape: tuple[int, ...]) -> None:
    """Asserts that the layer, its cell and an LSTM of tied weights agree."""
    batch, steps, features, width = shape
    x = data(batch, steps, features)
    fast, slow = STLM(width // 2), keras.layers.RNN(STLMCell(width // 2))
    lstm = keras.layers.LSTM(width)
    for layer in (fast, slow, lstm):
        layer.build(x.shape)
    slow.set_weights(fast.get_weights())
    lstm.set_weights([tied(weight, width // 2) for weight in fast.get_weights()])
    expected = tf.function(lstm)(x)
    for layer in (fast, slow):
        found = tf.function(layer)(x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def tied(weight: np.ndarray, units: int) -> np.ndarray:
    """Returns the blocks `g, i, f, o` of an STLM as an LSTM's `i, f, g, o`."""
    g, i, f, o = np.split(weight, [units, 3 * units, 5 * units], axis=-1)
    return np.concatenate([i, f, g, g, o, o], axis=-1)


def measure(shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Returns the median seconds per kind of step, layer and XLA switch."""
    batch, steps, features, width = shape
    x = data(batch, steps, features)
    work: dict[str, dict[str, Callable]] = {"training": {}, "inference": {}}
    for name, make in LAYERS.items():
        if name == "LSTM unrolled" and steps > SHORT:
            continue
        for jit_compile in (False, True):
            if name == "LSTM unrolled" and jit_compile:
                continue  # XLA unrolls what pays by itself, and takes long to compile
            keras.utils.set_random_seed(1)
            layer = make(width)
            layer.build(x.shape)
            key = f"{name}, XLA {'on' if jit_compile else 'off'}"
            work["training"][key] = training(layer, jit_compile)
            work["inference"][key] = inference(layer, jit_compile)
    return {kind: medians(calls, x) for kind, calls in work.items()}


def training(layer: keras.Layer, jit_compile: bool) -> Callable:
    """Returns a function from a batch to the gradients of the layer's weights."""
    weights = [weight.value for weight in layer.trainable_weights]

    @tf.function(jit_compile=jit_compile)
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(x, training=True)))
        return tape.gradient(loss, weights)

    return step


def inference(layer: keras.Layer, jit_compile: bool) -> Callable:
    """Returns a function from a batch to the layer's output."""
    return tf.function(lambda x: [layer(x)], jit_compile=jit_compile, autograph=False)


def medians(calls: dict[str, Callable], x: tf.Tensor) -> dict[str, float]:
    """Returns the median seconds of each call; rounds are interleaved."""
    seconds: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(WARM_UP + ROUNDS):
        for key, call in calls.items():
            began = time.perf_counter()
            [result.numpy() for result in call(x)]
            seconds[key].append(time.perf_counter() - began)
    return {key: statistics.median(times[WARM_UP:]) for key, times in seconds.items()}


def best(seconds: dict[str, float], names: tuple[str, ...]) -> tuple[float, str]:
    """Returns the least seconds among the layers `names`, and which one took them."""
    mine = {key: s for key, s in seconds.items() if key.rsplit(", XLA", 1)[0] in names}
    key = min(mine, key=mine.__getitem__)
    return mine[key], key


def data(batch: int, steps: int, features: int) -> tf.Tensor:
    """Returns a batch of random sequences."""
    random = np.random.default_rng(1)
    return tf.constant(random.standard_normal((batch, steps, features), np.float32))


def show(row: dict) -> None:
    """Prints a row."""
    print(
        f"{row['case']:60}{row['ours']:8.2f} ms{row['peer']:8.2f} ms"
        f"{row['ratio']:7.2f}   ({row['ours with']}; {row['peer with']})",
        flush=True,
    )


def write(rows: list[dict]) -> None:
    """Writes the results file, with the machine and the versions."""
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    geomeans = {
        pair: statistics.geometric_mean(r["ratio"] for r in rows if r["pair"] == pair)
        for pair in pairs
    }
    content = {
        "rows": rows,
        "geomean": geomeans["concat against LSTM, training"],
        "geomeans": geomeans,
        "machine": repository.processor(),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy")},
    }
    out = Path(__file__).parent / "results" / "stlm_speed.json"
    out.write_text(json.dumps(content, indent=2) + "\n")
    for pair, ratio in geomeans.items():
        print(f"{pair}: {ratio:.2f}")


if __name__ == "__main__":
    main()
