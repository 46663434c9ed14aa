"""A net that is deep on purpose, and what helps gradients through it, each by a word."""

import keras

from engram.layers.rezero import ReZero
from engram.models import classification

INITIALIZERS = {
    "glorot_uniform": keras.initializers.GlorotUniform,
    "he_normal": keras.initializers.HeNormal,
    "lecun_normal": keras.initializers.LecunNormal,
    "orthogonal": keras.initializers.Orthogonal,
}
CARRIED = -2.0  # bias of a highway's gates: at first they let most of `h` pass


def build(
    spec,
    learning_rate,
    depth,
    width,
    activation,
    initializer,
    norm,
    path,
    optimizer,
    clipnorm,
    global_clipnorm,
):
    """Returns a compiled classifier of images.

        h_0 = all pixels in a row                                        (B, H W F)
        z_n = norm(h_{n-1} W_n + b_n)                                    (B, width)
        h_n = f(z_n),                             n = 1 .. depth, layer hidden_n

    A depth of 0 is logistic regression, the neuron alone. From the second layer on `path`
    may give gradients another way:

        residual   h_n = h_{n-1} + a (f(norm(h_{n-1})) W_n + b_n),       a = 1
        scaled     the same with a = 1 / sqrt(depth)
        rezero     the same with an a that is learned, from 0 on
        highway    h_n = t f(z_n) + (1 - t) h_{n-1},     t = sigmoid(h_{n-1} T_n + c_n)

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        depth: int, hidden layers.
        width: int, units of each.
        activation: `f`, a word that Keras knows, such as `"sigmoid"` or `"relu"`.
        initializer: of `W_n`, a word of `INITIALIZERS`. Biases start at 0, those of a
            highway's gates at -2.
        norm: `"none"`, `"batch"` or `"layer"`.
        path: `"none"`, `"residual"`, `"scaled"`, `"rezero"` or `"highway"`.
        optimizer: `"sgd"`, with a momentum of 0.9, or `"adam"`.
        clipnorm: float or None, longest gradient of one variable.
        global_clipnorm: float or None, longest gradient of all variables together.

    References:
        - He et al. 2016, Identity mappings in deep residual networks, eq. 3 to 5,
          arXiv:1603.05027: the path without an activation of its own.
        - Srivastava et al. 2015, Highway networks, eq. 3, arXiv:1505.00387.
    """
    images = classification.inputs(spec)
    h = keras.layers.Flatten(name="pixels")(images)

    def dense(n):
        start = INITIALIZERS[initializer]()
        return keras.layers.Dense(width, kernel_initializer=start, name=f"hidden_{n}")

    for n in range(1, depth + 1):
        bent = keras.layers.Activation(activation, name=f"activation_{n}")
        if n == 1 or path in ("none", "highway"):
            new = bent(_normalised(dense(n)(h), norm, n))
            h = new if n == 1 or path == "none" else _gated(new, h, width, n)
            continue
        branch = dense(n)(bent(_normalised(h, norm, n)))
        if path == "rezero":
            branch = ReZero(name=f"scale_{n}")(branch)
        elif path == "scaled":
            branch = keras.layers.Rescaling(depth**-0.5, name=f"scale_{n}")(branch)
        h = keras.layers.Add(name=f"sum_{n}")([h, branch])
    clips = {"clipnorm": clipnorm, "global_clipnorm": global_clipnorm}
    how = classification.optimizer(optimizer, learning_rate, **clips)
    return classification.classifier(images, h, spec, "very_deep_net", how)


def _normalised(x, norm, n):
    if norm == "batch":
        return keras.layers.BatchNormalization(name=f"norm_{n}")(x)
    if norm == "layer":
        return keras.layers.LayerNormalization(name=f"norm_{n}")(x)
    return x


def _gated(new, h, width, n):
    """Returns `t new + (1 - t) h`, as `h + t (new - h)`."""
    t = keras.layers.Dense(
        width,
        "sigmoid",
        bias_initializer=keras.initializers.Constant(CARRIED),
        name=f"gate_{n}",
    )(h)
    change = keras.layers.Subtract(name=f"change_{n}")([new, h])
    let = keras.layers.Multiply(name=f"let_{n}")([t, change])
    return keras.layers.Add(name=f"sum_{n}")([h, let])
