"""LuongAttention: a query finds its source steps by products."""

import keras
from keras import ops

from engram.layers.attention import one_query
from engram.layers.attention.multi_head import check_positive

SCORES = ("dot", "general", "concat")


@keras.saving.register_keras_serializable(package="engram")
class LuongAttention(keras.layers.Layer):
    """Multiplicative attention: one query looks at all source steps.

    With the query `q` and the source steps `k_j`:

        dot:      e_j = q . k_j
        general:  e_j = q . (k_j W_a)
        concat:   e_j = v . tanh([q, k_j] W_a),       W_a = [W_q; W_k]

        alpha_j = exp(e_j) / sum_i exp(e_i)         over the steps that are not hidden
        context = sum_j alpha_j k_j

    What does not depend on the query (`k_j W_a`, or `k_j W_k`) is computed by `project`:
    a decoder asks for it once, and hands it to every call as `keys`.

    Args:
        score: `"dot"`, `"general"` or `"concat"`.
        units: int, size `U` of the hidden layer of `concat`; None for the others.
        kernel_initializer: initializer of `memory_kernel` (`general`: `W_a`), and of
            `query_kernel`, `memory_kernel` and `energy_kernel` (`concat`: `W_q`, `W_k`
            and `v`).
        kernel_regularizer: regularizer of all kernels.

    Call arguments:
        query: float tensor `(B, F)`, such as the state of a decoder.
        memory: float tensor `(B, S, M)`, the source steps. `dot` needs `M = F`.
        memory_mask: bool tensor `(B, S)`, false at steps to hide; by default the mask
            that `memory` carries.
        keys: what `project(memory)` returned; computed if None. Float tensor
            `(B, S, F)`, for `concat` `(B, S, U)`.

    Returns:
        `context` `(B, M)` in the compute dtype, and `alpha` `(B, S)`, float32 also under
        a mixed policy.

    Raises:
        ValueError: if `score` is unknown, `units` does not go with it, a tensor has
            another rank, or `dot` is asked for unequal widths.

    Masking: alpha is 0 at a hidden step. A query that may see nothing gets alpha 0 and
        context 0.

    Reference:
        - Luong, Pham & Manning 2015, Effective approaches to attention-based neural
          machine translation, arXiv:1508.04025, eqs. 7 and 8: global attention.
    """

    def __init__(
        self,
        score="dot",
        units=None,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if score not in SCORES:
            raise ValueError(f"`score` must be one of {SCORES}. Received: {score}")
        if score == "concat":
            check_positive("units", units)
        elif units is not None:
            raise ValueError(
                f'`units` is of `score="concat"` alone; it must be None for "{score}".'
                f" Received: {units}"
            )
        self.score = score
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, query_shape, memory_shape):
        one_query.check_axes("query", query_shape, "batch", "features")
        one_query.check_memory(memory_shape)
        query, memory = query_shape[-1], memory_shape[-1]
        if self.score == "dot" and query != memory:
            raise ValueError(
                f'`memory` must be as wide as `query` for `score="dot"`, {query}.'
                f" Received: {memory}"
            )
        shapes = {
            "dot": {},
            "general": {"memory_kernel": (memory, query)},
            "concat": {
                "query_kernel": (query, self.units),
                "memory_kernel": (memory, self.units),
                "energy_kernel": (self.units,),
            },
        }
        for name, shape in shapes[self.score].items():
            weight = self.add_weight(
                shape=shape,
                initializer=self.kernel_initializer,
                regularizer=self.kernel_regularizer,
                name=name,
            )
            setattr(self, name, weight)

    def project(self, memory):
        """Returns the keys of `memory` `(B, S, M)`: itself, `k_j W_a` or `k_j W_k`."""
        memory = ops.cast(memory, self.compute_dtype)
        if self.score == "dot":
            return memory
        return ops.matmul(memory, ops.cast(self.memory_kernel, self.compute_dtype))

    def call(self, query, memory, memory_mask=None, keys=None):
        one_query.check_axes("query", query.shape, "batch", "features")
        one_query.check_memory(memory.shape)
        keys = self.project(memory) if keys is None else keys
        if self.score == "concat":
            asked = ops.matmul(query, self.query_kernel)  # (B, U)
            hidden = ops.tanh(ops.expand_dims(asked, 1) + keys)  # (B, S, U)
            energies = ops.einsum("bsu,u->bs", hidden, self.energy_kernel)
        else:
            energies = ops.einsum("bf,bsf->bs", query, keys)
        return one_query.look(energies, memory, memory_mask)

    def get_config(self):
        return {
            **super().get_config(),
            "score": self.score,
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
