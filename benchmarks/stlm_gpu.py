"""STLM and its relatives on a GPU, against Keras' LSTM and the backend's own.

All layers have the same output width: `concat` has half as many units, `sum` as many.
Every one runs as it is best: compiled by `jax.jit` on JAX; operation by operation on
PyTorch, where compiling would keep Keras from cuDNN. Keras' LSTM runs by cuDNN, which it
chooses by itself, and as a loop; on JAX short sequences are unrolled as well. A training
step is forward, loss and the gradients of all weights; inference is forward alone. All
run in one process, interleaved, after warm-up, each call waited for; the table has
medians.

Matrix products may use TF32 on all sides. Before anything is timed, STLM is held against
its cell and against cuDNN's LSTM with tied weights, outputs and gradients, without TF32.

    KERAS_BACKEND=jax python benchmarks/stlm_gpu.py    # each writes its part of
    KERAS_BACKEND=torch python benchmarks/stlm_gpu.py  # benchmarks/results/stlm_gpu.json
"""

import contextlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from engram.layers import STLM, ParallelSTLM, STLMCell

BATCH, FEATURES = 64, 32
SHAPES = ((12, 128), (100, 128), (1000, 128), (100, 512))  # steps, output width
SHORT = 32  # steps; a longer loop takes minutes to compile unrolled
WARM_UP, ROUNDS, FEWEST = 2, 50, 5
SECONDS = 4.0  # for the rounds of one kind of step, if there are the fewest already
LAYERS: dict[str, Callable[[int], keras.Layer]] = {  # output width -> layer
    "STLM concat": lambda width: STLM(width // 2),
    "STLM concat, unrolled": lambda width: STLM(width // 2, unroll=True),
    "RNN(STLMCell) concat": lambda width: keras.layers.RNN(STLMCell(width // 2)),
    "STLM sum": lambda width: STLM(width, combine="sum"),
    "STLM sum, unrolled": lambda width: STLM(width, combine="sum", unroll=True),
    "ParallelSTLM": lambda width: ParallelSTLM(width // 2),
    "Keras LSTM": keras.layers.LSTM,
    "Keras LSTM, loop": lambda width: keras.layers.LSTM(width, use_cudnn=False),
    "Keras LSTM, unrolled": lambda width: keras.layers.LSTM(width, unroll=True),
}
CONCAT = ("STLM concat", "STLM concat, unrolled", "RNN(STLMCell) concat")
SUM = ("STLM sum", "STLM sum, unrolled")
LSTM = ("Keras LSTM", "Keras LSTM, loop", "Keras LSTM, unrolled")
PAIRS = {  # what is reported: ours, peers; the best of each
    "STLM concat against Keras LSTM": (CONCAT, LSTM),
    "STLM concat against the backend's own LSTM": (CONCAT, ("cuDNN LSTM", "Flax LSTM")),
    "STLM concat against RNN(STLMCell)": (CONCAT[:2], CONCAT[2:]),
    "STLM sum against Keras LSTM": (SUM, LSTM),
    "ParallelSTLM against Keras LSTM": (("ParallelSTLM",), LSTM),
}


@dataclass
class Side:
    """A layer as a function of its weights.

    Attributes:
        weights: what gradients are taken of.
        apply: (weights, x, training) -> the last output `(B, W)`.
        arrays: from weights, or their gradients, to NumPy arrays.
        filled: from such arrays to weights.
    """

    weights: Any
    apply: Callable
    arrays: Callable
    filled: Callable


class Jax:
    """JAX: a layer is compiled as a whole; its own LSTMs are cuDNN's and Flax'."""

    name, packages = "JAX", ("keras", "jax", "jaxlib", "flax", "numpy")

    def __init__(self) -> None:
        import jax

        self.jax = jax
        self.device = jax.devices()[0].device_kind
        self.has_gpu = jax.default_backend() == "gpu"
        self.own = {"cuDNN LSTM": self.cudnn, "Flax LSTM": self.flax}
        self.data = jax.numpy.asarray

    def exact(self):
        """Returns a context without TF32."""
        return self.jax.default_matmul_precision("highest")

    def of_keras(self, layer: keras.Layer) -> Side:
        """Returns a built Keras layer."""
        fixed = [one.value for one in layer.non_trainable_variables]

        def apply(weights, x, training):
            return layer.stateless_call(weights, fixed, x)[0]

        weights = [one.value for one in layer.trainable_weights]
        return Side(weights, apply, _all_numpy, lambda new: list(map(self.data, new)))

    def cudnn(self, width: int) -> Side:
        """Returns cuDNN's LSTM with its weights as it wants them: all in one vector."""
        from jax.experimental import rnn

        sizes = {"input_size": FEATURES, "hidden_size": width, "num_layers": 1}
        form = {**sizes, "bidirectional": False}
        first = self.jax.numpy.zeros((1, BATCH, width))

        def apply(weights, x, training):
            lengths = self.jax.numpy.full((BATCH,), x.shape[1], "int32")
            found = rnn.lstm(x, first, first, weights, lengths, dropout=0.0, **form)
            return found[0][:, -1]

        def arrays(weights):
            ends = np.cumsum([4 * width * size for size in (FEATURES, width)])
            *kernels, biases = np.split(np.asarray(weights), ends)
            kernels = [kernel.reshape(4 * width, -1) for kernel in kernels]
            return [*kernels, *np.split(biases, 2)]

        def filled(new):
            return self.data(np.concatenate([one.ravel() for one in new]))

        weights = rnn.init_lstm_weight(self.jax.random.key(1), **form)
        return Side(weights, apply, arrays, filled)

    def flax(self, width: int) -> Side:
        """Returns Flax' loop over its optimized cell."""
        from flax import linen

        module = linen.RNN(linen.OptimizedLSTMCell(width))
        blank = self.jax.numpy.zeros((BATCH, 2, FEATURES))
        weights = module.init(self.jax.random.key(1), blank)

        def apply(weights, x, training):
            return module.apply(weights, x)[:, -1]

        return Side(weights, apply, _all_numpy, list)

    def inference(self, side: Side, x) -> Callable:
        """Returns a function from a batch to the output."""
        run = self.jax.jit(lambda weights, x: side.apply(weights, x, False))
        return _Compiled(run.lower(side.weights, x).compile(), side.weights)

    def training(self, side: Side, x) -> Callable:
        """Returns a function from a batch to the loss and the gradients."""

        def loss(weights, x):
            return (side.apply(weights, x, True) ** 2).sum()

        run = self.jax.jit(self.jax.value_and_grad(loss))
        return _Compiled(run.lower(side.weights, x).compile(), side.weights)

    def wait(self, found):
        """Returns what a call found, when it has been computed."""
        return self.jax.block_until_ready(found)

    def by_cudnn(self, call, x) -> bool:
        """Whether the compiled program calls cuDNN's LSTM."""
        return "cudnn_rnn" in call.program.as_text()


@dataclass
class _Compiled:
    program: Any
    weights: Any

    def __call__(self, x):
        return self.program(self.weights, x)


class Torch:
    """PyTorch: a layer runs operation by operation; its own LSTM is cuDNN's."""

    name, packages = "PyTorch", ("keras", "torch", "numpy")

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.has_gpu = torch.cuda.is_available()
        self.place = "cuda" if self.has_gpu else "cpu"
        self.device = torch.cuda.get_device_name() if self.has_gpu else "CPU"
        self.own = {"cuDNN LSTM": self.cudnn}
        self._allow(True)

    def data(self, array):
        """Returns a tensor."""
        return self.torch.tensor(np.asarray(array), device=self.place)

    def _allow(self, tf32: bool) -> None:
        self.torch.backends.cuda.matmul.allow_tf32 = tf32
        self.torch.backends.cudnn.allow_tf32 = tf32

    @contextlib.contextmanager
    def exact(self):
        """Returns a context without TF32."""
        self._allow(False)
        yield
        self._allow(True)

    def of_keras(self, layer: keras.Layer) -> Side:
        """Returns a built Keras layer."""
        weights = [one.value for one in layer.trainable_weights]

        def apply(_, x, training):
            return layer(x)

        return Side(weights, apply, _all_numpy, lambda new: self._fill(weights, new))

    def cudnn(self, width: int) -> Side:
        """Returns `torch.nn.LSTM`."""
        module = self.torch.nn.LSTM(FEATURES, width, batch_first=True).to(self.place)
        weights = list(module.parameters())

        def apply(_, x, training):
            return module.train(training)(x)[0][:, -1]

        return Side(weights, apply, _all_numpy, lambda new: self._fill(weights, new))

    def _fill(self, weights, new):
        with self.torch.no_grad():
            for weight, one in zip(weights, new, strict=True):
                weight.copy_(self.data(one))
        return weights

    def inference(self, side: Side, x) -> Callable:
        """Returns a function from a batch to the output."""

        def run(x):
            with self.torch.no_grad():
                return side.apply(side.weights, x, False)

        return run

    def training(self, side: Side, x) -> Callable:
        """Returns a function from a batch to the loss and the gradients."""

        def run(x):
            loss = (side.apply(side.weights, x, True) ** 2).sum()
            return loss, self.torch.autograd.grad(loss, side.weights)

        return run

    def wait(self, found):
        """Returns what a call found, when it has been computed."""
        if self.has_gpu:
            self.torch.cuda.synchronize()
        return found

    def by_cudnn(self, call, x) -> bool:
        """Whether a profile of a call with fewer steps shows cuDNN's LSTM."""
        with self.torch.profiler.profile() as profile:
            self.wait(call(x[:, :SHORT]))
        return any("_cudnn_rnn" in event.key for event in profile.key_averages())


def _all_numpy(weights):
    return [keras.ops.convert_to_numpy(weight) for weight in weights]


def main() -> None:
    """Checks, measures, prints the table and writes this backend's part of it."""
    backend = {"jax": Jax, "torch": Torch}.get(keras.backend.backend())
    if backend is None or not (engine := backend()).has_gpu:
        print("Nothing measured: needs a GPU, and KERAS_BACKEND jax or torch.")
        return
    print(engine.name, engine.device, flush=True)
    with engine.exact():
        exact = differences(engine)
    print("without TF32:", exact, flush=True)
    np.testing.assert_array_less(list(exact.values()), 1e-4)
    rounded = differences(engine)
    print("with TF32:", rounded, flush=True)
    times = [one for shape in SHAPES for one in measure(engine, *shape)]
    write(engine, times, {"float32": exact, "TF32": rounded})


def differences(engine, steps: int = 100, width: int = 128) -> dict[str, float]:
    """Returns how far STLM is from its cell and from cuDNN's LSTM, with equal weights.

    Each is the largest difference as a share of the peer's largest number, of outputs or
    of gradients.
    """
    x = data(engine, steps)
    fast, slow = (
        built(engine, name, width) for name in ("STLM concat", "RNN(STLMCell) concat")
    )
    own = engine.own["cuDNN LSTM"](width)
    weights = fast.arrays(fast.weights)
    slow.weights = slow.filled(weights)
    kernel, recurrent_kernel, bias = map(tied, weights)
    own.weights = own.filled([kernel.T, recurrent_kernel.T, bias, np.zeros_like(bias)])
    ours, cells, (output, w_ih, w_hh, b_ih, _) = (
        results(engine, side, x) for side in (fast, slow, own)
    )
    of_cudnn = [output, *map(untied, (w_ih.T, w_hh.T, b_ih))]
    found = {}
    for peer, theirs in (("its cell", cells), ("cuDNN's LSTM", of_cudnn)):
        outputs, *gradients = map(_apart, ours, theirs)
        found[f"outputs against {peer}"] = outputs
        found[f"gradients against {peer}"] = max(gradients)
    return found


def results(engine, side: Side, x) -> list[np.ndarray]:
    """Returns the output and the gradients of all weights."""
    output = engine.wait(engine.inference(side, x)(x))
    _, gradients = engine.wait(engine.training(side, x)(x))
    return [keras.ops.convert_to_numpy(output), *side.arrays(gradients)]


def _apart(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def tied(weight: np.ndarray) -> np.ndarray:
    """Returns the blocks `g, i, f, o` of an STLM as an LSTM's `i, f, g, o`."""
    units = weight.shape[-1] // 6
    g, i, f, o = np.split(weight, [units, 3 * units, 5 * units], axis=-1)
    return np.concatenate([i, f, g, g, o, o], axis=-1)


def untied(gradient: np.ndarray) -> np.ndarray:
    """Returns the gradient of an STLM's weight from that of the LSTM's."""
    i_s, i_l, f_s, f_l, g, again, o, too = np.split(gradient, 8, axis=-1)
    return np.concatenate([g + again, i_s, i_l, f_s, f_l, o + too], axis=-1)


def measure(engine, steps: int, width: int) -> list[dict]:
    """Returns the median milliseconds per layer and kind of step."""
    x = data(engine, steps)
    sides = {
        name: built(engine, name, width)
        for name in LAYERS
        if "unrolled" not in name or (engine.name == "JAX" and steps <= SHORT)
    }
    sides |= {name: make(width) for name, make in engine.own.items()}
    found = []
    for kind, make in (("inference", engine.inference), ("training", engine.training)):
        calls = {name: make(side, x) for name, side in sides.items()}
        seconds = medians(engine, calls, x)
        for name, call in calls.items():
            one = {"backend": engine.name, "layer": name, "kind": kind, "steps": steps}
            one |= {"width": width, "ms": 1000 * seconds[name]}
            found.append({**one, "cudnn": engine.by_cudnn(call, x)})
            print(*found[-1].values(), flush=True)
    return found


def built(engine, name: str, width: int) -> Side:
    """Returns a Keras layer with its first weights."""
    keras.utils.set_random_seed(1)
    layer = LAYERS[name](width)
    layer.build((BATCH, None, FEATURES))
    return engine.of_keras(layer)


def medians(engine, calls: dict[str, Callable], x) -> dict[str, float]:
    """Returns the median seconds of each call; rounds are interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP):
        for call in calls.values():
            engine.wait(call(x))
    until = time.perf_counter() + SECONDS
    for k in range(ROUNDS):
        if k >= FEWEST and time.perf_counter() > until:
            break
        for name, call in calls.items():
            began = time.perf_counter()
            engine.wait(call(x))
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def data(engine, steps: int):
    """Returns a batch of random sequences."""
    random = np.random.default_rng(1)
    return engine.data(random.standard_normal((BATCH, steps, FEATURES), np.float32))


def rows(times: list[dict]) -> list[dict]:
    """Returns how many times as fast as its peer each layer is, best against best."""
    cases: dict[tuple, dict[str, float]] = {}
    for one in times:
        case = one["backend"], one["kind"], one["steps"], one["width"]
        cases.setdefault(case, {})[one["layer"]] = one["ms"]
    found = []
    for (backend, kind, steps, width), ms in cases.items():
        for pair, names in PAIRS.items():
            measured = [[name for name in side if name in ms] for side in names]
            if not all(measured):
                continue
            ours, peer = (min(side, key=ms.__getitem__) for side in measured)
            found.append(
                {
                    "case": f"{backend}: {pair}, {kind}, {steps} steps, width {width}",
                    "pair": f"{backend}: {pair}, {kind}",
                    "ours": ms[ours],
                    "peer": ms[peer],
                    "ratio": ms[peer] / ms[ours],
                    "ours_as": ours,
                    "peer_as": peer,
                }
            )
    return found


def write(engine, times: list[dict], apart: dict) -> None:
    """Writes this backend's part of the results file; the other's stays."""
    out = Path(__file__).parent / "results" / "stlm_gpu.json"
    content = json.loads(out.read_text()) if out.is_file() else {}
    kept = [one for one in content.get("times", []) if one["backend"] != engine.name]
    times = sorted(kept + times, key=lambda one: one["backend"])
    compared = rows(times)
    ratios: dict[str, list[float]] = {}
    for one in compared:
        ratios.setdefault(one["pair"], []).append(one["ratio"])
    geomeans = {pair: statistics.geometric_mean(r) for pair, r in ratios.items()}
    versions = {name: version(name) for name in engine.packages}
    new = {"devices": engine.device, "versions": versions, "differences": apart}
    about = {key: {**content.get(key, {}), engine.name: one} for key, one in new.items()}
    content = {"times": times, "rows": compared, "geomeans": geomeans, **about}
    out.write_text(json.dumps(content, indent=2) + "\n")
    for pair, ratio in geomeans.items():
        print(f"{pair}: {ratio:.2f}")


if __name__ == "__main__":
    main()
