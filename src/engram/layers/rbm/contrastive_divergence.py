"""Contrastive divergence: an RBM learns a density, a whole epoch in one compiled loop.

`gradient.py` has the gradient, `updates.py` an epoch's updates; here are the settings,
the schedules, the order of rows, and the file that training goes on from.

With centring, running means of the data follow by a share `offset_rate` each update.
Every tenth update of an epoch, and after its last one, the offsets take their values and
the biases are moved so that the density stays what it is.

Random numbers are stateless, drawn from (seed, number of the draw), so that training
continues bit for bit from a file. XLA on a CPU needs a named algorithm for them: with
TensorFlow's default one, drawing is a hundred times slower.

Sources: Hinton 2002, Training products of experts; Tieleman 2008, Training RBMs using
approximations to the likelihood gradient; Melchior, Fischer & Wiskott 2016, algorithm 1
(there the offsets move in every update, before the gradient); Lee, Ekanadham & Ng 2008
(sparsity, hidden biases alone).
"""

import functools
import json
import numbers
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from engram.layers.rbm import energy, updates
from engram.layers.rbm.enumeration import LIMIT
from engram.layers.rbm.rbm import RBM, check_rows

METHODS = ("cd", "pcd", "exact")
Schedule = float | Callable[[int], float]  # of the epoch, from 0 on


class Diverged(RuntimeError):
    """A weight is not a number any more."""


class ContrastiveDivergence:
    """Trains an RBM, epoch after epoch.

    Args:
        rbm: the `RBM`. If it is not built, `fit` adapts it to the rows first.
        method: `"cd"`, `"pcd"` or `"exact"`, where the model's rows come from.
        k: int, Gibbs steps of an update, or a function from the epoch to that.
        chains: int, how many chains live on (`"pcd"`); as many as `batch_size` if None.
        batch_size: int, rows of an update; the last batch of an epoch may be smaller.
        passes: int, how often an epoch goes through the rows: more than once where they
            are few.
        learning_rate: float, or a function from the epoch to that.
        momentum: float in [0, 1), or a function from the epoch to that. After an epoch
            without any, velocities are zero.
        weight_decay: float, L2, of the kernel.
        sparsity_target: float in (0, 1), mean hidden probability to aim for, or None.
        sparsity_cost: float, how strongly.
        sample_visible: bool, how Bernoulli visible units enter. True: as zeros and ones;
            what lies between in a row is the chance of a one, drawn anew in every update.
            False: as probabilities, in the rows and in the model's last step (Hinton &
            Salakhutdinov 2006), which keeps more of the rows in deep stacks.
        centred: bool, whether offsets follow the means of the data.
        offset_rate: float in (0, 1], the share by which the running means that offsets
            take follow, each update.
        seed: int, of the order of rows and of all draws.
        jit_compile: bool, whether XLA compiles the loop. Its random numbers are others.
        strategy: a distribution strategy of TensorFlow, or None. Each of its replicas
            takes its share of every batch; results agree with those of one device up to
            the rounding of sums. Without XLA.

    Raises:
        ValueError: if an argument is wrong.
    """

    def __init__(
        self,
        rbm: RBM,
        method: str = "cd",
        k: int | Callable[[int], int] = 1,
        chains: int | None = None,
        batch_size: int = 100,
        passes: int = 1,
        learning_rate: Schedule = 0.05,
        momentum: Schedule = 0.5,
        weight_decay: float = 0.0,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.0,
        sample_visible: bool = True,
        centred: bool = True,
        offset_rate: float = 0.01,
        seed: int = 0,
        jit_compile: bool = True,
        strategy: Any = None,
    ):
        self.replicas = strategy.num_replicas_in_sync if strategy else 1
        self.batch_size = _count("batch_size", batch_size)
        self.chains = self.batch_size if chains is None else _count("chains", chains)
        self.passes = _count("passes", passes)
        _check(method in METHODS, "method", f"one of {METHODS}", method)
        for name, count in (("batch_size", self.batch_size), ("chains", self.chains)):
            _check(
                count % self.replicas == 0, name, f"{self.replicas} equal shares", count
            )
        _check(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
        _check(
            sparsity_target is None or 0 < sparsity_target < 1,
            "sparsity_target",
            "in (0, 1) or None",
            sparsity_target,
        )
        _check(sparsity_cost >= 0, "sparsity_cost", "at least 0", sparsity_cost)
        _check(0 < offset_rate <= 1, "offset_rate", "in (0, 1]", offset_rate)
        self.rbm = rbm
        self.method = method
        self.k = k
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.sparsity_target = sparsity_target
        self.sparsity_cost = sparsity_cost
        self.sample_visible = sample_visible
        self.centred = centred
        self.offset_rate = offset_rate
        self.seed = seed
        self.strategy = strategy
        self.jit_compile = jit_compile and self.replicas == 1
        self.epoch = 0  # epochs done
        self.updates = 0  # updates done
        self._between = False  # whether rows have values between 0 and 1
        self._velocity: list[tf.Tensor] = []
        self._living: tf.Tensor | None = None  # hidden units of the chains (chains, L)
        self._run = tf.function(
            functools.partial(updates.epoch, self),
            jit_compile=self.jit_compile,
            autograph=False,
        )
        for name in ("learning_rate", "momentum", "k"):
            self._at(name, 0)  # refuses a wrong number now

    def fit(
        self,
        rows,
        epochs: int,
        monitor: Callable[[RBM, int], dict[str, float]] | None = None,
        look_every: int = 1,
    ) -> dict[str, list[float]]:
        """Trains until `epochs` epochs are done in all; returns what was seen of each.

        Args:
            rows: float array `(N, V)`.
            epochs: int, epochs in all, those before a `load` included.
            monitor: function of the RBM and the epoch (1 is the first) to numbers.
            look_every: int, epochs from one look of the monitor to the next.

        Returns:
            `epoch`, `seconds` of every epoch; `looked` (epochs), `monitor_seconds` and
            the monitor's names, of those that it looked at. Each is a list.

        Raises:
            ValueError: if the rows cannot be those of this RBM, or `look_every` is wrong.
            Diverged: if a weight is not a number after an epoch.
        """
        look_every = _count("look_every", look_every)
        rows = self._prepare(rows)
        history: dict[str, list[float]] = {}
        while self.epoch < epochs:
            began = time.perf_counter()
            self._one_epoch(rows)
            trained = time.perf_counter()
            seen = {"epoch": self.epoch, "seconds": trained - began}
            if monitor and self.epoch % look_every == 0:
                found = monitor(self.rbm, self.epoch)
                seconds = time.perf_counter() - trained
                seen |= {"looked": self.epoch, "monitor_seconds": seconds, **found}
            for name, value in seen.items():
                history.setdefault(name, []).append(value)
        return history

    def save(self, path) -> None:
        """Writes all that training needs to continue bit for bit; a NumPy archive.

        The layer alone is saved with Keras, as any layer: this file has its weights too,
        and besides them velocities, chains and where the random numbers stand.
        """
        with open(path, "wb") as file:
            np.savez(file, **self.state())  # type: ignore[arg-type]

    def load(self, path) -> None:
        """Takes up training where `save` left it.

        Raises:
            ValueError: if the file was written under other settings.
        """
        with np.load(path, allow_pickle=False) as file:
            self.take({name: file[name] for name in file.files}, path)

    def state(self) -> dict[str, np.ndarray]:
        """Returns what `save` writes."""
        weights = updates.present(self.rbm.density())
        arrays = {"weights": weights, "velocity": self._velocity or self._still()}
        named: dict[str, Any] = {
            f"{name}_{n}": np.asarray(array)
            for name, several in arrays.items()
            for n, array in enumerate(several)
        }
        if self._living is not None:
            named["chains"] = self._living.numpy()
        about = {**self._settings(), "epoch": self.epoch, "updates": self.updates}
        return {"about": np.frombuffer(json.dumps(about).encode(), "u1"), **named}

    def take(self, state: dict[str, np.ndarray], where="the state") -> None:
        """Takes up training where `state` left it.

        Args:
            state: of another one with the same settings.
            where: it comes from, for the error.

        Raises:
            ValueError: if the settings were others.
        """
        about = json.loads(state["about"].tobytes())
        if not self.rbm.built:
            self.rbm.build((None, about["visible_units"]))
        for name, value in self._settings().items():
            if about[name] != value:
                raise ValueError(
                    f"{where}: `{name}` was {about[name]!r}. Received: {value!r}"
                )
        weights, velocity = (
            [state[f"{name}_{n}"] for n in range(count)]
            for name, count in (
                ("weights", len(updates.present(self.rbm.density()))),
                ("velocity", len(self._still())),
            )
        )
        self._living = tf.constant(state["chains"]) if "chains" in state else None
        self.rbm.set_density(energy.Weights(*weights))
        self._velocity = [tf.constant(one) for one in velocity]
        self.epoch, self.updates = about["epoch"], about["updates"]

    def _settings(self) -> dict[str, Any]:
        """Returns what must be the same for training to go on from a file."""
        return {
            "method": self.method,
            "chains": self.chains,
            "batch_size": self.batch_size,
            "passes": self.passes,
            "sample_visible": self.sample_visible,
            "centred": self.centred,
            "seed": self.seed,
            "jit_compile": self.jit_compile,
            "visible": self.rbm.visible,
            "visible_units": int(self.rbm.kernel.shape[0]),
            "units": self.rbm.units,
            "dtype": self.rbm.variable_dtype,
        }

    def _prepare(self, rows) -> tf.Tensor:
        """Returns the rows, checked; readies layer, velocities and chains for them."""
        rbm = self.rbm
        if not rbm.built:
            rbm.adapt(rows, self.centred)
        visible, hidden = rbm.kernel.shape
        if self.method == "exact" and (visible > LIMIT or rbm.visible != "bernoulli"):
            raise ValueError(
                f'`method` "exact" goes through all rows of at most {LIMIT} Bernoulli'
                f" visible units. Received: {visible} {rbm.visible} units"
            )
        rows = check_rows(rows, rbm.visible, rbm.variable_dtype, visible)
        between = tf.reduce_any((rows > 0) & (rows < 1))
        self._between = rbm.visible == "bernoulli" and bool(between)
        if self._living is None and self.method == "pcd":
            coins = np.random.Generator(np.random.PCG64([self.seed, 0, 1]))
            drawn = coins.integers(0, 2, (self.chains, hidden))
            self._living = tf.constant(drawn, rows.dtype)
        return rows

    def _still(self) -> list[tf.Tensor]:
        """Returns velocities of zero."""
        return [tf.zeros_like(one) for one in updates.learned(self.rbm.density())]

    def _at(self, name: str, epoch: int) -> float:
        """Returns a schedule's value in an epoch, checked."""
        value = getattr(self, name)
        value = value(epoch) if callable(value) else value
        if name == "k":
            return _count(name, value)
        if name == "momentum":
            _check(0 <= value < 1, name, "in [0, 1)", value)
        else:
            _check(value > 0, name, "above 0", value)
        return value

    def _one_epoch(self, rows: tf.Tensor) -> None:
        order, counted = self._order(rows.shape[0])
        dtype = rows.dtype
        living = self._living if self.method == "pcd" else tf.zeros((0,), dtype)
        momentum = self._at("momentum", self.epoch)
        weights, velocity, living = self._run(
            rows,
            tf.constant(order),
            tf.constant(counted, dtype),
            tf.constant(self.updates, tf.int64),
            tf.constant(self._at("learning_rate", self.epoch), dtype),
            tf.constant(momentum, dtype) if momentum else None,
            updates.present(self.rbm.density()),
            (self._velocity or self._still()) if momentum else [],
            living,
            self._at("k", self.epoch),
            self.sample_visible and self._between,
        )
        if not all(np.isfinite(one).all() for one in weights):
            raise Diverged(
                f"a weight is not a number after epoch {self.epoch + 1}: lower"
                f" `learning_rate` {self._at('learning_rate', self.epoch):g}"
            )
        self.rbm.set_density(energy.Weights(*weights))
        self._velocity = velocity
        self._living = living if self.method == "pcd" else None
        self.updates += len(order)
        self.epoch += 1

    def _order(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns which rows each update takes, `(updates, B)`, and which of them count.

        A batch that has fewer rows is filled up with rows that do not count.
        """
        cards = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        updates = -(-count // self.batch_size)  # of a pass
        filled = np.zeros((self.passes, updates * self.batch_size), np.int32)
        for one in filled:
            one[:count] = cards.permutation(count)
        counts = np.broadcast_to(np.arange(filled.shape[1]) < count, filled.shape)
        shape = (self.passes * updates, self.batch_size)
        return filled.reshape(shape), counts.reshape(shape)


def _check(holds: bool, name: str, expected: str, received) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {expected}. Received: {received}")


def _count(name: str, received) -> int:
    """Returns a count as an int, checked."""
    counts = isinstance(received, numbers.Integral) and not isinstance(received, bool)
    _check(counts and int(received) >= 1, name, "an int of at least 1", received)
    return int(received)
