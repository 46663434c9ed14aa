"""Deep belief networks: RBMs trained one on top of the other.

Each RBM learns the density of what the one below says of the rows, `p(h = 1 | v)`.
`engram.layers.rbm.unrolled` makes the stack the start of a classifier or an autoencoder.

Source: Hinton, Osindero & Teh 2006, A fast learning algorithm for deep belief nets.
"""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from engram.layers.rbm import monitor
from engram.layers.rbm.contrastive_divergence import ContrastiveDivergence
from engram.layers.rbm.linear_code import LinearCode
from engram.layers.rbm.rbm import RBM

Train = Callable[[RBM, np.ndarray], dict[str, list[float]]]
ROWS = 4096  # at a time, upwards


def pretrain(rbms: list[RBM], rows, train: Train) -> list[dict[str, list[float]]]:
    """Trains a stack from the bottom up; returns what `train` returned for each.

    Args:
        rbms: the stack, the first reads the rows.
        rows: float array `(N, V)`.
        train: function of an RBM and its rows, such as one that makes a
            `ContrastiveDivergence` and calls `fit`. Each RBM's rows are computed once.
    """
    histories = []
    for n, rbm in enumerate(rbms):
        histories.append(train(rbm, rows))
        if n + 1 < len(rbms):
            rows = upwards(rbm, rows)
    return histories


def train_stack(
    rows,
    held,
    units: list[int],
    visible: str,
    epochs: int,
    learning_rate: float,
    seed: int,
    record: Callable[[dict[str, float], int], None],
    last_rate: float = 0.0,
    look_every: int = 1,
    code: int | None = None,
    **how,
) -> tuple[keras.Sequential, list[dict[str, list[float]]]]:
    """Trains a new stack; returns it as a model of its layers, and a history of each.

    The learning rate falls along a half cosine.

    Args:
        rows: float array `(N, V)`.
        held: float array, rows that are looked at but not trained on.
        units: list of ints, hidden units of each RBM, the first reads the rows.
        visible: kind of the first one's visible units; all others' are Bernoulli.
        epochs: int, of each RBM.
        learning_rate: float, of the first epoch.
        seed: int, of weights, order of rows and draws.
        record: function of numbers and epoch, such as a run's, called after each look;
            the numbers' names start with `rbm_1_`, `rbm_2_`, ...
        last_rate: float, share of the learning rate that it falls to; 1 keeps it.
        look_every: int, epochs from one look at the held-out rows to the next.
        code: int or None, units of a `LinearCode` on top, set from what the highest RBM
            says of the rows; it has no history.
        **how: of `ContrastiveDivergence`.
    """
    read = rows  # by the RBM that was trained last
    kinds = [visible, *["bernoulli"] * (len(units) - 1)]
    rbms = [
        RBM(size, visible=kind, seed=100 * seed + n, name=f"rbm_{n}")
        for n, (size, kind) in enumerate(zip(units, kinds, strict=True), start=1)
    ]

    def learn(rbm, rows):
        nonlocal held, read
        read = rows
        look = monitor.monitor(rows, held)

        def told(rbm, epoch):
            seen = look(rbm, epoch)
            record({f"{rbm.name}_{name}": value for name, value in seen.items()}, epoch)
            return seen

        trainer = ContrastiveDivergence(
            rbm,
            learning_rate=lambda epoch: (
                learning_rate * falling(epoch / epochs, last_rate)
            ),
            seed=rbm.seed,
            **how,
        )
        history = trainer.fit(rows, epochs, told, look_every)
        if rbm is not rbms[-1]:
            held = upwards(rbm, held)
        return history

    histories = pretrain(rbms, rows, learn)
    layers: list[keras.layers.Layer] = [*rbms]
    if code is not None:
        layers.append(LinearCode(code, name="code"))
        layers[-1].adapt(upwards(rbms[-1], read))
    return keras.Sequential([keras.Input(rbms[0].kernel.shape[:1]), *layers]), histories


def falling(share: float, last: float) -> float:
    """Returns what falls along a half cosine from 1 at share 0 to `last` at share 1."""
    return last + (1 - last) * (1 + math.cos(math.pi * share)) / 2


def upwards(rbm: RBM, rows) -> np.ndarray:
    """Returns `p(h = 1 | v)` `(N, L)` of rows `(N, V)`."""
    pieces = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    return np.concatenate(
        [ops.convert_to_numpy(rbm.hidden_probabilities(one)) for one in pieces]
    )
