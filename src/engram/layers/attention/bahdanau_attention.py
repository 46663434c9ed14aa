"""BahdanauAttention: a query finds its source steps by a small network."""

import keras
from keras import ops

from engram.layers.attention import one_query
from engram.layers.attention.multi_head import check_positive


@keras.saving.register_keras_serializable(package="engram")
class BahdanauAttention(keras.layers.Layer):
    """Additive attention: one query looks at all source steps.

    With the query `q` and the source steps `k_j`:

        e_j     = v . tanh(q W_q + k_j W_k + b)
        alpha_j = exp(e_j) / sum_i exp(e_i)         over the steps that are not hidden
        context = sum_j alpha_j k_j

    `k_j W_k` does not depend on the query: a decoder asks `project` for it once, and
    hands it to every call as `keys`.

    Keras' `AdditiveAttention` is another layer: it has no `W_q` and `W_k`.

    Args:
        units: int, size `U` of the hidden layer. Must be positive.
        use_bias: bool, whether there is a `b`.
        kernel_initializer: initializer of `query_kernel`, `memory_kernel` and
            `energy_kernel`, that is `W_q`, `W_k` and `v`.
        bias_initializer: initializer of `bias`.
        kernel_regularizer: regularizer of the three kernels.

    Call arguments:
        query: float tensor `(B, F)`, such as the state of a decoder.
        memory: float tensor `(B, S, M)`, the source steps.
        memory_mask: bool tensor `(B, S)`, false at steps to hide; by default the mask
            that `memory` carries.
        keys: float tensor `(B, S, U)`, what `project(memory)` returned; computed if None.

    Returns:
        `context` `(B, M)` in the compute dtype, and `alpha` `(B, S)`, float32 also under
        a mixed policy.

    Raises:
        ValueError: if `units` is not positive, or a tensor has another rank.

    Masking: alpha is 0 at a hidden step. A query that may see nothing gets alpha 0 and
        context 0.

    Reference:
        - Bahdanau, Cho & Bengio 2015, Neural machine translation by jointly learning to
          align and translate, arXiv:1409.0473, eqs. 5 and 6 and appendix A.1.2.
    """

    def __init__(
        self,
        units,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive("units", units)
        self.units = int(units)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, query_shape, memory_shape):
        one_query.check_axes("query", query_shape, "batch", "features")
        one_query.check_memory(memory_shape)
        for name, shape in (
            ("query_kernel", (query_shape[-1], self.units)),
            ("memory_kernel", (memory_shape[-1], self.units)),
            ("energy_kernel", (self.units,)),
        ):
            weight = self.add_weight(
                shape=shape,
                initializer=self.kernel_initializer,
                regularizer=self.kernel_regularizer,
                name=name,
            )
            setattr(self, name, weight)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,), initializer=self.bias_initializer, name="bias"
            )

    def project(self, memory):
        """Returns the keys `k_j W_k` `(B, S, U)` of `memory` `(B, S, M)`."""
        memory, kernel = (
            ops.cast(one, self.compute_dtype) for one in (memory, self.memory_kernel)
        )
        return ops.matmul(memory, kernel)

    def call(self, query, memory, memory_mask=None, keys=None):
        one_query.check_axes("query", query.shape, "batch", "features")
        one_query.check_memory(memory.shape)
        keys = self.project(memory) if keys is None else keys
        asked = ops.matmul(query, self.query_kernel)  # (B, U)
        if self.use_bias:
            asked = asked + self.bias
        hidden = ops.tanh(ops.expand_dims(asked, 1) + keys)  # (B, S, U)
        energies = ops.einsum("bsu,u->bs", hidden, self.energy_kernel)
        return one_query.look(energies, memory, memory_mask)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
