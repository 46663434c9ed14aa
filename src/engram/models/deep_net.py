"""Dense layers over the pixels of an image, as many as wanted."""

from pathlib import Path

import keras

from engram.models import classification


class HiddenRate(keras.Optimizer):
    """What makes hidden layers learn at a rate of their own; mixed into an optimizer.

    The share is of the step, not of the gradient, which Adam would scale up again.
    Howard & Ruder 2018, Universal language model fine-tuning, section 3.2.

    Args:
        hidden_rate: float, share of the learning rate that layers `hidden_n` take.
        **how: of the optimizer.
    """

    def __init__(self, *, hidden_rate, **how):
        super().__init__(**how)
        self.hidden_rate = hidden_rate

    def update_step(self, gradient, variable, learning_rate):
        """Moves a variable by its layer's share of the learning rate."""
        # Under TensorFlow `variable` is a bare one, without its path.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        share = self.hidden_rate if path.startswith("hidden_") else 1
        super().update_step(gradient, variable, share * learning_rate)

    def get_config(self):
        """Returns the optimizer's arguments and `hidden_rate`."""
        return {**super().get_config(), "hidden_rate": self.hidden_rate}


@keras.saving.register_keras_serializable(package="engram")
class SGD(HiddenRate, keras.optimizers.SGD):
    """SGD, with hidden layers at a rate of their own."""


@keras.saving.register_keras_serializable(package="engram")
class Adam(HiddenRate, keras.optimizers.Adam):
    """Adam, with hidden layers at a rate of their own."""


def build(
    spec, learning_rate, units, activation, optimizer, dropout, hidden_rate, logits
):
    """Returns a compiled classifier of images.

        h_0 = all pixels in a row                  (B, H W F)
        h_n = activation(h_{n-1} W_n + b_n)        (B, units[n-1]), layer hidden_n

    Weights start uniform, as Glorot and Bengio 2010 have them ("Understanding the
    difficulty of training deep feedforward neural networks", AISTATS), biases at zero.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: list of ints, width of each hidden layer.
        activation: `"sigmoid"`, `"tanh"` or `"relu"`.
        optimizer: `"sgd"`, with a momentum of 0.9, or `"adam"`.
        dropout: share in [0, 1) of each hidden layer's outputs that a step of training
            leaves out; 0 adds no layer.
        hidden_rate: share in (0, 1] of the learning rate that hidden layers take, so
            that pretrained ones keep what they know.
        logits: `"glorot_uniform"` or `"zeros"`, how the logits' kernel starts. With fewer
            examples than hidden units, most of a random start stays as noise.
    """
    images = classification.inputs(spec)
    h = keras.layers.Flatten(name="pixels")(images)
    for n, width in enumerate(units, start=1):
        h = keras.layers.Dense(
            width,
            activation=activation,
            kernel_initializer="glorot_uniform",
            name=f"hidden_{n}",
        )(h)
        if dropout:
            h = keras.layers.Dropout(dropout, name=f"dropout_{n}")(h)
    how = classification.optimizer(optimizer, learning_rate)
    if hidden_rate != 1:
        kind = {"sgd": SGD, "adam": Adam}[optimizer]
        how = kind.from_config({**how.get_config(), "hidden_rate": hidden_rate})
    model = classification.classifier(images, h, spec, "deep_net", how)
    if logits == "zeros":
        kernel = model.get_layer("logits").kernel
        kernel.assign(keras.ops.zeros_like(kernel))
    return model


def start(model: keras.Model, path: Path) -> None:
    """Gives the first hidden layers the weights of the stack of RBMs saved at `path`.

    Of a stack that is higher than the net the lowest RBMs are used.

    Raises:
        ValueError: if the stack has other widths.
    """
    from engram.layers.rbm import rbm, unrolled  # noqa: F401, the first registers RBM

    stack = keras.models.load_model(path, compile=False, safe_mode=True)
    hidden = [layer for layer in model.layers if layer.name.startswith("hidden_")]
    given = unrolled.encoder(stack.layers)
    ours, theirs = ([tuple(one.kernel.shape) for one in some] for some in (hidden, given))
    lowest = min(len(ours), len(theirs))
    if ours[:lowest] != theirs[:lowest]:
        raise ValueError(
            f"{path}: the stack's kernels must be those of the first hidden layers,"
            f" {ours}. Received: {theirs}"
        )
    for layer, pretrained in zip(hidden, given, strict=False):
        layer.set_weights(pretrained.get_weights())
