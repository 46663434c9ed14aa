"""All steps of a recurrence that is linear in its state, and its gradient.

    c_t = decay_t * c_{t-1} + drive_t,        c_0 = first

The gradient runs the same recurrence backwards, `a_t` being what all later steps and the
outputs ask of `c_t`:

    a_t = dc_t + decay_{t+1} * a_{t+1},       ddrive_t = a_t,   ddecay_t = a_t * c_{t-1}

TensorFlow runs it step by step in one compiled loop, whose state stays in the processor's
cache: on a CPU that beats a scan in chunks, and `ops.associative_scan`, which JAX uses.
Keras' scan for PyTorch works on the CPU wherever its tensors are, so that PyTorch doubles
the reach of each step instead. Shapes: `(T, B, N)`.
"""

import keras
from keras import ops


def linear_recurrence(decay, drive, first):
    """Returns `c` `(T, B, N)` after each step.

    Args:
        decay: `(T, B, N)`.
        drive: `(T, B, N)`, same dtype.
        first: `(B, N)`, same dtype, the state before the first step.
    """

    @ops.custom_gradient
    def run(decay, drive, first):
        c = _solve(decay, drive, first, reverse=False)

        def gradient(*args, upstream=None):  # by its name from PyTorch alone
            dc = args[-1] if upstream is None else upstream
            later = ops.concatenate([decay[1:], ops.zeros_like(decay[:1])], 0)
            a = _solve(later, dc, ops.zeros_like(first), reverse=True)
            before = ops.concatenate([first[None], c[:-1]], 0)
            return a * before, a, decay[0] * a[0]

        return c, gradient

    return run(decay, drive, first)


def _solve(decay, drive, first, reverse):
    if keras.backend.backend() == "tensorflow":
        return _step_by_step(decay, drive, first, reverse)
    start = -1 if reverse else 0
    opened = ops.slice_update(  # the first state enters with the first step
        drive, [start % drive.shape[0], 0, 0], (drive[start] + decay[start] * first)[None]
    )

    if keras.backend.backend() == "torch":
        return _by_doubling(decay, opened, reverse)

    def compose(earlier, later):
        """Returns the map of two steps, `c -> decay c + drive`, one after the other."""
        return earlier[0] * later[0], earlier[1] * later[0] + later[1]

    return ops.associative_scan(compose, (decay, opened), reverse=reverse, axis=0)[1]


def _by_doubling(decay, drive, reverse):
    """Returns `c`: after each round a step holds those of twice as many before it.

    Source: Hillis & Steele 1986, Data parallel algorithms, partial sums.
    """
    if reverse:
        return ops.flip(_by_doubling(ops.flip(decay, 0), ops.flip(drive, 0), False), 0)
    reach = 1
    while reach < drive.shape[0]:
        far = decay[reach:]
        drive = ops.concatenate([drive[:reach], drive[reach:] + far * drive[:-reach]], 0)
        decay = ops.concatenate([decay[:reach], far * decay[:-reach]], 0)
        reach *= 2
    return drive


def _step_by_step(decay, drive, first, reverse):
    import tensorflow as tf

    steps = tf.shape(decay)[0] if decay.shape[0] is None else decay.shape[0]
    decays = tf.TensorArray(decay.dtype, steps).unstack(decay)
    drives = tf.TensorArray(drive.dtype, steps).unstack(drive)
    written = tf.TensorArray(first.dtype, steps, element_shape=first.shape)

    def step(k, c, written):
        t = steps - 1 - k if reverse else k
        c = decays.read(t) * c + drives.read(t)
        return k + 1, c, written.write(t, c)

    _, _, written = tf.while_loop(
        lambda k, *_: k < steps, step, (0, first, written), maximum_iterations=steps
    )
    return written.stack()
