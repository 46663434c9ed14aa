"""Relative positions: what a head learns to add to a logit for the distance it spans."""

from keras import ops


def count_distances(relative, causal):
    """Returns how many distances have a bias: causal heads never look ahead."""
    return relative + 1 if causal else 2 * relative + 1


def between(table, relative, query_positions, key_positions):
    """Returns the bias of every logit, by the distance from query to key.

        bias[t, s] = table[clip(s - t, -relative, ahead) + relative]

    `ahead` is `relative`, or 0 where the table knows no distances ahead.

    Args:
        table: float tensor `(..., distances)`, such as one row per head.
        relative: int, largest distance with a bias of its own.
        query_positions: int tensor `(T,)`.
        key_positions: int tensor `(S,)`.

    Returns:
        Float tensor `(..., T, S)`.

    References:
        - Shaw, Uszkoreit & Vaswani 2018, Self-attention with relative position
          representations, section 3.2, https://arxiv.org/abs/1803.02155: the clipping.
        - Raffel et al. 2020, Exploring the limits of transfer learning, section 2.1,
          https://arxiv.org/abs/1910.10683: one number per head and distance.
    """
    distances = key_positions[None, :] - query_positions[:, None]  # (T, S)
    ahead = table.shape[-1] - 1 - relative
    place = ops.clip(distances, -relative, ahead) + relative
    return ops.take(table, place, axis=-1)
