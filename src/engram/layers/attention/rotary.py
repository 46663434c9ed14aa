"""Rotary positions: queries and keys turned by an angle that grows with position."""

from keras import ops

LONGEST_WAVE = 10000.0  # steps per radian of the slowest pair


def rotate(x, positions):
    """Returns queries or keys, turned according to where they stand.

    Features `i` and `i + D/2` of a head are one point of the plane, turned by

        angle(p, i) = p / 10000^(2 i / D)

    so that the product of a query at `p` and a key at `q` depends on `p - q` alone.

    Args:
        x: float tensor `(..., T, D)`, `D` even.
        positions: int tensor `(T,)`.

    Returns:
        Float tensor of the shape and dtype of `x`.

    Reference:
        - Su et al. 2021, RoFormer: Enhanced transformer with rotary position
          embedding, eq. 34, https://arxiv.org/abs/2104.09864. There the features of a
          point are neighbours, which is the same in another order.
    """
    half = x.shape[-1] // 2
    exact = "float64" if x.dtype == "float64" else "float32"  # half loses positions
    slowness = LONGEST_WAVE ** (ops.arange(half, dtype=exact) / half)
    angles = ops.cast(positions, exact)[:, None] / slowness  # (T, D/2)
    cosine, sine = ops.cast(ops.cos(angles), x.dtype), ops.cast(ops.sin(angles), x.dtype)
    a, b = x[..., :half], x[..., half:]
    return ops.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)
