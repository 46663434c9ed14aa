"""All steps of an STLM in one compiled loop (TensorFlow), equal to the cell's.

Forward, step after step, with one product for inputs, state and all gates:

    z_t = [x_t, h_{t-1}] [W; R] + b,      h_t, C_t = step(z_t, C_{t-1})

Backward, last step first, from `z` and the memories that forward kept:

    dz_t, dC_{t-1} = pull-back of step at (z_t, C_{t-1}) of (dh_t, dC_t)
    dh_{t-1}       = dz_t R^T + what the outputs ask of h_{t-1}

and after the loop one product over all steps for each weight:

    dW = sum_t x_t^T dz_t,   dR = sum_t h_{t-1}^T dz_t,   db = sum_t dz_t,   dx = dz W^T

XLA compiles both loops, also where the model around them is not compiled. Measured on a
CPU (`benchmarks/stlm_speed.py`), this beats an input projection hoisted out of the loop,
unrolled steps and TensorFlow's own loop.

Shapes: time first, `(T, B, ...)`; `G` is the columns of all gates, `6U` or `7U`.
"""

import functools

import tensorflow as tf

from engram.layers.stlm import memories


def scan(cell, inputs, states, mask, recurrent_mask, sequence, keep):
    """Returns `(hs or None, [h, C_s, C_l])` after all steps.

    Args:
        cell: a built `STLMCell`.
        inputs: `(T, B, F)` in the compute dtype.
        states: `[h, C_s, C_l]` before the first step.
        mask: bool `(T, B, 1)`, false where a step leaves the states alone, or None.
        recurrent_mask: `(B, W)`, factor of `h` on its way to the gates, or None.
        sequence: bool, whether `hs` `(T, B, W)`, the output of all steps, is wanted.
        keep: bool, whether gradients will be asked for: what they need is kept. Without
            it, forward runs a second time if they are asked for.
    """
    columns, units = cell.kernel.shape[-1], states[1].shape[-1]
    bias = tf.zeros(columns, states[0].dtype) if cell.bias is None else cell.bias
    mix = tf.zeros(units, states[0].dtype) if cell.mix is None else cell.mix
    weights = [cell.kernel, cell.recurrent_kernel, bias, mix]
    form = (mask, recurrent_mask, cell.combine, cell.output_gates, cell.compute_dtype)

    @tf.custom_gradient
    def run(*tensors):
        x, h, short, long, kernel, recurrent_kernel, bias, mix = tensors
        first = [h, short, long]
        whole = (x, first, kernel, recurrent_kernel, bias, mix, *form)
        last, hs, kept = _forward(*whole, sequence, keep)

        def gradient(*upstream):
            nonlocal hs, kept
            if not keep:
                _, hs, kept = _forward(*whole, True, True)
            dlast, dhs = list(upstream[:3]), upstream[3] if sequence else None
            dz, dfirst, dmix = _backward(
                hs, kept, first, recurrent_kernel, mix, dlast, dhs, *form
            )
            before = tf.concat([h[None], hs[:-1]], 0)  # (T, B, W)
            if recurrent_mask is not None:
                before = before * recurrent_mask
            found = [
                tf.einsum("tbg,fg->tbf", tf.cast(dz, x.dtype), tf.cast(kernel, x.dtype)),
                *dfirst,
                _weight_gradient(x, dz),
                _weight_gradient(tf.cast(before, x.dtype), dz),
                tf.reduce_sum(dz, [0, 1]),
                dmix,
            ]
            return [tf.cast(d, one.dtype) for d, one in zip(found, tensors, strict=True)]

        return [*last, hs] if sequence else list(last), gradient

    found = run(inputs, *states, *map(tf.convert_to_tensor, weights))
    return found[3] if sequence else None, list(found[:3])


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _forward(
    x,
    first,
    kernel,
    recurrent_kernel,
    bias,
    mix,
    mask,
    recurrent_mask,
    combine,
    output_gates,
    dtype,
    sequence,
    keep,
):
    """Returns the last states, `hs` or None, and `[z, C_s, C_l]` of all steps or []."""
    steps = x.shape[0]
    both = tf.cast(tf.concat([kernel, recurrent_kernel], 0), dtype)  # (F + W, G)
    inputs = _array(steps, x)
    masks = None if mask is None else _array(steps, mask)
    written = [_array(steps, like=first[0])] if sequence or keep else []
    if keep:
        shape = (x.shape[1], both.shape[1])
        z = tf.TensorArray(first[0].dtype, steps, element_shape=shape)
        written += [z, _array(steps, like=first[1]), _array(steps, like=first[2])]

    def step(t, states, written):
        h = states[0] if recurrent_mask is None else states[0] * recurrent_mask
        z = tf.matmul(tf.concat([inputs.read(t), tf.cast(h, dtype)], -1), both)
        z = tf.cast(z, h.dtype) + bias
        m = None if masks is None else masks.read(t)
        states = _advance(z, states, m, mix, combine, output_gates)
        values = [states[0], z, *states[1:]]
        written = [array.write(t, v) for array, v in zip(written, values, strict=False)]
        return t + 1, states, written

    _, last, written = tf.while_loop(
        lambda t, *_: t < steps, step, (0, first, written), maximum_iterations=steps
    )
    hs, *kept = [array.stack() for array in written] or [None]
    return last, hs, kept


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _backward(
    hs,
    kept,
    first,
    recurrent_kernel,
    mix,
    dlast,
    dhs,
    mask,
    recurrent_mask,
    combine,
    output_gates,
    dtype,
):
    """Returns `dz` `(T, B, G)`, the gradients of the first states, and of `mix`."""
    steps = hs.shape[0]
    back = tf.cast(recurrent_kernel, dtype)  # (W, G)
    z = _array(steps, kept[0])
    after = [hs, *kept[1:]]
    before = [
        _array(steps, tf.concat([one[None], rest[:-1]], 0))
        for one, rest in zip(first, after, strict=True)
    ]
    asked = None if dhs is None else _array(steps, dhs)
    masks = None if mask is None else _array(steps, mask)
    written = _array(steps, like=kept[0][0])

    def step(t, dstates, dmix, written):
        if asked is not None:
            dstates = [dstates[0] + asked.read(t), *dstates[1:]]
        m = None if masks is None else masks.read(t)
        point = [z.read(t), *(array.read(t) for array in before), mix]
        with tf.GradientTape() as tape:
            tape.watch(point)
            states = _advance(point[0], point[1:4], m, mix, combine, output_gates)
        dz, dh, dshort, dlong, more = tape.gradient(
            states, point, dstates, unconnected_gradients="zero"
        )
        through = tf.matmul(tf.cast(dz, dtype), back, transpose_b=True)
        through = tf.cast(through, dh.dtype)
        if recurrent_mask is not None:
            through = through * recurrent_mask
        return t - 1, [dh + through, dshort, dlong], dmix + more, written.write(t, dz)

    _, dfirst, dmix, written = tf.while_loop(
        lambda t, *_: t >= 0,
        step,
        (steps - 1, dlast, tf.zeros_like(mix), written),
        maximum_iterations=steps,
    )
    return written.stack(), dfirst, dmix


def _advance(z, states, mask, mix, combine, output_gates):
    """Returns `[h, C_s, C_l]` after a step; a masked step changes nothing."""
    _, short, long = states
    after = memories.step(z, short, long, mix, combine, output_gates)
    if mask is None:
        return list(after)
    return [tf.where(mask, new, old) for new, old in zip(after, states, strict=True)]


def _array(steps, values=None, like=None):
    """Returns an array over time that holds `values`, or slices shaped as `like`."""
    if values is not None:
        return tf.TensorArray(values.dtype, steps).unstack(values)
    return tf.TensorArray(like.dtype, steps, element_shape=like.shape)


def _weight_gradient(x, dz):
    """Returns `sum_t x_t^T dz_t`, one product over all steps."""
    x, dz = (tf.reshape(one, (-1, one.shape[-1])) for one in (x, dz))
    return tf.matmul(x, tf.cast(dz, x.dtype), transpose_a=True)
