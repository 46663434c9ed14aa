"""STLM and its relatives against Keras' own layers, and against their own plain form.

Every layer runs as it is best: with XLA or without, and the LSTM unrolled as well where
the sequence is short. Best stands against best. A training step is forward, loss and the
gradients of all weights; inference is forward alone. All run in one process, interleaved,
after warm-up; the table has medians. `concat` has the peer's output width, `sum` its
units.

    python benchmarks/stlm_speed.py         # writes benchmarks/results/stlm_speed.json
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
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
        kinds: what is timed.
    """

    shapes: tuple[tuple[int, ...], ...]
    layers: dict[str, Make]
    pairs: dict[str, tuple[str, tuple[str, ...]]]
    kinds: tuple[str, ...] = ("training", "inference")


class Products(keras.layers.Layer):
    """The products of an STLM, step after step, and nothing else.

        z_t = [x_t, h_{t-1}] K,   h_t = the first columns of z_t
        dh_{t-1} = dz_t R^T,   dz_t = z_t times a column of dh_t
        dK = sum_t [x_t, h_{t-1}]^T dz_t, one product after the loop

    No layer with these products is faster: what is left of its time are its gates. The
    numbers are not a gradient of anything.

    Args:
        width: of `h`.
        columns: of `z`, `6U`.
    """

    def __init__(self, width, columns):
        super().__init__()
        self.width, self.columns = width, columns

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1] + self.width, self.columns))

    def call(self, x, training=False):
        x = tf.transpose(x, (1, 0, 2))
        steps, batch, features = x.shape
        dtype, inputs = x.dtype, tf.TensorArray(x.dtype, steps).unstack(x)
        shapes = (batch, features + self.width), (batch, self.columns)
        first = tf.zeros((batch, self.width))

        @tf.custom_gradient
        def run(kernel):
            arrays = [tf.TensorArray(dtype, steps, element_shape=s) for s in shapes]

            def forward(t, h, arrays):
                both = tf.concat([inputs.read(t), h], -1)
                z = tf.matmul(both, kernel)
                if training:
                    pairs = zip(arrays, (both, z), strict=True)
                    arrays = [array.write(t, one) for array, one in pairs]
                return t + 1, z[:, : self.width], arrays

            _, h, arrays = tf.while_loop(
                lambda t, *_: t < steps, forward, (0, first, arrays)
            )

            def gradient(dh):
                def backward(t, dh, written):
                    dz = arrays[1].read(t) * dh[:, :1]
                    dh = tf.matmul(dz, kernel[features:], transpose_b=True)
                    return t - 1, dh, written.write(t, dz)

                dzs = tf.TensorArray(dtype, steps, element_shape=shapes[1])
                _, _, dzs = tf.while_loop(
                    lambda t, *_: t >= 0, backward, (steps - 1, dh, dzs)
                )
                both, dz = (
                    tf.reshape(array.stack(), (-1, shape[1]))
                    for array, shape in zip((arrays[0], dzs), shapes, strict=True)
                )
                return tf.matmul(both, dz, transpose_a=True)

            return h, gradient

        return run(self.kernel.value)


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
        "concat, products": lambda width: Products(width, 3 * width),
        "sum, products": lambda width: Products(width, 6 * width),
    },
    pairs={
        "concat against LSTM": ("concat", LSTMS),
        "sum against LSTM": ("sum", LSTMS),
        "concat against RNN(STLMCell)": ("concat", ("concat, cell",)),
        "sum against RNN(STLMCell)": ("sum", ("sum, cell",)),
        "concat's products alone against RNN(STLMCell)": (
            "concat, products",
            ("concat, cell",),
        ),
        "sum's products alone against RNN(STLMCell)": ("sum, products", ("sum, cell",)),
    },
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
    write(rows((DENSE, CONVOLUTIONS, PARALLEL)), "stlm_speed")


def rows(suites: Sequence[Suite]) -> list[dict]:
    """Measures all suites; returns the lines of the table."""
    found = []
    for suite in suites:
        for shape in suite.shapes:
            for kind, seconds in measure(suite, shape).items():
                found += [row(suite, pair, kind, shape, seconds) for pair in suite.pairs]
    return found


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
        for jit_compile in (False, True):
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


def write(rows: list[dict], name: str) -> None:
    """Writes the results file `name`, with the machine and the versions."""
    pairs = list(dict.fromkeys(one["pair"] for one in rows))
    geomeans = {
        pair: statistics.geometric_mean(r["ratio"] for r in rows if r["pair"] == pair)
        for pair in pairs
    }
    content = {
        "rows": rows,
        "geomean": geomeans[pairs[0]],
        "geomeans": geomeans,
        "machine": repository.processor(),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy")},
    }
    out = Path(__file__).parent / "results" / f"{name}.json"
    out.write_text(json.dumps(content, indent=2) + "\n")
    for pair, ratio in geomeans.items():
        print(f"{pair}: {ratio:.2f}")


if __name__ == "__main__":
    main()
