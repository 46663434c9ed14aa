"""TransformerEncoderBlock: every step looks at all others, then thinks for itself."""

import keras

from engram.layers.attention.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable(package="engram")
class TransformerEncoderBlock(TransformerBlock):
    """A block of a Transformer's encoder: self-attention and a feedforward net.

    With `norm="post"`, as Vaswani et al. have it,

        a = LN(x + SelfAttention(x))
        y = LN(a + FF(a))                   FF(a) = activation(a W_1 + b_1) W_2 + b_2

    and with `norm="pre"`, which learns without a warm-up and in deep stacks,

        a = x + SelfAttention(LN(x))
        y = a + FF(LN(a))

    After the last block of a stack of the second kind stands one more normalisation,
    which is the model's to add.

    Args:
        heads: int, heads `H` of attention.
        feedforward: int, width of the feedforward net's inner layer.
        norm: `"post"` or `"pre"`, where the normalisations stand.
        activation: `"relu"` or `"gelu"` (with the error function).
        dropout: float in [0, 1), share of each sublayer's output dropped in training,
            before the residual is added.
        attention_dropout: float in [0, 1), share of `alpha` dropped in training.
        rotary: bool, whether queries and keys are turned by their positions
            (`SelfAttention`).
        relative: int or None, largest distance with a bias of its own (`SelfAttention`).
        head_dim: int, size `D` per head; `F // H` if None.
        kv_heads: int, heads of keys and values; as many as `heads` if None.
        layer_norm_epsilon: float, what is added to a variance.
        kernel_initializer: initializer of all kernels.
        bias_initializer: initializer of all biases but those of the normalisations.
        seed: int or None, seed of dropout.

    Call arguments:
        x: float tensor `(B, T, F)`.
        mask: bool tensor `(B, T)`, true at steps that count; Keras fills in the mask that
            comes with `x`.
        training: bool, whether to drop anything.
        return_attention_scores: bool.

    Returns:
        `y` `(B, T, F)`; with `return_attention_scores` also `alpha` `(B, H, T, T)`,
        float32, before dropout.

    Raises:
        ValueError: if an argument cannot be used; it names the argument and its value.

    Masking: a step that does not count is seen by none. The mask is passed on.

    References:
        - Vaswani et al. 2017, Attention is all you need, sections 3.1, 3.3 and 5.4,
          https://arxiv.org/abs/1706.03762
        - Xiong et al. 2020, On layer normalization in the Transformer architecture,
          table 1, https://arxiv.org/abs/2002.04745
    """

    def build(self, x_shape):
        self.add_parts(x_shape)

    def call(self, x, mask=None, training=None, return_attention_scores=False):
        def look(x):
            return self.self_attention(
                x, mask=mask, training=training, return_attention_scores=True
            )

        x, alpha = self.around(look, self.self_norm, x, training)
        y = self.feed(x, training)
        return (y, alpha) if return_attention_scores else y
