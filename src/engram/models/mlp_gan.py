"""A GAN of dense nets: a generator with batch norm, a discriminator of maxout units."""

import keras

from engram.models.generation import Gan


def build(
    spec,
    learning_rate,
    latent,
    generator,
    discriminator,
    pieces,
    game,
    packing,
    d_steps,
    average,
    penalty,
    momentum,
    stddev,
):
    """Returns the compiled game of two dense nets.

        g_n = relu(batch norm of g_{n-1} W)       g_0 = z ~ N(0, 1)          (B, latent)
        x   = g_N W + b                                                      (B, D)
        d_n = max over pieces of d_{n-1} W + b    d_0 = a pack of points
        l   = d_N W + b                           logit that all are real

    The nets are PacGAN's with `latent: 2`, `generator: [400, 400, 400, 400]`,
    `discriminator: [200, 200, 200]`, `pieces: 5`, `momentum: 0.8` and
    `stddev: 0.02`.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule, of Adam, for both nets.
        latent: int, numbers of noise.
        generator: list of ints, units of its hidden layers.
        discriminator: list of ints, units of its hidden layers.
        pieces: int, linear pieces of a maxout unit.
        game: `"minimax"` or `"nonsaturating"`.
        packing: int, points that the discriminator sees together.
        d_steps: int, its steps for one of the generator.
        average: share of the averaged weights that a step leaves as it is; 0 for none.
        penalty: float, of the discriminator's slope at real points.
        momentum: float, Adam's beta_1.
        stddev: float, of the normal numbers that weights start as; None for those of He
            et al. 2015.

    References:
        - Goodfellow et al. 2013, Maxout networks, eq. 1, arXiv:1302.4389.
        - Lin et al. 2018, PacGAN, arXiv:1712.04086; its released settings.
    """
    (width,) = spec["shape"]

    def dense(count, name, use_bias=True):
        start = keras.initializers.HeNormal()
        if stddev is not None:
            start = keras.initializers.RandomNormal(stddev=stddev)
        return keras.layers.Dense(
            count, use_bias=use_bias, kernel_initializer=start, name=name
        )

    model = Gan(
        _generator(latent, generator, width, dense),
        _discriminator(packing * width, discriminator, pieces, dense),
        game=game,
        packing=packing,
        d_steps=d_steps,
        average=average,
        penalty=penalty,
        seed=int(keras.random.randint((), 0, 2**31 - 1)),
        name="mlp_gan",
    )
    optimizer = keras.optimizers.Adam(learning_rate, beta_1=momentum)
    model.compile(optimizer, steps_per_execution=20)  # a step takes milliseconds
    return model


def _generator(latent: int, units: list[int], width: int, dense) -> keras.Model:
    noise = h = keras.Input((latent,), name="noise")
    for n, count in enumerate(units, start=1):
        h = dense(count, f"generator_{n}", use_bias=False)(h)
        h = keras.layers.BatchNormalization(
            momentum=0.95, synchronized=True, name=f"norm_{n}"
        )(h)
        h = keras.layers.ReLU(name=f"relu_{n}")(h)
    return keras.Model(noise, dense(width, "point")(h), name="generator")


def _discriminator(width: int, units: list[int], pieces: int, dense) -> keras.Model:
    pack = h = keras.Input((width,), name="pack")
    for n, count in enumerate(units, start=1):
        h = dense(count * pieces, f"discriminator_{n}")(h)
        h = keras.layers.Reshape((count, pieces), name=f"pieces_{n}")(h)
        largest = keras.layers.GlobalMaxPooling1D("channels_first", name=f"maxout_{n}")
        h = largest(h)
    return keras.Model(pack, dense(1, "logit")(h), name="discriminator")
