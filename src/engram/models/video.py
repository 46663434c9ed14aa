"""What all models of video share: patches in, a memory at every place, pixels out."""

import math
from typing import Any

import keras
from keras import layers

PATCH = 2  # pixels on a side


def inputs(spec: dict[str, Any]) -> keras.KerasTensor:
    """Returns the input `(B, T, H, W, 1)`: any number of frames, pixels from 0 to 1."""
    return keras.Input((None, spec["height"], spec["width"], 1), name="frames")


def compile_predictor(model: keras.Model, learning_rate) -> keras.Model:
    """Returns `model`, compiled with Adam on the cross-entropy of every pixel."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.BinaryCrossentropy(),
    )
    return model


def next_frame(
    body: keras.Layer, spec: dict[str, Any], name: str, learning_rate
) -> keras.Model:
    """Returns a compiled model that predicts, after each frame it reads, the next one.

    Patches of 2 x 2 pixels are mapped to features, the body remembers them, and the next
    frame is a map of both back to pixels:

        x_t = patches of frame_t, affine                              (H/2, W/2, 4)
        h_t = body(x_1, ..., x_t)                                     (H/2, W/2, F)
        frame_{t+1} = sigmoid([h_t, x_t] affine, patch by patch)      (H, W, 1)

    At the start of training it predicts the mean of a pixel.

    Args:
        body: layer from `(B, T, H/2, W/2, 4)` to `(B, T, H/2, W/2, F)`.
        spec: contents of `spec.json`.
        name: name of the model.
        learning_rate: float or schedule.
    """
    frames = inputs(spec)
    patch = (1, PATCH, PATCH)  # of one frame
    x = layers.Conv3D(PATCH * PATCH, patch, strides=patch, name="patches")(frames)
    h = body(x)  # (B, T, H/2, W/2, F)
    both = layers.Concatenate()([h, x])
    pixels = layers.Conv3DTranspose(
        1,
        patch,
        strides=patch,
        bias_initializer=keras.initializers.Constant(_log_odds(spec["mean"])),
        name="pixels",
    )(both)  # (B, T, H, W, 1)
    predicted = layers.Activation("sigmoid", name="next")(pixels)
    return compile_predictor(keras.Model(frames, predicted, name=name), learning_rate)


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))
