"""A stack of RBMs as ordinary dense layers, to go on training with `fit`.

    upwards      sigmoid(x K + k),   K = W / sigma^2 or W,   k = c - mu K
    downwards    b + (h - lambda) W^T,  then a sigmoid, or mu added for Gaussian units

A `LinearCode` on top becomes two layers as well, `code` without a sigmoid.

At the start the dense layers give what the stack gives.

Source: Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural
networks: unrolling.
"""

import keras
from keras import ops

from engram.layers.rbm.linear_code import LinearCode


def encoder(stack: list) -> list[keras.layers.Dense]:
    """Returns dense layers that compute what the stack computes.

    Args:
        stack: RBMs, and on top of them perhaps a `LinearCode`.
    """
    layers = []
    for n, layer in enumerate(stack, start=1):
        if isinstance(layer, LinearCode):
            bias = -ops.matmul(layer.mean, layer.axes)
            layers.append(_dense(layer.axes, bias, "linear", "code"))
            continue
        w = layer.density()
        kernel = w.kernel
        if w.log_variance is not None:
            kernel = kernel * ops.exp(-w.log_variance)[:, None]
        bias = w.hidden_bias - ops.matmul(w.visible_offset, kernel)
        layers.append(_dense(kernel, bias, "sigmoid", f"hidden_{n}"))
    return layers


def decoder(stack: list) -> list[keras.layers.Dense]:
    """Returns dense layers from the top units down to the means of rows.

    Args:
        stack: as of `encoder`.
    """
    layers = []
    for n, layer in reversed(list(enumerate(stack, start=1))):
        if isinstance(layer, LinearCode):
            layers.append(_dense(layer.back, layer.back_bias, "sigmoid", f"visible_{n}"))
            continue
        w = layer.density()
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
