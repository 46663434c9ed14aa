"""A stack of RBMs as ordinary dense layers, to go on training with `fit`.

    upwards      sigmoid(x K + k),   K = W / sigma^2 or W,   k = c - mu K
    downwards    b + (h - lambda) W^T,  then a sigmoid, or mu added for Gaussian units

At the start the dense layers give what the RBMs give.

Source: Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural
networks: unrolling.
"""

import keras
from keras import ops


def encoder(rbms: list) -> list[keras.layers.Dense]:
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


def decoder(rbms: list) -> list[keras.layers.Dense]:
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
