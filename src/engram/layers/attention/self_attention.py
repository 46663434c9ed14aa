"""SelfAttention: every step of a sequence looks at the others."""

import numbers

import keras
from keras import ops
from keras.src.backend import get_keras_mask  # masks ride on tensors

from engram.layers.attention import relative_bias
from engram.layers.attention.multi_head import (
    MultiHead,
    check_positive,
    check_rank,
    combine,
)
from engram.layers.attention.rotary import rotate


@keras.saving.register_keras_serializable(package="engram")
class SelfAttention(MultiHead):
    """Every step of a sequence looks at all steps, or at those before it.

        Q, K, V = x W_q + b_q, x W_k + b_k, x W_v + b_v
        alpha   = softmax(Q K^T / sqrt(D) + bias), hidden: 0       (B, H, T, T)
        y       = concat_heads(alpha V) W_o + b_o                  (B, T, F)

    With `rotary`, Q and K are turned by their positions first (`rotary.py`); with
    `relative`, `bias` is a learned number per head and distance (`relative_bias.py`),
    zero at the start. Else `bias` is 0.

    A causal layer also goes step by step, with the keys and values of the steps before
    it in a cache: `new_cache` and `step`.

    There is one way of computing, whether scores are returned or not, with dropout or
    without.

    Args:
        heads: int, how many heads `H`.
        head_dim: int, size `D` per head; `F // H` if None.
        kv_heads: int, heads of keys and values, which must divide `heads`: each serves
            several heads of queries, and the cache is smaller. As many if None.
        causal: bool, whether a step sees only itself and those before it.
        rotary: bool, whether to turn queries and keys by their positions; `D` must be
            even.
        relative: int, the largest distance with a bias of its own; longer ones share
            it. No bias if None.
        use_bias: bool, whether the four projections have a bias.
        dropout: float in [0, 1), share of `alpha` dropped in training.
        kernel_initializer: initializer of the four kernels.
        bias_initializer: initializer of the four biases.
        kernel_regularizer: regularizer of the four kernels.
        bias_regularizer: regularizer of the four biases.
        seed: int or None, seed of dropout.

    Call arguments:
        x: float tensor `(B, T, F)`.
        mask: bool tensor `(B, T)`, true at steps that count. Keras fills in the mask
            that comes with `x`; one that is given wins.
        attention_mask: bool tensor `(T, T)` or `(B, T, T)`, true where a step (row) may
            see another (column); together with `mask` and `causal`.
        training: bool, whether to drop anything.
        return_attention_scores: bool.

    Returns:
        `y` `(B, T, F)`; with `return_attention_scores` also `alpha` `(B, H, T, T)`,
        float32 (float64 in a float64 layer), before dropout.

    Raises:
        ValueError: if an argument, the width of `x` or a mask cannot be used.

    Masking: a step that does not count is seen by none; its own row is computed like
        the others and means nothing. A row that sees nothing has `alpha` 0 and
        `y = b_o`. The mask is passed on.

    Precision: under a mixed policy the softmax is computed in float32.

    References:
        - Vaswani et al. 2017, Attention is all you need, eq. 1 and section 3.2.2,
          https://arxiv.org/abs/1706.03762
        - Ainslie et al. 2023, GQA, section 2.2, https://arxiv.org/abs/2305.13245
    """

    def __init__(
        self,
        heads,
        head_dim=None,
        kv_heads=None,
        causal=False,
        rotary=False,
        relative=None,
        use_bias=True,
        dropout=0.0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            heads,
            head_dim=head_dim,
            kv_heads=kv_heads,
            use_bias=use_bias,
            dropout=dropout,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            seed=seed,
            **kwargs,
        )
        if relative is not None:
            check_positive("relative", relative)
        if rotary and head_dim is not None:
            _check_even(head_dim)
        self.causal = causal
        self.rotary = rotary
        self.relative = relative

    def build(self, x_shape):
        self.add_heads(x_shape[-1], x_shape[-1])
        if self.rotary:
            _check_even(self.size)
        self.relative_bias = None
        if self.relative is not None:
            distances = relative_bias.count_distances(self.relative, self.causal)
            self.relative_bias = self.add_weight(
                shape=(self.heads, distances), initializer="zeros", name="relative_bias"
            )

    def call(
        self,
        x,
        mask=None,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        if mask is None:  # Keras looks for it only where `x` is the only tensor
            mask = get_keras_mask(x)
        positions = ops.arange(ops.shape(x)[1])
        queries, keys, values = self._project(x, positions)
        order = _not_after(positions, positions) if self.causal else None
        visible = combine(mask, attention_mask, order)
        bias = self._bias(positions, positions)
        y, alpha = self.attend(queries, keys, values, visible, bias, training)
        return (y, alpha) if return_attention_scores else y

    def new_cache(self, batch, length):
        """Returns `[keys, values]` of zeros, each `(B, kv_heads, length, D)`.

        Raises:
            ValueError: before the layer is built, when it does not know its `D`.
        """
        self.check_built("new_cache")
        shape = (batch, self.kv_heads, length, self.size)
        return [ops.zeros(shape, dtype=self.compute_dtype) for _ in range(2)]

    def step(self, x, cache, index, mask=None, return_attention_scores=False):
        """Computes some more steps of a causal layer; it equals rows of a full call.

        Args:
            x: float tensor `(B, t, F)`, the steps at `index` to `index + t - 1`, which
                must lie within the cache.
            cache: what `new_cache` or the `step` before returned.
            index: int or int tensor without axes.
            mask: bool tensor `(B, length)`, true at steps that count; None if all do.
            return_attention_scores: bool.

        Returns:
            `y` `(B, t, F)` and the new cache; with `return_attention_scores` also
            `alpha` `(B, H, t, length)`, 0 at steps that are still to come.

        Raises:
            ValueError: if the layer is not causal, or has no room for the steps.
        """
        if not self.causal:
            raise ValueError(
                "`causal` must be true to go step by step: other layers look ahead."
                f" Received: {self.causal}"
            )
        _check_room(index, x.shape[1], cache[0].shape[2])
        index = ops.cast(index, "int32")
        positions = index + ops.arange(ops.shape(x)[1])  # (t,)
        known = ops.arange(ops.shape(cache[0])[2])  # (length,)
        queries, *new = self._project(x, positions)
        keys, values = (
            ops.slice_update(old, [0, 0, index, 0], one)
            for old, one in zip(cache, new, strict=True)
        )
        visible = combine(mask, None, _not_after(known, positions))
        bias = self._bias(positions, known)
        y, alpha = self.attend(queries, keys, values, visible, bias)
        cache = [keys, values]
        return (y, cache, alpha) if return_attention_scores else (y, cache)

    def _project(self, x, positions):
        """Returns queries, keys and values of steps at these positions."""
        queries, keys, values = self.project_all(x)
        if self.rotary:
            queries, keys = rotate(queries, positions), rotate(keys, positions)
        return queries, keys, values

    def _bias(self, query_positions, key_positions):
        """Returns the bias `(kv_heads, H / kv_heads, T, S)`, or None."""
        if self.relative is None:
            return None
        table = ops.reshape(self.relative_bias, (*self.grouped, -1))
        return relative_bias.between(table, self.relative, query_positions, key_positions)

    def compute_output_shape(self, x_shape):
        return x_shape

    def compute_output_spec(
        self,
        x,
        mask=None,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        if attention_mask is not None:
            check_rank("attention_mask", attention_mask.shape, 2, 3)
        return self._spec(x, x.shape[1], return_attention_scores)

    def get_config(self):
        return {
            **super().get_config(),
            "causal": self.causal,
            "rotary": self.rotary,
            "relative": self.relative,
        }


def _not_after(key_positions, query_positions):
    """Returns which keys are no later than the queries, bool `(T, S)`."""
    return key_positions[None, :] <= query_positions[:, None]


def _check_room(index, steps, length):
    """Raises a ValueError where it is known that steps do not fit into a cache."""
    if not isinstance(index, numbers.Integral) or None in (steps, length):
        return
    if not 0 <= int(index) <= length - steps:
        raise ValueError(
            f"`index` must leave room for {steps} steps in a cache of {length}."
            f" Received: {index}"
        )


def _check_even(head_dim):
    if head_dim % 2:
        raise ValueError(
            f"`head_dim` must be even with `rotary`: pairs turn. Received: {head_dim}"
        )
