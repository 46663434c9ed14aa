"""DCGAN: a generator that grows images, a discriminator that folds them up."""

import keras

from engram.models import image_generation

STDDEV = 0.02  # of the normal numbers that kernels start as
SLOPE = 0.2  # of the discriminator's units below 0


def build(
    spec,
    learning_rate,
    latent,
    filters,
    kernel_size,
    norm,
    game,
    packing,
    d_steps,
    average,
    penalty,
    momentum,
):
    """Returns the compiled game of two convolutional nets, of `N` sizes of image.

        g_0 = relu(norm(z W))             z ~ N(0, 1)    (B, H / 2^N, W / 2^N, filters[0])
        g_n = relu(norm(g_{n-1} * K_n))   twice as large              (B, ..., filters[n])
        x   = sigmoid(g_{N-1} * K_N + b)                              (B, H, W, F)
        d_n = leaky(norm(d_{n-1} * K_n + b_n))  half as large       (B, ..., filters[N-n])
        l   = d_N W + b                   logit that all of a pack are real

    with `N` entries of `filters`, `d_0` a pack of images side by side in their last axis,
    from -1 to 1, and `leaky` of a slope of 0.2 below 0. The generator has batch norm, the
    discriminator what `norm` says, its first layer nothing.

    Args:
        spec: contents of `spec.json`. Height and width must be multiples of `2^N`.
        learning_rate: float or schedule, of Adam, for both nets.
        latent: int, numbers of noise.
        filters: list of ints, of the generator from the smallest size of image on.
        kernel_size: int, height and width of a filter.
        norm: `"none"`, `"batch"`, or `"spectral"`: each pass of training divides the
            discriminator's kernels by their largest singular value, as Keras'
            SpectralNormalization estimates it; the weights themselves, so that no
            gradient passes through the value, other than in the source.
        game: `"minimax"` or `"nonsaturating"`.
        packing: int, images that the discriminator sees together.
        d_steps: int, its steps for one of the generator.
        average: share of the averaged weights that a step leaves as it is; 0 for none.
        penalty: float, of the discriminator's slope at real images.
        momentum: float, Adam's beta_1.

    Raises:
        ValueError: if images cannot be halved so often.

    References:
        - Radford et al. 2016, Unsupervised representation learning with deep
          convolutional GANs, section 3, arXiv:1511.06434.
        - Miyato et al. 2018, Spectral normalization for GANs, eq. 8, arXiv:1802.05957.
    """
    height, width, numbers = spec["shape"]
    if height % 2 ** len(filters) or width % 2 ** len(filters):
        raise ValueError(
            f"`filters` of {len(filters)} entries need images whose height and width are"
            f" multiples of {2 ** len(filters)}. Received: {height} x {width}"
        )
    return image_generation.game(
        _generator(latent, filters, kernel_size, spec["shape"]),
        _discriminator((height, width, packing * numbers), filters, kernel_size, norm),
        learning_rate,
        momentum,
        "dcgan",
        game=game,
        packing=packing,
        d_steps=d_steps,
        average=average,
        penalty=penalty,
    )


def _generator(latent: int, filters: list[int], kernel_size: int, shape) -> keras.Model:
    height, width, numbers = shape
    first = (height >> len(filters), width >> len(filters), filters[0])
    noise = keras.Input((latent,), name="noise")
    h = keras.layers.Dense(
        first[0] * first[1] * first[2],
        use_bias=False,
        kernel_initializer=_start(),
        name="generator_0",
    )(noise)
    h = _bent(keras.layers.Reshape(first, name="smallest")(h), 0)
    for n, count in enumerate(filters[1:], start=1):
        h = _larger(count, kernel_size, f"generator_{n}", use_bias=False)(h)
        h = _bent(h, n)
    last = _larger(numbers, kernel_size, "image", activation="sigmoid")
    return keras.Model(noise, last(h), name="generator")


def _bent(h, n: int):
    norm = keras.layers.BatchNormalization(
        momentum=0.95, synchronized=True, name=f"norm_{n}"
    )
    return keras.layers.ReLU(name=f"relu_{n}")(norm(h))


def _larger(filters: int, kernel_size: int, name: str, **how) -> keras.layers.Layer:
    return keras.layers.Conv2DTranspose(
        filters,
        kernel_size,
        strides=2,
        padding="same",
        kernel_initializer=_start(),
        name=name,
        **how,
    )


def _discriminator(shape, filters: list[int], kernel_size: int, norm) -> keras.Model:
    pack = keras.Input(shape, name="pack")
    h = keras.layers.Rescaling(2.0, offset=-1.0, name="from_minus_1_to_1")(pack)
    for n, count in enumerate(reversed(filters), start=1):
        batch = norm == "batch" and n > 1
        layer = keras.layers.Conv2D(
            count,
            kernel_size,
            strides=2,
            padding="same",
            use_bias=not batch,
            kernel_initializer=_start(),
            name=f"discriminator_{n}",
        )
        h = _bounded(layer, norm)(h)
        if batch:
            h = keras.layers.BatchNormalization(
                synchronized=True, name=f"discriminator_norm_{n}"
            )(h)
        h = keras.layers.LeakyReLU(SLOPE, name=f"leaky_{n}")(h)
    logit = keras.layers.Dense(1, kernel_initializer=_start(), name="logit")
    h = keras.layers.Flatten(name="flat")(h)
    return keras.Model(pack, _bounded(logit, norm)(h), name="discriminator")


def _bounded(layer: keras.layers.Layer, norm: str) -> keras.layers.Layer:
    """Returns the layer, its kernel over its largest singular value if `norm` says so."""
    if norm != "spectral":
        return layer
    return keras.layers.SpectralNormalization(layer, name=f"spectral_{layer.name}")


def _start() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=STDDEV)
