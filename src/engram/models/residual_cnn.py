"""A small modern convolutional net: residual blocks, batch norm, global pooling."""

import keras

from engram.layers.augmentation import Augmentation
from engram.models import classification


def build(
    spec, learning_rate, filters, blocks, flip, shift, dropout, weight_decay, optimizer
):
    """Returns a compiled classifier of images.

        x    = image, mirrored and moved at random in training           (B, H, W, F)
        h_0  = x * K_0                                             (B, H, W, filters[0])
        h_n  = s(h_{n-1}) + g(g(h_{n-1}) * K_n) * K'_n               sum block_n
        g(h) = relu(batch norm of h)
        u    = mean of g(h_N) over all pixels                        (B, filters[-1])

    `blocks` blocks for each entry of `filters`. The first of each but the first entry's
    goes over the image in steps of two pixels; there `s(h)` is a convolution of `g(h)` by
    1 x 1 in such steps, elsewhere it is `h`. Weights start as He et al. 2015 have them.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        filters: list of ints, filters of each size of images.
        blocks: int, residual blocks of each size.
        flip: bool, whether half the images are mirrored in training.
        shift: float, at most which share of height and width an image is moved by in
            training; what comes in is 0.
        dropout: share in [0, 1) of `u` that a step of training leaves out.
        weight_decay: float, share of kernels that a step takes away, times the rate.
        optimizer: `"sgd"`, with a momentum of 0.9, or `"adam"`.

    References:
        - He et al. 2016, Identity mappings in deep residual networks, eq. 3 to 5,
          arXiv:1603.05027.
    """
    images = x = classification.inputs(spec)
    if flip or shift:
        x = Augmentation(flip, shift, name="augmented")(x)
    h = _convolution(filters[0], 3, 1, "first")(x)
    n = 0
    for size, count in enumerate(filters):
        for block in range(blocks):
            n += 1
            strides = 2 if size and not block else 1
            h = _block(h, count, strides, n)
    h = keras.layers.GlobalAveragePooling2D(name="mean")(_bent(h, "last"))
    h = keras.layers.Dropout(dropout, name="dropout")(h)
    how = classification.optimizer(optimizer, learning_rate, weight_decay=weight_decay)
    how.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return classification.classifier(images, h, spec, "residual_cnn", how)


def _block(h, filters, strides, n):
    new = _bent(h, f"{n}a")
    short = h
    if strides > 1:
        short = _convolution(filters, 1, strides, f"short_{n}")(new)
    new = _convolution(filters, 3, strides, f"{n}a")(new)
    new = _convolution(filters, 3, 1, f"{n}b")(_bent(new, f"{n}b"))
    return keras.layers.Add(name=f"block_{n}")([short, new])


def _bent(h, name):
    h = keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{name}")(h)
    return keras.layers.ReLU(name=f"relu_{name}")(h)


def _convolution(filters, kernel_size, strides, name):
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"convolution_{name}",
    )
