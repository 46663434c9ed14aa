"""TransformerBlock: what the blocks of encoder and decoder share."""

import keras

from engram.layers.attention.multi_head import another, check_positive
from engram.layers.attention.self_attention import SelfAttention

NORMS = ("post", "pre")
ACTIVATIONS = ("relu", "gelu")


class TransformerBlock(keras.layers.Layer):
    """Self-attention and a feedforward net, each with a residual and a normalisation.

    A sublayer `g` stands in the block as

        post:  LN(x + g(x))             (Vaswani et al. 2017)
        pre:   x + g(LN(x))             (Xiong et al. 2020)

    and the last one is the feedforward net, the same at each step,

        FF(x) = activation(x W_1 + b_1) W_2 + b_2

    Args: those of `TransformerEncoderBlock`.

    Raises:
        ValueError: if an argument cannot be used; it names the argument and its value.
    """

    causal = False

    def __init__(
        self,
        heads,
        feedforward,
        norm="post",
        activation="relu",
        dropout=0.0,
        attention_dropout=0.0,
        rotary=False,
        relative=None,
        head_dim=None,
        kv_heads=None,
        layer_norm_epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive("feedforward", feedforward)
        _check_one_of("norm", norm, NORMS)
        _check_one_of("activation", activation, ACTIVATIONS)
        for name, share in (
            ("dropout", dropout),
            ("attention_dropout", attention_dropout),
        ):
            if not 0 <= share < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {share}")
        if not layer_norm_epsilon > 0:
            raise ValueError(
                f"`layer_norm_epsilon` must be positive. Received: {layer_norm_epsilon}"
            )
        self.heads = heads
        self.feedforward = feedforward
        self.norm = norm
        self.activation = activation
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.rotary = rotary
        self.relative = relative
        self.head_dim = head_dim
        self.kv_heads = kv_heads
        self.layer_norm_epsilon = layer_norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.seed = seed
        self.supports_masking = True
        self.self_attention = self.attention(  # checks its arguments
            SelfAttention, 0, causal=self.causal, rotary=rotary, relative=relative
        )

    def add_parts(self, x_shape):
        """Builds the parts that both blocks have."""
        policy, features = self.dtype_policy, x_shape[-1]
        self.self_attention.build(x_shape)
        self.self_norm = self.layer_norm("self_norm", x_shape)
        self.feedforward_norm = self.layer_norm("feedforward_norm", x_shape)
        self.drop = keras.layers.Dropout(self.dropout, seed=self.seed, dtype=policy)
        self.inner = self.dense(self.feedforward, 20, "inner", x_shape, self.activation)
        self.outer = self.dense(features, 30, "outer", (*x_shape[:-1], self.feedforward))

    def attention(self, kind, number, **kwargs):
        """Returns an attention layer of a kind; by `number` it draws its own weights."""
        return kind(
            self.heads,
            head_dim=self.head_dim,
            kv_heads=self.kv_heads,
            dropout=self.attention_dropout,
            kernel_initializer=another(self.kernel_initializer, number),
            bias_initializer=another(self.bias_initializer, number),
            seed=None if self.seed is None else self.seed + 1 + number,
            dtype=self.dtype_policy,
            **kwargs,
        )

    def dense(self, units, number, name, shape, activation=None):
        """Returns a built dense layer; by `number` it draws its own weights."""
        layer = keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=another(self.kernel_initializer, number),
            bias_initializer=another(self.bias_initializer, number),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build(shape)
        return layer

    def layer_norm(self, name, shape):
        """Returns a built layer normalisation."""
        layer = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )
        layer.build(shape)
        return layer

    def around(self, sublayer, norm, x, training=False):
        """Returns `x` after a sublayer with its residual, and what else that returns.

        Args:
            sublayer: function from a tensor `(B, T, F)` to a list: such a tensor, and
                more.
            norm: its layer normalisation.
            x: `(B, T, F)`.
            training: bool, whether to drop anything.
        """
        y, *more = sublayer(norm(x) if self.norm == "pre" else x)
        y = x + self.drop(y, training=training)
        return norm(y) if self.norm == "post" else y, *more

    def feed(self, x, training=False):
        """Returns `x` `(B, T, F)` after the feedforward net, the last sublayer."""
        (y,) = self.around(
            lambda x: [self.outer(self.inner(x))], self.feedforward_norm, x, training
        )
        return y

    def compute_output_shape(self, x_shape, memory_shape=None):
        return x_shape

    def compute_output_spec(self, *args, **kwargs):
        return keras.Operation.compute_output_spec(self, *args, **kwargs)  # traces `call`

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "feedforward": self.feedforward,
            "norm": self.norm,
            "activation": self.activation,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "rotary": self.rotary,
            "relative": self.relative,
            "head_dim": self.head_dim,
            "kv_heads": self.kv_heads,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "seed": self.seed,
        }


def _check_one_of(name, value, values):
    if value not in values:
        raise ValueError(f"`{name}` must be one of {values}. Received: {value}")
