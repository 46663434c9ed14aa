"""An RBM of 784-500 units against scikit-learn's and a plain PyTorch loop, and how well.

Speed: updates per second by CD-1. Each runs as it is best: ours with XLA or without, the
peers with one thread or as many as there are cores. Scikit-learn's `BernoulliRBM` does
the same five products an update (its chains live on), here with float32 rows; its time
leaves out what it takes to set up. PyTorch takes part where it is installed. All run in
one process, interleaved, after warm-up; the table has medians. A row for the products
alone says how fast ours could be if all else took no time.

Likelihood: both learn equal rows for equal epochs at equal rates, in float64, and an
exact log Z says how well, in nats a row, the mean of three seeds. One row more leaves a
last batch of one.

    python benchmarks/rbm_speed.py          # writes benchmarks/results/rbm_speed.json
"""

import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf
import threadpoolctl  # type: ignore[import-untyped, unused-ignore]
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM

from engram import repository
from engram.layers import RBM
from engram.layers.rbm import energy, enumeration
from engram.layers.rbm.contrastive_divergence import ContrastiveDivergence
from engram.layers.rbm.updates import LANES

VISIBLE, HIDDEN, BATCHES = 784, 500, (10, 100)
ROWS, RATE = 30_000, 0.05
ROUNDS, WARM_UP = 7, 1
REST = 0.2  # s; a library's threads spin for a while after their work
EPOCHS, SEEDS = 50, (1, 2, 3)  # of the small machines

Epoch = Callable[[], float]  # trains for one; returns seconds an update


def main() -> None:
    """Measures, prints the table and writes the results file."""
    rows = [row for batch_size in BATCHES for row in speed(batch_size)]
    write(rows + likelihoods())


def speed(batch_size: int) -> list[dict]:
    """Returns one line of the table for each peer."""
    data = (np.random.default_rng(1).random((ROWS, VISIBLE)) < 0.2).astype(np.float32)
    makers = {"scikit-learn": sklearn_epoch}
    if importlib.util.find_spec("torch"):
        makers["PyTorch"] = torch_epoch
    ours = {
        f"XLA {'on' if jit_compile else 'off'}": engram_epoch(
            data, batch_size, jit_compile
        )
        for jit_compile in (False, True)
    }
    peers = {
        f"{peer}, threads: {threads}": make(data, batch_size, threads)
        for peer, make in makers.items()
        for threads in sorted({1, os.cpu_count() or 1})
    }
    limit = {"products, XLA on": products_epoch(data, batch_size)}
    seconds = medians({**ours, **limit, **peers})
    rows = []
    for peer in makers:
        slow = min(
            (name for name in peers if name.startswith(peer)), key=seconds.__getitem__
        )
        for what, those in (("CD-1", ours), ("Products of CD-1 alone", limit)):
            fast = min(those, key=seconds.__getitem__)
            found = {
                "case": f"{what}, {VISIBLE}-{HIDDEN}, batch {batch_size}, against {peer}",
                "pair": f"{what} against {peer}",
                "ours": 1 / seconds[fast],
                "peer": 1 / seconds[slow],
                "ratio": seconds[slow] / seconds[fast],
                "unit": "updates/s",
                "ours_as": fast,
                "peer_as": slow,
            }
            rows.append(told(found))
    return rows


def engram_epoch(data: np.ndarray, batch_size: int, jit_compile: bool) -> Epoch:
    """Returns a function that trains ours for one epoch more."""
    trainer = ContrastiveDivergence(
        RBM(HIDDEN, seed=1),
        batch_size=batch_size,
        learning_rate=RATE,
        momentum=0.0,  # the peers have none
        jit_compile=jit_compile,
    )

    def epoch():
        (seconds,) = trainer.fit(data, trainer.epoch + 1)["seconds"]
        return seconds / (ROWS // batch_size)

    return epoch


def products_epoch(data: np.ndarray, batch_size: int) -> Epoch:
    """Returns a function that does an epoch's products alone, one after the other."""
    batches = tf.reshape(tf.constant(data), (-1, batch_size, VISIBLE))

    @tf.function(jit_compile=True)
    def run(w):
        def update(t, w):
            p = tf.matmul(batches[t], w)  # (B, L)
            v = tf.matmul(p, w, transpose_b=True)  # (B, V)
            p, v = tf.concat([p, tf.matmul(v, w)], 0), tf.concat([batches[t], v], 0)
            return t + 1, w + tf.matmul(v, p, transpose_a=True)

        updates = len(data) // batch_size
        return tf.while_loop(
            lambda t, _: t < updates, update, (0, w), maximum_iterations=updates
        )[1]

    def epoch():
        began = time.perf_counter()
        run(tf.zeros((VISIBLE, -(-HIDDEN // LANES) * LANES))).numpy()  # as ours
        return (time.perf_counter() - began) / (ROWS // batch_size)

    return epoch


def sklearn_epoch(data: np.ndarray, batch_size: int, threads: int) -> Epoch:
    """Returns a function that fits scikit-learn's anew, less a fit to a single batch."""
    rbm = BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=batch_size, n_iter=1)

    def epoch():
        with threadpoolctl.threadpool_limits(threads):
            began = time.perf_counter()
            rbm.fit(data[:batch_size])
            set_up = time.perf_counter()
            rbm.fit(data)
            seconds = time.perf_counter() - set_up - (set_up - began)
        return seconds / (ROWS // batch_size - 1)

    return epoch


def torch_epoch(data: np.ndarray, batch_size: int, threads: int) -> Epoch:
    """Returns a function that goes through an epoch of CD-1 as one writes it down."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    rows = torch.from_numpy(data)
    w = 0.01 * torch.randn(VISIBLE, HIDDEN)
    b, c = torch.zeros(VISIBLE), torch.zeros(HIDDEN)

    @torch.no_grad()
    def epoch():
        torch.set_num_threads(threads)
        began = time.perf_counter()
        for batch in rows[torch.randperm(ROWS)].split(batch_size):
            p = torch.sigmoid(torch.addmm(c, batch, w))
            v = torch.bernoulli(torch.sigmoid(torch.addmm(b, torch.bernoulli(p), w.T)))
            q = torch.sigmoid(torch.addmm(c, v, w))
            step = RATE / len(batch)
            w.addmm_(batch.T, p, alpha=step).addmm_(v.T, q, alpha=-step)
            b.add_((batch - v).sum(0), alpha=step)
            c.add_((p - q).sum(0), alpha=step)
        return (time.perf_counter() - began) / (ROWS // batch_size)

    return epoch


def medians(epochs: dict[str, Epoch]) -> dict[str, float]:
    """Returns the median seconds of an update of each; rounds are interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(WARM_UP + ROUNDS):
        for name, epoch in epochs.items():
            time.sleep(REST)
            seconds[name].append(epoch())
    return {name: statistics.median(times[WARM_UP:]) for name, times in seconds.items()}


def likelihoods() -> list[dict]:
    """Returns a line of the table for each set of rows that both packages learn."""
    rows, digits = prototypes(1001), load_digits().data >= 8
    cases = {
        "30-8, 1000 rows": (8, rows[:1000], rows[:1000]),
        "30-8, 1001 rows": (8, rows, rows[:1000]),
        f"digits 64-16, {len(digits)} rows": (16, digits, digits),
    }
    return [
        told(
            {
                "case": f"log-likelihood, {case}, {EPOCHS} epochs of batches of 10",
                "pair": "log-likelihood of ours and scikit-learn's",
                "ours": log_likelihood(engram_fit, hidden, given, seen),
                "peer": log_likelihood(sklearn_fit, hidden, given, seen),
                "unit": "nats",
            }
        )
        for case, (hidden, given, seen) in cases.items()
    ]


def prototypes(count: int) -> np.ndarray:
    """Returns rows of 30 units: four prototypes, each bit flipped by chance 0.3."""
    draw = np.random.default_rng(0)
    kinds = draw.integers(0, 2, (4, 30))
    flipped = draw.random((count, 30)) < 0.3
    return np.abs(kinds[draw.integers(0, 4, count)] - flipped).astype(np.float64)


def engram_fit(hidden: int, rows: np.ndarray, seed: int) -> RBM:
    """Returns our RBM, trained by CD-1 without momentum, as the peer."""
    rbm = RBM(hidden, seed=seed, dtype="float64")
    trainer = ContrastiveDivergence(
        rbm, batch_size=10, learning_rate=RATE, momentum=0.0, seed=seed
    )
    trainer.fit(rows, EPOCHS)
    return rbm


def sklearn_fit(hidden: int, rows: np.ndarray, seed: int) -> RBM:
    """Returns scikit-learn's RBM, as one of ours."""
    peer = BernoulliRBM(
        hidden, learning_rate=RATE, batch_size=10, n_iter=EPOCHS, random_state=seed
    ).fit(rows.astype(np.float64))
    rbm = RBM(hidden, dtype="float64")
    rbm.build(rows.shape)
    rbm.set_density(
        energy.Weights(
            peer.components_.T,
            peer.intercept_visible_,
            peer.intercept_hidden_,
            np.zeros(rows.shape[1]),
            np.zeros(hidden),
        )
    )
    return rbm


def log_likelihood(fit, hidden: int, given: np.ndarray, seen: np.ndarray) -> float:
    """Returns the exact mean log-likelihood of rows after fits of each seed."""
    found = [
        enumeration.log_likelihood(fit(hidden, given, seed), seen).mean()
        for seed in SEEDS
    ]
    return float(np.mean(found))


def told(row: dict) -> dict:
    """Returns a line of the table after printing it."""
    print(
        f"{row['case']:64}{row['ours']:10.2f}{row['peer']:10.2f} {row['unit']:10}"
        + (
            f"{row['ratio']:6.2f}   ({row['ours_as']}; {row['peer_as']})"
            if "ratio" in row
            else ""
        ),
        flush=True,
    )
    return row


def write(rows: list[dict]) -> None:
    """Writes the results file, with the machine and the versions."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if "ratio" in row:
            ratios.setdefault(row["pair"], []).append(row["ratio"])
    geomeans = {pair: statistics.geometric_mean(found) for pair, found in ratios.items()}
    names = ["keras", "tensorflow", "numpy", "scikit-learn"]
    names += ["torch"] if "CD-1 against PyTorch" in geomeans else []
    content = {
        "rows": rows,
        "geomean": geomeans["CD-1 against scikit-learn"],
        "geomeans": geomeans,
        "machine": repository.processor(),
        "cores": os.cpu_count(),
        "rounds": ROUNDS,
        "rows_of_an_epoch": ROWS,
        "versions": {name: version(name) for name in names},
    }
    out = Path(__file__).parent / "results" / "rbm_speed.json"
    out.write_text(json.dumps(content, indent=2) + "\n")
    for pair, ratio in geomeans.items():
        print(f"{pair}: {ratio:.2f}")


if __name__ == "__main__":
    main()
