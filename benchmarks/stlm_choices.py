"""What STLM and ConvSTLM could do instead, against what they do.

    python benchmarks/stlm_choices.py       # writes benchmarks/results/stlm_choices.json

Inputs' products taken before the loop, steps one after the other in place of a loop, one
convolution for all gates: each was left out of the layers because of this table. It is
measured as `stlm_speed.py` measures, best of XLA on and off against best.
"""

import functools

import keras
import numpy as np
import stlm_speed
import tensorflow as tf
from keras import ops

from engram.layers import STLM, ConvSTLM2D
from engram.layers.stlm import memories
from engram.layers.stlm.conv_stlm_cell import ConvSTLMCell


class InputsAhead(STLM):
    """STLM whose inputs' products are one, before the loop.

    z_t = (x W + b)_t + h_{t-1} R
    """

    def call(self, sequences, initial_state=None, mask=None, training=False):
        x, cell = tf.transpose(sequences, (1, 0, 2)), self.cell
        ahead = tf.matmul(x, cell.kernel.value) + cell.bias
        return _loop(ahead, cell.get_initial_state(x.shape[1]), cell)


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _loop(ahead, states, cell):
    steps = ahead.shape[0]
    array = tf.TensorArray(ahead.dtype, steps).unstack(ahead)

    def step(t, states):
        z = array.read(t) + tf.matmul(states[0], cell.recurrent_kernel.value)
        _, short, long = states
        form = (cell.mix, cell.combine, cell.output_gates)
        return t + 1, list(memories.step(z, short, long, *form))

    return tf.while_loop(lambda t, _: t < steps, step, (0, states))[1][0]


class OneConvolutionCell(ConvSTLMCell):
    """ConvSTLM's cell with one convolution for all gates of the inputs, and of `h`."""

    def project(self, inputs):
        how = {"strides": self.strides, "padding": self.padding}
        return self.gates(self._convolve(inputs, self.kernel, **how) + self.bias)

    def step(self, projected, h, both, kernels):
        whole = self._convolve(h, self.recurrent_kernel, padding="same")
        z = [one + more for one, more in zip(projected, self.gates(whole), strict=True)]
        g, i, f, o = ops.tanh(z[0]), *map(ops.sigmoid, z[1:])
        both = f * both + i * ops.concatenate([g, g], axis=-1)
        return self._read(o, both), both


def one_convolution(width: int, **how) -> ConvSTLM2D:
    """Returns a ConvSTLM2D of `2 * width` channels with that cell."""
    layer = ConvSTLM2D(width, **how, **stlm_speed.SAME)
    layer.cell.__class__ = OneConvolutionCell
    return layer


LOOPS = stlm_speed.Suite(
    shapes=stlm_speed.DENSE.shapes,
    layers={
        "loop": lambda width: STLM(width // 2),
        "inputs ahead": lambda width: InputsAhead(width // 2),
    },
    pairs={"inputs' products in the loop against before it": ("loop", ("inputs ahead",))},
    kinds=("inference",),  # backwards both are the same
)
STEPS = stlm_speed.Suite(
    shapes=tuple(s for s in stlm_speed.DENSE.shapes if s[1] <= stlm_speed.SHORT),
    layers={
        "loop": lambda width: STLM(width // 2),
        "steps": lambda width: STLM(width // 2, unroll=True),
    },
    pairs={"a loop against its steps": ("loop", ("steps",))},
)
CONVOLUTIONS = stlm_speed.Suite(
    shapes=stlm_speed.CONVOLUTIONS.shapes,
    layers={
        "four": lambda width: ConvSTLM2D(width // 2, **stlm_speed.SAME),
        "one": lambda width: one_convolution(width // 2),
    },
    pairs={"four convolutions against one": ("four", ("one",))},
)


def main() -> None:
    """Measures, prints the table and writes the results file."""
    for shape in LOOPS.shapes:
        same(LOOPS.layers, shape)
    for shape in CONVOLUTIONS.shapes:
        same(CONVOLUTIONS.layers, shape)
    stlm_speed.write(stlm_speed.rows((LOOPS, STEPS, CONVOLUTIONS)), "stlm_choices")


def same(layers: dict[str, stlm_speed.Make], shape: tuple[int, ...]) -> None:
    """Asserts that both ways give the same numbers."""
    *sizes, width = shape
    x, found = stlm_speed.data(sizes), []
    for make in layers.values():
        keras.utils.set_random_seed(1)
        layer = make(width)
        layer.build(x.shape)
        found.append(tf.function(layer)(x))
    one, other = found
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


if __name__ == "__main__":
    main()
