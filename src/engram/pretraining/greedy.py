"""Deep belief networks: RBMs trained one on top of the other, then unrolled.

Each RBM learns the density of what the one below says of the rows, `p(h = 1 | v)`. As
ordinary dense layers, the stack is the start of a classifier or an autoencoder:

    upwards      sigmoid(x K + k),   K = W / sigma^2,   k = c - mu K
    downwards    b + (h - lambda) W^T,  then a sigmoid, or mu added for Gaussian units

so at the start the dense layers give what the RBMs give.

Sources: Hinton, Osindero & Teh 2006, A fast learning algorithm for deep belief nets;
Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural networks.
"""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

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


def upwards(rbm: RBM, rows) -> np.ndarray:
    """Returns `p(h = 1 | v)` `(N, L)` of rows `(N, V)`."""
    pieces = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    return np.concatenate(
        [ops.convert_to_numpy(rbm.hidden_probabilities(one)) for one in pieces]
    )


def encoder(rbms: list[RBM]) -> list[keras.layers.Dense]:
    """Returns dense layers with sigmoids that compute what the stack computes."""
    layers = []
    for n, rbm in enumerate(rbms, start=1):
        w = rbm.density()
        kernel = w.kernel
        if w.log_variance is not None:
            kernel = kernel * ops.exp(-w.log_variance)[:, None]
        bias = w.hidden_bias - ops.matmul(w.visible_offset, kernel)
        layers.append(_dense(kernel, bias, "sigmoid", f"hidden_{n}"))
    return layers


def decoder(rbms: list[RBM]) -> list[keras.layers.Dense]:
    """Returns dense layers from the top hidden units down to the means of rows."""
    layers = []
    for n, rbm in reversed(list(enumerate(rbms, start=1))):
        w = rbm.density()
        kernel = ops.transpose(w.kernel)
        bias = w.visible_bias - ops.matmul(w.hidden_offset, kernel)
        gaussian = w.log_variance is not None
        bias = bias + w.visible_offset if gaussian else bias
        activation = "linear" if gaussian else "sigmoid"
        layers.append(_dense(kernel, bias, activation, f"visible_{n}"))
    return layers


def _dense(kernel, bias, activation, name):
    layer = keras.layers.Dense(kernel.shape[1], activation=activation, name=name)
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, bias])
    return layer
