"""What all generators of images share: the game of two nets, ready to be played."""

import keras

from engram.models.generation import Gan


def game(
    generator: keras.Model,
    discriminator: keras.Model,
    learning_rate,
    momentum: float,
    name: str,
    **rules,
) -> Gan:
    """Returns the compiled game, whose points are images `(B, H, W, F)` from 0 to 1.

    Args:
        generator: net from noise to images.
        discriminator: net from packs `(B, H, W, packing F)` to logits.
        learning_rate: float or schedule, of Adam, for both nets.
        momentum: float, Adam's beta_1.
        name: name of the model.
        **rules: of `Gan`.
    """
    seed = int(keras.random.randint((), 0, 2**31 - 1))
    model = Gan(generator, discriminator, seed=seed, name=name, **rules)
    model.compile(keras.optimizers.Adam(learning_rate, beta_1=momentum))
    return model
