"""MultiHead: the weights and the equation beneath self- and cross-attention."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from engram.layers.attention.masked_softmax import masked_softmax


class MultiHead(keras.layers.Layer):
    """Attention of several heads over the rows of a memory.

        Q     = x W_q + b_q                                        (B, H, T, D)
        K, V  = m W_k + b_k, m W_v + b_v                           (B, kv_heads, S, D)
        alpha = softmax(Q K^T / sqrt(D) + bias), hidden: 0         (B, H, T, S)
        y     = concat_heads(alpha V) W_o + b_o                    (B, T, F)

    With fewer heads of keys and values than of queries, each serves `H / kv_heads`
    neighbouring heads of queries. The layers on top, `SelfAttention` and
    `CrossAttention`, say what `m` is, what is hidden and which bias there is.

    Each kernel is drawn as the matrix that it is, `(F, H D)` or `(H D, F)`: Glorot's
    limits depend on it.

    Args: those of `CrossAttention`.

    Raises:
        ValueError: if an argument, or the width of the inputs, cannot be used.

    References:
        - Vaswani et al. 2017, Attention is all you need, eq. 1 and section 3.2.2,
          https://arxiv.org/abs/1706.03762
        - Ainslie et al. 2023, GQA: Training generalized multi-query transformer models,
          section 2.2, https://arxiv.org/abs/2305.13245: shared keys and values.
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
        super().__init__(**kwargs)
        check_positive("heads", heads)
        if head_dim is not None:
            check_positive("head_dim", head_dim)
        if kv_heads is None:
            kv_heads = heads
        check_positive("kv_heads", kv_heads)
        if heads % kv_heads:
            raise ValueError(
                f"`kv_heads` must divide `heads`, {heads}. Received: {kv_heads}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: {dropout}")
        self.heads = int(heads)
        self.head_dim = head_dim
        self.kv_heads = int(kv_heads)
        self.use_bias = use_bias
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def add_heads(self, features, memory_features):
        """Adds the weights for an `x` and a memory of these widths; `build` calls it."""
        heads, kv_heads = self.heads, self.kv_heads
        if self.head_dim is None and features % heads:
            raise ValueError(
                f"`heads` must divide the {features} features where there is no"
                f" `head_dim`. Received: {heads}"
            )
        self.size = size = self.head_dim or features // heads
        source = (memory_features,)
        self.query_kernel, self.query_bias = self._add(
            "query", (features,), (heads, size)
        )
        self.key_kernel, self.key_bias = self._add("key", source, (kv_heads, size))
        self.value_kernel, self.value_bias = self._add("value", source, (kv_heads, size))
        self.output_kernel, self.output_bias = self._add(
            "output", (heads, size), (features,)
        )

    def _add(self, name, inputs, outputs):
        """Adds a kernel `(*inputs, *outputs)` and its bias, None without biases."""
        number = len(self.weights)
        draw = another(self.kernel_initializer, number)

        def matrix(shape, dtype=None):
            flat = draw((math.prod(inputs), math.prod(outputs)), dtype=dtype)
            return ops.reshape(flat, shape)

        kernel = self.add_weight(
            shape=(*inputs, *outputs),
            initializer=matrix,
            regularizer=self.kernel_regularizer,
            name=f"{name}_kernel",
        )
        if not self.use_bias:
            return kernel, None
        bias = self.add_weight(
            shape=outputs,
            initializer=another(self.bias_initializer, number),
            regularizer=self.bias_regularizer,
            name=f"{name}_bias",
        )
        return kernel, bias

    def project_queries(self, x):
        """Returns `Q` as `(B, kv_heads, H / kv_heads, T, D)`: by the keys they share."""
        (queries,) = self._mapped(x, "query")
        return queries

    def project(self, memory):
        """Returns `[keys, values]` of a memory `(B, S, M)`, each `(B, kv_heads, S, D)`.

        Raises:
            ValueError: before the layer is built.
        """
        self.check_built("project")
        return self._mapped(memory, "key", "value")

    def project_all(self, x):
        """Returns queries, keys and values of the same steps."""
        return self._mapped(x, "query", "key", "value")

    def _mapped(self, x, *names):
        """Returns what these kernels and biases make of `x`: one product for them all."""
        x = self._cast(x)
        every = {
            "query": (self.query_kernel, self.query_bias, self.grouped),
            "key": (self.key_kernel, self.key_bias, self.grouped[:1]),
            "value": (self.value_kernel, self.value_bias, self.grouped[:1]),
        }
        kernels, biases, heads = zip(*(every[name] for name in names), strict=True)
        y = ops.matmul(x, self._beside(kernels, x.shape[-1]))
        if self.use_bias:
            y = y + self._beside(biases, 1)[0]
        ends = np.cumsum([math.prod(some) * self.size for some in heads]).tolist()
        parts = ops.split(y, ends[:-1], axis=-1) if len(names) > 1 else [y]
        batch, steps = ops.shape(x)[:2]
        parts = [
            ops.reshape(part, (batch, steps, *some, self.size))
            for part, some in zip(parts, heads, strict=True)
        ]
        return [ops.moveaxis(part, 1, -2) for part in parts]  # (B, heads, steps, D)

    def _beside(self, weights, rows):
        """Returns the weights, as matrices of so many rows, side by side."""
        flat = [ops.reshape(self._cast(one), (rows, -1)) for one in weights]
        return ops.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]

    def attend(self, queries, keys, values, visible=None, bias=None, training=False):
        """Returns `y` `(B, T, F)` and `alpha` `(B, H, T, S)`, in the dtype of scores.

        Args:
            queries: float tensor `(B, kv_heads, H / kv_heads, T, D)`.
            keys: float tensor `(B, kv_heads, S, D)`.
            values: float tensor `(B, kv_heads, S, D)`.
            visible: bool tensor `(T, S)`, `(B, 1, S)` or `(B, T, S)`, or None.
            bias: float tensor `(kv_heads, H / kv_heads, T, S)`, or None.
            training: bool, whether to drop weights.
        """
        batch, kv_heads, group, steps, size = ops.shape(queries)
        source = ops.shape(keys)[2]
        rows = ops.reshape(queries, (batch, kv_heads, group * steps, size))
        logits = ops.matmul(rows * size**-0.5, ops.swapaxes(keys, -1, -2))
        logits = ops.cast(logits, self.scores_dtype)  # (B, kv_heads, group T, S)
        logits = ops.reshape(logits, (batch, kv_heads, group, steps, source))
        if bias is not None:
            logits = logits + ops.cast(bias, self.scores_dtype)
        if visible is not None and len(visible.shape) == 3:
            visible = visible[:, None, None]  # (B, 1, 1, T, S)
        alpha = masked_softmax(logits, visible)
        weights = self._cast(alpha)
        if training and self.dropout:
            weights = keras.random.dropout(
                weights, self.dropout, seed=self.seed_generator
            )
        weights = ops.reshape(weights, (batch, kv_heads, group * steps, source))
        found = ops.reshape(ops.matmul(weights, values), ops.shape(queries))
        found = ops.moveaxis(found, -2, 1)  # (B, T, kv_heads, group, D)
        found = ops.reshape(found, (batch, steps, self.heads * size))
        y = ops.matmul(found, self._beside([self.output_kernel], self.heads * size))
        if self.use_bias:
            y = y + self._cast(self.output_bias)
        return y, ops.reshape(alpha, (batch, self.heads, steps, source))

    def check_built(self, method):
        """Raises a ValueError before the layer is built, when it has no weights."""
        if not self.built:
            raise ValueError(
                f"`{method}` needs a layer that is built: call the layer first, or"
                f" `build` it. Received: {self.name}, not built"
            )

    @property
    def grouped(self):
        """The axes of the heads of queries: `(kv_heads, H / kv_heads)`."""
        return self.kv_heads, self.heads // self.kv_heads

    @property
    def scores_dtype(self):
        """The dtype of the softmax: float32 also where products are half as wide."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def _cast(self, tensor):
        """Returns a tensor in the compute dtype, also outside of `__call__`."""
        return ops.cast(tensor, self.compute_dtype)

    def _spec(self, x, source, return_attention_scores):
        """Returns what a call on `x` over so many source steps gives, symbolically."""
        y = keras.KerasTensor(x.shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return y
        shape = (x.shape[0], self.heads, x.shape[1], source)
        return y, keras.KerasTensor(shape, dtype=self.scores_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_dim": self.head_dim,
            "kv_heads": self.kv_heads,
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "seed": self.seed,
        }


def combine(mask, attention_mask, order=None, mask_name="mask"):
    """Returns what all of them let be seen, bool; None if there is none of them.

    Args:
        mask: `(B, S)`, true at steps of the memory that count.
        attention_mask: `(T, S)` or `(B, T, S)`, true where a step may see another.
        order: `(T, S)`, the same for the order of time.
        mask_name: str, how the caller calls `mask`.

    Raises:
        ValueError: if a mask has another rank.
    """
    visible = order
    if mask is not None:
        check_rank(mask_name, mask.shape, 2)
        counts = ops.cast(mask, "bool")[:, None, :]  # (B, 1, S)
        visible = counts if visible is None else ops.logical_and(visible, counts)
    if attention_mask is not None:
        check_rank("attention_mask", attention_mask.shape, 2, 3)
        allowed = ops.cast(attention_mask, "bool")
        visible = allowed if visible is None else ops.logical_and(visible, allowed)
    return visible


def check_positive(name, value):
    """Raises a ValueError unless `value` is a positive integer."""
    if not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {value}")


def check_rank(name, shape, *ranks):
    """Raises a ValueError unless a tensor of this shape has one of the ranks."""
    if len(shape) not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise ValueError(
            f"`{name}` must have {wanted} axes. Received: shape {tuple(shape)}"
        )


def another(initializer, number):
    """Returns an initializer like this one with a draw of its own, by its number."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer  # a plain function draws anew at every call
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += number
    return type(initializer).from_config(config)
