"""STLM and its relatives against Keras' own layers, and against their own plain form.

Every layer runs as it is best: with XLA or without, and the LSTM unrolled as well where
the sequence is short. Best stands against best. A training step is forward, loss and the
gradients of all weights; inference is forward alone. All run in one process, interleaved,
after warm-up; the table has medians. `concat` has the peer's output width, `sum` its
units.

XLA stays off for convolutions: on a CPU it makes Keras' ConvLSTM2D several times slower.

    python benchmarks/stlm_speed.py         # writes benchmarks/results/stlm_speed.json
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from engram import repository
from engram.layers import STLM, ConvSTLM2D, ParallelSTLM, STLMCell

ROUNDS, WARM_UP = 25, 4
SHORT = 32  # steps; a longer loop takes minutes to compile unrolled

Make = Callable[[int], keras.Layer]  # output width -> layer


@dataclass
class Suite:
    """Layers measured side by side on inputs of the same shapes.

    Attributes:
        shapes: of the input, batch and steps first, and the output width last.
        layers: name -> function from the output width to a layer.
        pairs: what is reported: name -> ours, peers.
        xla: settings of `jit_compile` that are tried.
        kinds: what is timed.
    """

    shapes: tuple[tuple[int, ...], ...]
    layers: dict[str, Make]
    pairs: dict[str, tuple[str, tuple[str, ...]]]
    xla: tuple[bool, ...] = (False, True)
    kinds: tuple[str, ...] = ("training", "inference")


class Products(keras.layers.Layer):
    """The products of a `concat` STLM, step after step, and nothing else.

        h_t = the first columns of [x_t, h_{t-1}] K

    No layer with these products is faster: what is left of its time are its gates.
    """

    def __init__(self, width):
        super().__init__()
        self.width = width

    def build(self, shape):
        rows, columns = shape[-1] + self.width, 3 * self.width
        self.kernel = self.add_weight(shape=(rows, columns))

    def call(self, x, training=False):
        steps = x.shape[1]
        inputs = tf.TensorArray(x.dtype, steps).unstack(tf.transpose(x, (1, 0, 2)))

        def step(t, h):
            z = tf.matmul(tf.concat([inputs.read(t), h], -1), self.kernel.value)
            return t + 1, z[:, : self.width]

        first = tf.zeros((x.shape[0], self.width))
        return tf.while_loop(lambda t, h: t < steps, step, (0, first))[1]


LSTMS = ("LSTM", "LSTM unrolled")
DENSE = Suite(
    shapes=(  # batch, steps, features, output width
        (64, 12, 207, 64),
        (64, 50, 32, 128),
        (32, 200, 16, 128),
        (128, 28, 28, 128),
        (16, 784, 1, 64),
    ),
    layers={
        "LSTM": keras.layers.LSTM,
        "LSTM unrolled": lambda width: keras.layers.LSTM(width, unroll=True),
        "concat": lambda width: STLM(width // 2),
        "concat, cell": lambda width: keras.layers.RNN(STLMCell(width // 2)),
        "sum": lambda width: STLM(width, combine="sum"),
        "sum, cell": lambda width: keras.layers.RNN(STLMCell(width, combine="sum")),
    },
    pairs={
        "concat against LSTM": ("concat", LSTMS),
        "sum against LSTM": ("sum", LSTMS),
        "concat against RNN(STLMCell)": ("concat", ("concat, cell",)),
        "sum against RNN(STLMCell)": ("sum", ("sum, cell",)),
    },
)
LIMIT = Suite(
    shapes=DENSE.shapes,
    layers={"products": Products, "concat, cell": DENSE.layers["concat, cell"]},
    pairs={"the products alone against RNN(STLMCell)": ("products", ("concat, cell",))},
    kinds=("inference",),
)
SAME = {"kernel_size": 3, "padding": "same", "return_sequences": True}
CONVOLUTIONS = Suite(
    shapes=((8, 10, 32, 32, 1, 32), (8, 10, 32, 32, 32, 32)),  # ..., channels, filters
    layers={
        "ConvLSTM2D": lambda width: keras.layers.ConvLSTM2D(width, **SAME),
        "ConvSTLM2D concat": lambda width: ConvSTLM2D(width // 2, **SAME),
        "ConvSTLM2D sum": lambda width: ConvSTLM2D(width, combine="sum", **SAME),
    },
    pairs={
        "ConvSTLM2D concat against ConvLSTM2D": ("ConvSTLM2D concat", ("ConvLSTM2D",)),
        "ConvSTLM2D sum against ConvLSTM2D": ("ConvSTLM2D sum", ("ConvLSTM2D",)),
    },
    xla=(False,),
)
PARALLEL = Suite(
    shapes=((16, 1024, 32, 128),),
    layers={
        "LSTM": keras.layers.LSTM,
        "ParallelSTLM": lambda width: ParallelSTLM(width // 2),
    },
    pairs={"ParallelSTLM against LSTM": ("ParallelSTLM", ("LSTM",))},
)


def main() -> None:
    """Measures, prints the table and writes the results file."""
    for shape in DENSE.shapes:
        check(shape)
    rows = []
    for suite in (DENSE, LIMIT, CONVOLUTIONS, PARALLEL):
        for shape in suite.shapes:
            for kind, seconds in measure(suite, shape).items():
                rows += [row(suite, pair, kind, shape, seconds) for pair in suite.pairs]
    write(rows)


def check(shape: tuple[int, ...]) -> None:
    """Asserts that the layer, its cell and an LSTM of tied weights agree."""
    *sizes, width = shape
    x = data(sizes)
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


def measure(suite: Suite, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Returns the median seconds per kind of step, layer and XLA switch."""
    *sizes, width = shape
    x = data(sizes)
    work: dict[str, dict[str, Callable]] = {kind: {} for kind in suite.kinds}
    makers = {"training": training, "inference": inference}
    for name, make in suite.layers.items():
        unrolled = name.endswith("unrolled")
        if unrolled and sizes[1] > SHORT:
            continue
        for jit_compile in suite.xla:
            if unrolled and jit_compile:
                continue  # XLA unrolls what pays by itself, and takes long to compile
            keras.utils.set_random_seed(1)
            layer = make(width)
            layer.build(x.shape)
            key = f"{name}, XLA {'on' if jit_compile else 'off'}"
            for kind in suite.kinds:
                work[kind][key] = makers[kind](layer, jit_compile)
    return {kind: medians(calls, x) for kind, calls in work.items()}


def training(layer: keras.Layer, jit_compile: bool) -> Callable:
    """Returns a function from a batch to the gradients of the layer's weights."""
    weights = [weight.value for weight in layer.trainable_weights]

    @tf.function(jit_compile=jit_compile, autograph=False)
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


def row(
    suite: Suite, pair: str, kind: str, shape: tuple[int, ...], seconds: dict[str, float]
) -> dict:
    """Returns, and prints, one line of the table."""
    ours, peers = suite.pairs[pair]
    fast, with_ours = best(seconds, (ours,))
    slow, with_peer = best(seconds, peers)
    found = {
        "case": f"{pair}, {kind}, {shape}",
        "pair": f"{pair}, {kind}",
        "ours": 1000 * fast,
        "peer": 1000 * slow,
        "ratio": slow / fast,
        "ours_as": with_ours,
        "peer_as": with_peer,
    }
    print(
        f"{found['case']:68}{found['ours']:8.2f} ms{found['peer']:8.2f} ms"
        f"{found['ratio']:6.2f}   ({with_ours}; {with_peer})",
        flush=True,
    )
    return found


def best(seconds: dict[str, float], names: tuple[str, ...]) -> tuple[float, str]:
    """Returns the least seconds among the layers `names`, and which one took them."""
    mine = {key: s for key, s in seconds.items() if key.rsplit(", XLA", 1)[0] in names}
    key = min(mine, key=mine.__getitem__)
    return mine[key], key


def data(sizes: list[int]) -> tf.Tensor:
    """Returns a batch of random sequences."""
    random = np.random.default_rng(1)
    return tf.constant(random.standard_normal(sizes, np.float32))


def write(rows: list[dict]) -> None:
    """Writes the results file, with the machine and the versions."""
    pairs = list(dict.fromkeys(one["pair"] for one in rows))
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
