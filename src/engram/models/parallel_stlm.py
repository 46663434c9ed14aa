"""Parallel STLM: short and long memories whose gates read the layer below alone."""

import keras

from engram import models
from engram.layers.stlm.parallel_stlm import ParallelSTLM


def build(spec, learning_rate, units, depth, combine, short_horizon, long_horizon):
    """Returns the compiled model of the spec's task around a stack of layers.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        units: int, size `U` of each memory of a layer.
        depth: int, number of layers. From the second on, gates depend on what the layer
            below remembers.
        combine: `"concat"`, `"sum"` or `"weighted"`.
        short_horizon: float, steps that the slowest unit of the short memories keeps a
            value for at the start of training.
        long_horizon: float, the same of the long memories.
    """

    def layers(return_sequences):
        every_step = [True] * (depth - 1) + [return_sequences]
        return keras.Sequential(
            [
                ParallelSTLM(
                    units,
                    combine=combine,
                    short_horizon=short_horizon,
                    long_horizon=long_horizon,
                    return_sequences=each,
                )
                for each in every_step
            ],
            name="layers",
        )

    return models.recurrent(layers, spec, "parallel_stlm", learning_rate)
