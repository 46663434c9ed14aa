"""Contrastive divergence: an RBM learns a density, a whole epoch in one compiled loop.

The gradient of the mean log-likelihood is a difference of two means, one over the data
and one over the model's own rows:

    d log p / dW = < s(v - mu) (p(h|v) - lambda)^T >_data - < the same >_model
    d log p / db = < v - mu >_data - < the same >_model (Gaussian: (v - mu - b) / sigma^2)
    d log p / dc = < p(h|v) - lambda >_data - < the same >_model

Hidden units enter as probabilities, each mean is divided by its own count, and the
model's rows come from

    "cd"      k Gibbs steps from the rows of the batch                   (Hinton 2002)
    "pcd"     k Gibbs steps of chains that live on from update to update (Tieleman 2008)
    "exact"   all 2^V visible rows with their probabilities, for a small V

An update with momentum `m`, learning rate `r`, weight decay `d` and sparsity cost `s`:

    velocity = m * velocity + r * gradient    dW less d W, dc plus s (target - < p >_data)
    weights  = weights + velocity

With centring the offsets then follow the data by a share `offset_rate`, and the biases
are moved so that the density stays what it is:

    mu' = mu + rate (< v >_data - mu),           b' = b + W (lambda' - lambda)
    lambda' = lambda + rate (< h >_data - lambda),    c' = c + s(mu' - mu) W

Random numbers are stateless, drawn from (seed, number of the draw), so that training
continues bit for bit from a file. XLA on a CPU needs a named algorithm for them: with
TensorFlow's default one, drawing is a hundred times slower.

Sources: Hinton 2002, Training products of experts; Tieleman 2008, Training RBMs using
approximations to the likelihood gradient; Melchior, Fischer & Wiskott 2016, algorithm 1
(there the offsets move before the gradient); Lee, Ekanadham & Ng 2008 (sparsity, hidden
biases alone).
"""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from engram.layers.rbm import draws, energy
from engram.layers.rbm.enumeration import LIMIT, all_rows
from engram.layers.rbm.rbm import RBM, check_rows

METHODS = ("cd", "pcd", "exact")
DRAWS = 2**20  # numbers of draws that belong to an update, whatever its `k`
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
        momentum: float in [0, 1), or a function from the epoch to that.
        weight_decay: float, L2, of the kernel.
        sparsity_target: float in (0, 1), mean hidden probability to aim for, or None.
        sparsity_cost: float, how strongly.
        sample_visible: bool, how Bernoulli visible units enter. True: as zeros and ones;
            what lies between in a row is the chance of a one, drawn anew in every update.
            False: as probabilities, in the rows and in the model's last step (Hinton &
            Salakhutdinov 2006), which keeps more of the rows in deep stacks.
        centred: bool, whether offsets follow the means of the data.
        offset_rate: float in (0, 1], the share by which they follow, each update.
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
        self.chains = batch_size if chains is None else chains
        _check(method in METHODS, "method", f"one of {METHODS}", method)
        _check(passes >= 1, "passes", "at least 1", passes)
        for name, count in (("batch_size", batch_size), ("chains", self.chains)):
            _check(count >= 1, name, "at least 1", count)
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
        self.batch_size = batch_size
        self.passes = passes
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
            self._epoch, jit_compile=self.jit_compile, autograph=False
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
            ValueError: if the rows cannot be those of this RBM.
            Diverged: if a weight is not a number after an epoch.
        """
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
        velocity = self._velocity or [tf.zeros_like(one) for one in self._learned()]
        arrays = {"weights": _present(self.rbm.density()), "velocity": velocity}
        named: dict[str, Any] = {
            f"{name}_{n}": np.asarray(array)
            for name, several in arrays.items()
            for n, array in enumerate(several)
        }
        if self._living is not None:
            named["chains"] = self._living.numpy()
        about = {**self._settings(), "epoch": self.epoch, "updates": self.updates}
        with open(path, "wb") as file:
            np.savez(file, about=np.frombuffer(json.dumps(about).encode(), "u1"), **named)

    def load(self, path) -> None:
        """Takes up training where `save` left it.

        Raises:
            ValueError: if the file was written under other settings.
        """
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            if not self.rbm.built:
                self.rbm.build((None, about["visible_units"]))
            for name, value in self._settings().items():
                if about[name] != value:
                    raise ValueError(
                        f"{path}: `{name}` was {about[name]!r}. Received: {value!r}"
                    )
            weights, velocity = (
                [file[f"{name}_{n}"] for n in range(count)]
                for name, count in (
                    ("weights", len(_present(self.rbm.density()))),
                    ("velocity", len(self._learned())),
                )
            )
            self._living = tf.constant(file["chains"]) if "chains" in file else None
        self.rbm.set_density(_whole(weights))
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
        if not self._velocity:
            self._velocity = [tf.zeros_like(one) for one in self._learned()]
        if self._living is None and self.method == "pcd":
            coins = np.random.Generator(np.random.PCG64([self.seed, 0, 1]))
            drawn = coins.integers(0, 2, (self.chains, hidden))
            self._living = tf.constant(drawn, rows.dtype)
        return rows

    def _learned(self) -> list[tf.Tensor]:
        """Returns W, b, c and, of Gaussian units, log sigma^2."""
        w = self.rbm.density()
        return _present((w.kernel, w.visible_bias, w.hidden_bias, w.log_variance))

    def _at(self, name: str, epoch: int) -> float:
        """Returns a schedule's value in an epoch, checked."""
        value = getattr(self, name)
        value = value(epoch) if callable(value) else value
        if name == "k":
            _check(
                isinstance(value, int) and value >= 1, name, "an int of at least 1", value
            )
        elif name == "momentum":
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
            _present(self.rbm.density()),
            self._velocity,
            living,
            self._at("k", self.epoch),
            self.sample_visible and self._between,
        )
        if not all(np.isfinite(one).all() for one in weights):
            raise Diverged(
                f"a weight is not a number after epoch {self.epoch + 1}: lower"
                f" `learning_rate` {self._at('learning_rate', self.epoch):g}"
            )
        self.rbm.set_density(_whole(weights))
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

    def _epoch(
        self,
        rows,
        order,
        counted,
        first,
        rate,
        momentum,
        weights,
        velocity,
        living,
        k,
        chances,
    ):
        """Returns weights, velocity and chains after the updates that `order` lists."""
        states = all_rows(rows.shape[1], rows.dtype) if self.method == "exact" else None

        def update(t, weights, velocity, living):
            v, counts = tf.gather(rows, order[t]), counted[t]
            w, number = _whole(weights), first + tf.cast(t, tf.int64)
            if chances:  # the draw before those of the next update
                last = (number + 1) * DRAWS - 1
                u = draws.uniform(v.shape, self.seed, last, self.jit_compile, v.dtype)
                v = tf.cast(u < v, v.dtype)
            shares = counts / tf.reduce_sum(counts)  # (B,), each row's weight in a mean
            gradient, data, living = self._gradient(
                w, v, shares, living, states, number, k
            )
            weights, velocity = self._step(w, gradient, data, velocity, rate, momentum)
            return t + 1, _present(weights), velocity, living

        updates = order.shape[0]
        return tf.while_loop(
            lambda t, *_: t < updates,
            update,
            (0, weights, velocity, living),
            maximum_iterations=updates,
        )[1:]

    def _step(self, w, gradient, data, velocity, rate, momentum):
        """Returns weights and velocity after one update."""
        of_kernel, of_visible, of_hidden, *of_variance = gradient
        mean_v, mean_h = data
        if self.weight_decay:
            of_kernel -= self.weight_decay * w.kernel
        if self.sparsity_target is not None:
            of_hidden += self.sparsity_cost * (self.sparsity_target - mean_h)
        gradient = [of_kernel, of_visible, of_hidden, *of_variance]
        old, velocity = velocity, [rate * one for one in gradient]
        if momentum is not None:
            velocity = [momentum * a + b for a, b in zip(old, velocity, strict=True)]
        learned = _present((w.kernel, w.visible_bias, w.hidden_bias, w.log_variance))
        kernel, b, c, *log_variance = [
            a + b for a, b in zip(learned, velocity, strict=True)
        ]
        w = energy.Weights(kernel, b, c, w.visible_offset, w.hidden_offset, *log_variance)
        return (
            recentred(w, mean_v, mean_h, self.offset_rate) if self.centred else w
        ), velocity

    def _gradient(self, w, v, shares, living, states, number, k):
        """Returns the gradients, means of `v` and `p(h|v)`, and the chains' new ends."""
        if self.replicas == 1:
            gradient, means, living = self._phases(
                w, v, shares, living, states, number, k, 0
            )
        else:
            numbers = self.strategy.experimental_distribute_values_from_function(
                lambda context: context.replica_id_in_sync_group
            )
            found = self.strategy.run(
                self._phases, (w, v, shares, living, states, number, k, numbers)
            )
            *sums, living = found
            gradient, means = tf.nest.map_structure(
                lambda one: self.strategy.reduce("SUM", one, axis=None), sums
            )
            living = tf.concat(self.strategy.experimental_local_results(living), 0)
        return gradient, means, living

    def _phases(self, w, v, shares, living, states, number, k, replica):
        """Returns one replica's part of: data phase, data means, model phase, chains."""
        draw = _Draws(self, v.dtype, number, replica)
        part = draw.part
        v, shares = part(v), part(shares)
        p = tf.sigmoid(energy.hidden_logits(w, v))
        data = v, p, shares
        means = [_mean(v, shares), _mean(p, shares)]
        if self.method == "exact":
            logits = -energy.free_energy(w, states)
            p_states = tf.sigmoid(energy.hidden_logits(w, states))
            model = states, p_states, tf.nn.softmax(logits) / self.replicas
            return _difference(w, data, model), means, living
        if self.method == "cd":
            h = draw.ones(p, self.batch_size)
        else:
            h = part(living)
            shares = tf.fill(h.shape[:1], tf.cast(1 / self.chains, v.dtype))
        count = self.batch_size if self.method == "cd" else self.chains
        for _ in range(k):
            mean = energy.visible_mean(w, h)
            if w.log_variance is None:
                v = draw.ones(mean, count)
            else:
                v = mean + tf.exp(w.log_variance / 2) * draw.normal(mean, count)
            p = tf.sigmoid(energy.hidden_logits(w, v))
            h = draw.ones(p, count)
        if w.log_variance is None and not self.sample_visible:
            v = mean  # the chains go on from what was drawn
            p = tf.sigmoid(energy.hidden_logits(w, v))
        gradient = _difference(w, data, (v, p, shares))
        return gradient, means, h if self.method == "pcd" else living


def phase(w, v, p, shares):
    """Returns the weighted mean of `-dE/d(W, b, c, log sigma^2)` with `h = p`.

    Args:
        w: `energy.Weights`.
        v: `(B, V)`.
        p: `(B, L)`, `p(h = 1 | v)`.
        shares: `(B,)`, what each row counts in the mean.
    """
    x, q = energy.scaled(w, v), p - w.hidden_offset  # (B, V), (B, L)
    weighted = x * shares[:, None]
    of_kernel = tf.matmul(weighted, q, transpose_a=True)
    of_hidden = _mean(q, shares)
    if w.log_variance is None:
        return [of_kernel, tf.reduce_sum(weighted, 0), of_hidden]
    precision = tf.exp(-w.log_variance)
    away = v - w.visible_offset - w.visible_bias  # (B, V)
    of_visible = _mean(away, shares) * precision
    pulled = x * tf.matmul(q, w.kernel, transpose_b=True)
    of_variance = _mean(tf.square(away) * precision / 2 - pulled, shares)
    return [of_kernel, of_visible, of_hidden, of_variance]


def _difference(w, data, model):
    """Returns the phase of the data less that of the model, in one product."""
    v, p, shares = (
        tf.concat([a, b], 0) for a, b in zip(data, (*model[:2], -model[2]), strict=True)
    )
    return phase(w, v, p, shares)


def recentred(w, mean_v, mean_h, rate):
    """Returns the same density with offsets a share `rate` nearer to the means given."""
    of_v = rate * (mean_v - w.visible_offset)  # (V,)
    of_h = rate * (mean_h - w.hidden_offset)  # (L,)
    b = w.visible_bias + tf.linalg.matvec(w.kernel, of_h)
    scale = 1.0 if w.log_variance is None else tf.exp(-w.log_variance)
    if w.log_variance is not None:
        b -= of_v  # the mean of Gaussian units is mu + b
    return w._replace(
        visible_bias=b,
        hidden_bias=w.hidden_bias + tf.linalg.matvec(w.kernel, of_v * scale, True),
        visible_offset=w.visible_offset + of_v,
        hidden_offset=w.hidden_offset + of_h,
    )


class _Draws:
    """The random numbers of one update: the same, however many replicas share them.

    Each draw is made for all rows; a replica takes those of its own rows.
    """

    def __init__(self, how, dtype, number, replica):
        self._how, self._dtype, self._replica = how, dtype, replica
        self._next = number * DRAWS

    def part(self, rows):
        """Returns this replica's share of rows."""
        if self._how.replicas == 1:
            return rows
        size = rows.shape[0] // self._how.replicas
        return tf.slice(
            rows,
            [self._replica * size, *[0] * (len(rows.shape) - 1)],
            [size, *rows.shape[1:]],
        )

    def ones(self, chances, count):
        """Returns 1 with the chances given, else 0; for one of `count` rows each."""
        return tf.cast(self._uniform(chances, count) < chances, self._dtype)

    def normal(self, like, count):
        """Returns standard normal numbers, for one of `count` rows each."""
        return draws.normal(self._uniform(like, count), self._uniform(like, count))

    def _uniform(self, like, count):
        shape = (count, like.shape[1])
        how = self._how
        drawn = draws.uniform(shape, how.seed, self._next, how.jit_compile, self._dtype)
        self._next += 1
        return self.part(drawn)


def _mean(rows, shares):
    return tf.linalg.matvec(rows, shares, transpose_a=True)


def _present(weights) -> list:
    """Returns the weights that there are."""
    return [one for one in weights if one is not None]


def _whole(weights) -> energy.Weights:
    return energy.Weights(*weights)


def _check(holds: bool, name: str, expected: str, received) -> None:
    if not holds:
        raise ValueError(f"`{name}` must be {expected}. Received: {received}")
