"""TransformerDecoderBlock: a step looks back, then at the source, then thinks."""

import keras
from keras import ops
from keras.src.backend import get_keras_mask  # masks ride on tensors

from engram.layers.attention.cross_attention import CrossAttention
from engram.layers.attention.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable(package="engram")
class TransformerDecoderBlock(TransformerBlock):
    """A block of a Transformer's decoder: causal self-attention, cross-attention, net.

    With `norm="post"`, as Vaswani et al. have it,

        a = LN(x + SelfAttention(x))        causal
        c = LN(a + CrossAttention(a, m))
        y = LN(c + FF(c))                   FF(c) = activation(c W_1 + b_1) W_2 + b_2

    and with `norm="pre"`, which learns without a warm-up and in deep stacks,

        a = x + SelfAttention(LN(x))
        c = a + CrossAttention(LN(a), m)
        y = c + FF(LN(c))

    After the last block of a stack of the second kind stands one more normalisation,
    which is the model's to add.

    To write token after token, `project` the memory once, and `step` with a cache.

    Args: those of `TransformerEncoderBlock`. `rotary` and `relative` are of the
        self-attention alone.

    Call arguments:
        x: float tensor `(B, T, F)`.
        memory: float tensor `(B, S, M)`, such as an encoder's output.
        memory_mask: bool tensor `(B, S)`, true at steps of the memory that count. Keras
            fills in the mask that comes with `memory`; one that is given wins.
        mask: the same `(B, T)` for `x`.
        training: bool, whether to drop anything.
        return_attention_scores: bool.

    Returns:
        `y` `(B, T, F)`; with `return_attention_scores` also a dict with `"self"`, `alpha`
        `(B, H, T, T)`, and `"cross"`, `(B, H, T, S)`, both float32 and before dropout.

    Raises:
        ValueError: if an argument cannot be used; it names the argument and its value.

    Masking: a step that does not count is seen by none. The mask of `x` is passed on.

    References:
        - Vaswani et al. 2017, Attention is all you need, sections 3.1, 3.3 and 5.4,
          https://arxiv.org/abs/1706.03762
        - Xiong et al. 2020, On layer normalization in the Transformer architecture,
          table 1, https://arxiv.org/abs/2002.04745
    """

    causal = True

    def build(self, x_shape, memory_shape):
        self.add_parts(x_shape)
        self.cross_attention = self.attention(CrossAttention, 10)
        self.cross_attention.build(x_shape, memory_shape)
        self.cross_norm = self.layer_norm("cross_norm", x_shape)

    def call(
        self,
        x,
        memory,
        memory_mask=None,
        mask=None,
        training=None,
        return_attention_scores=False,
    ):
        if mask is None:  # Keras looks for it only where `x` is the only tensor
            mask = get_keras_mask(x)

        def look_back(x):
            return self.self_attention(
                x, mask=mask, training=training, return_attention_scores=True
            )

        def look_at_memory(x):
            return self.cross_attention(
                x,
                memory,
                memory_mask=memory_mask,
                training=training,
                return_attention_scores=True,
            )

        x, back = self.around(look_back, self.self_norm, x, training)
        x, across = self.around(look_at_memory, self.cross_norm, x, training)
        y = self.feed(x, training)
        return (y, {"self": back, "cross": across}) if return_attention_scores else y

    def new_cache(self, batch, length):
        """Returns an empty cache for `length` steps (`SelfAttention.new_cache`)."""
        return self.self_attention.new_cache(batch, length)

    def project(self, memory):
        """Returns keys and values `(B, kv_heads, S, D)` of a memory `(B, S, M)`."""
        return self.cross_attention.project(memory)

    def step(
        self,
        x,
        cache,
        index,
        projected,
        memory_mask=None,
        return_attention_scores=False,
    ):
        """Computes some more steps; it equals rows of a full call.

        Args:
            x: float tensor `(B, t, F)`, the steps at `index` to `index + t - 1`, which
                must lie within the cache.
            cache: what `new_cache` or the `step` before returned.
            index: int or int tensor without axes.
            projected: what `project` returned.
            memory_mask: bool tensor `(B, S)`, true at steps of the memory that count;
                None if all do.
            return_attention_scores: bool.

        Returns:
            `y` `(B, t, F)` and the new cache; with `return_attention_scores` also a dict
            with `"self"`, `alpha` `(B, H, t, length)`, and `"cross"`, `(B, H, t, S)`.
        """

        def look_back(x):
            return self.self_attention.step(x, cache, index, return_attention_scores=True)

        def look_at_memory(x):
            return self.cross_attention.step(
                x, projected, memory_mask, return_attention_scores=True
            )

        x = ops.cast(x, self.compute_dtype)
        x, cache, back = self.around(look_back, self.self_norm, x)
        x, across = self.around(look_at_memory, self.cross_norm, x)
        y = self.feed(x)
        if not return_attention_scores:
            return y, cache
        return y, cache, {"self": back, "cross": across}
