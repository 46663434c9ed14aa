"""Dense layers down to a short code, and the same widths up again."""

from pathlib import Path

import keras

from engram.models import reconstruction


def build(spec, learning_rate, units, code, optimizer):
    """Returns a compiled autoencoder of rows.

        h_0     = row                               (B, V)
        h_n     = sigmoid(h_{n-1} W_n + b_n)        (B, units[n-1]), layer hidden_n
        code    = h_N W + b                         (B, code), layer code, linear
        g_N     = sigmoid(code U_{N+1} + c_{N+1})   as wide as h_N, layer visible_{N+1}
        g_{n-1} = sigmoid(g_n U_n + c_n)            as wide as h_{n-1}, layer visible_n

    The output is `g_0`, the loss its cross-entropy, mean over pixels, which Keras
    computes from the logits of the last sigmoid. Kernels start uniform, as Glorot and
    Bengio 2010 have them, biases at zero.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: list of ints, width of each hidden layer from the row to the code.
        code: int, linear units of the code.
        optimizer: `"sgd"`, with a momentum of 0.9, or `"adam"`.

    Source: Hinton & Salakhutdinov 2006, Reducing the dimensionality of data with neural
    networks.
    """
    row = h = reconstruction.inputs(spec)
    for n, width in enumerate(units, start=1):
        h = keras.layers.Dense(width, activation="sigmoid", name=f"hidden_{n}")(h)
    h = keras.layers.Dense(code, name="code")(h)
    for n, width in reversed(list(enumerate([spec["visible"], *units], start=1))):
        h = keras.layers.Dense(width, activation="sigmoid", name=f"visible_{n}")(h)
    model = keras.Model(row, h, name="deep_autoencoder")
    model.compile(
        optimizer=reconstruction.optimizer(optimizer, learning_rate),
        loss=keras.losses.BinaryCrossentropy(),
    )
    return model


def start(model: keras.Model, path: Path) -> None:
    """Gives the model the weights, up and down, of the stack saved at `path`.

    Raises:
        ValueError: if the stack has other layers, naming the first one that differs.
    """
    from engram.layers.rbm import rbm, unrolled  # noqa: F401, the first registers RBM

    stack = keras.models.load_model(path, compile=False, safe_mode=True).layers
    given = {one.name: one for one in unrolled.encoder(stack) + unrolled.decoder(stack)}
    ours = {layer.name: layer for layer in model.layers if layer.weights}
    for name in [*ours, *given]:
        wanted, found = (_kind(some.get(name)) for some in (ours, given))
        if wanted != found:
            raise ValueError(
                f"{path}: the stack unrolled must have the layers of the model, for"
                f" {name!r} {wanted}. Received: {found}"
            )
    for name, layer in ours.items():
        layer.set_weights(given[name].get_weights())


def _kind(layer: keras.layers.Dense | None) -> str:
    """Returns the shape of a layer's kernel and its activation in words."""
    if layer is None:
        return "none"
    return f"{tuple(layer.kernel.shape)} {layer.activation.__name__}"
