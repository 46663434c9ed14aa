"""CrossAttention: every step of one sequence looks at all steps of another."""

import keras

from engram.layers.attention.multi_head import MultiHead, check_rank, combine


@keras.saving.register_keras_serializable(package="engram")
class CrossAttention(MultiHead):
    """Every step of a sequence looks at all steps of a memory, such as an encoder's.

        Q     = x W_q + b_q                                        (B, T, H, D)
        K, V  = m W_k + b_k, m W_v + b_v                           (B, kv_heads, S, D)
        alpha = softmax(Q K^T / sqrt(D)), hidden: 0                (B, H, T, S)
        y     = concat_heads(alpha V) W_o + b_o                    (B, T, F)

    Where the memory stays and `x` comes step by step, `project` computes K and V once
    and `step` does the rest. There is one way of computing, whether scores are
    returned or not, with dropout or without.

    Args:
        heads: int, how many heads `H`.
        head_dim: int, size `D` per head; `F // H` if None.
        kv_heads: int, heads of keys and values, which must divide `heads`: each serves
            several heads of queries. As many if None.
        use_bias: bool, whether the four projections have a bias.
        dropout: float in [0, 1), share of `alpha` dropped in training.
        kernel_initializer: initializer of the four kernels.
        bias_initializer: initializer of the four biases.
        kernel_regularizer: regularizer of the four kernels.
        bias_regularizer: regularizer of the four biases.
        seed: int or None, seed of dropout.

    Call arguments:
        x: float tensor `(B, T, F)`.
        memory: float tensor `(B, S, M)`, `M` features of any number.
        memory_mask: bool tensor `(B, S)`, true at steps of the memory that count. Keras
            fills in the mask that comes with `memory`; one that is given wins.
        attention_mask: bool tensor `(T, S)` or `(B, T, S)`, true where a step of `x`
            (row) may see one of the memory (column); together with `memory_mask`.
        training: bool, whether to drop anything.
        return_attention_scores: bool.

    Returns:
        `y` `(B, T, F)`; with `return_attention_scores` also `alpha` `(B, H, T, S)`,
        float32 (float64 in a float64 layer), before dropout.

    Raises:
        ValueError: if an argument, the width of `x`, the memory or a mask cannot be
            used.

    Masking: a row that sees nothing has `alpha` 0 and `y = b_o`. The mask of `x`
        changes nothing here, since rows do not see each other; it is passed on.

    Precision: under a mixed policy the softmax is computed in float32.

    References:
        - Vaswani et al. 2017, Attention is all you need, eq. 1 and section 3.2.3,
          https://arxiv.org/abs/1706.03762
        - Ainslie et al. 2023, GQA, section 2.2, https://arxiv.org/abs/2305.13245
    """

    def __init__(
        self,
        heads,
        head_dim=None,
        kv_heads=None,
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

    def build(self, x_shape, memory_shape):
        self.add_heads(x_shape[-1], memory_shape[-1])

    def call(
        self,
        x,
        memory,
        memory_mask=None,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        check_rank("memory", memory.shape, 3)
        keys, values = self.project(memory)
        visible = combine(memory_mask, attention_mask, mask_name="memory_mask")
        queries = self.project_queries(x)
        y, alpha = self.attend(queries, keys, values, visible, training=training)
        return (y, alpha) if return_attention_scores else y

    def step(self, x, projected, memory_mask=None, return_attention_scores=False):
        """Returns what a call does, from keys and values that `project` returned."""
        visible = combine(memory_mask, None, mask_name="memory_mask")
        keys, values = projected
        y, alpha = self.attend(self.project_queries(x), keys, values, visible)
        return (y, alpha) if return_attention_scores else y

    def compute_output_shape(self, x_shape, memory_shape):
        return x_shape

    def compute_output_spec(
        self,
        x,
        memory,
        memory_mask=None,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        check_rank("memory", memory.shape, 3)
        if attention_mask is not None:
            check_rank("attention_mask", attention_mask.shape, 2, 3)
        return self._spec(x, memory.shape[1], return_attention_scores)
