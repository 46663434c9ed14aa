"""AttentionRNN: a recurrent decoder that looks at the source at each step."""

import keras
from keras import ops, tree
from keras.src import backend  # the loop of Keras' own RNN, and the mask of a tensor

from engram.layers.attention import one_query
from engram.layers.attention.bahdanau_attention import BahdanauAttention
from engram.layers.attention.luong_attention import LuongAttention


@keras.saving.register_keras_serializable(package="engram")
class AttentionRNN(keras.layers.Layer):
    """A recurrent decoder over target steps `x_t` with attention over a memory.

    The kind of attention says which state asks, and what the cell reads beside `x_t`.
    With `h` the output of the cell, `s` its states and `m` the memory:

    `BahdanauAttention`, the state before the step asks, and the cell reads the answer:

        c_t, alpha_t = attention(h_{t-1}, m)
        h_t, s_t     = cell([x_t, c_t], s_{t-1})
        y_t          = tanh([c_t, h_t] W_c)

    `LuongAttention`, the state after the step asks, and the next step reads `y_t`:

        h_t, s_t     = cell([x_t, y_{t-1}], s_{t-1})            y_0 = 0
        c_t, alpha_t = attention(h_t, m)
        y_t          = tanh([c_t, h_t] W_c)

    With `input_feeding=False` the cell reads `x_t` alone; `attention=None` is a plain
    recurrent decoder, `y_t = h_t`. `h_0` is the first initial state (of the last cell).

    A call is for training, where all `x_t` are known. To decode, go step by step:

        keys = decoder.attention.project(memory)
        state = decoder.initial(batch, initial_state)
        y, state, alpha = decoder.step(x, state, memory, keys, memory_mask)

    Args:
        cell: a Keras RNN cell, such as `keras.layers.GRUCell(units)`, an `STLMCell` or
            `keras.layers.StackedRNNCells`. The decoder is as wide as its output, `W`.
        attention: `BahdanauAttention`, `LuongAttention` or None.
        input_feeding: bool, whether the cell reads what the attention found.
        return_state: bool, whether to return the state after the last step.
        kernel_initializer: initializer of `kernel` `(M + W, W)`, that is `W_c`.
        kernel_regularizer: regularizer of `kernel`.

    Call arguments:
        x: float tensor `(B, T, F)`, such as embedded target tokens.
        memory: float tensor `(B, S, M)`, the encoder's output; with an attention only.
        memory_mask: bool tensor `(B, S)`, false at source steps to hide; by default the
            mask that `memory` carries.
        initial_state: list of states as the cell's own, such as the last states of an
            encoder; zeros if None.
        mask: bool tensor `(B, T)`, false at target steps to leave out; by default the
            mask that `x` carries.
        training: bool, whether the cell drops anything.
        return_attention_scores: bool, whether to return alpha.

    Returns:
        `y` `(B, T, W)`; with `return_state` followed by the state as `step` takes it, a
        list of the cell's states, in their own dtypes, and the last `y`; with
        `return_attention_scores` followed by alpha `(B, T, S)`, float32.

    Raises:
        ValueError: if an argument is wrong, `memory` is missing with an attention or
            given without one, or a tensor has another shape.

    Masking: a masked step repeats the output before it (0 at the start), keeps the state,
        and has alpha 0. The mask is passed on. A row that hides all of its memory gets
        context 0.

    References:
        - Bahdanau, Cho & Bengio 2015, Neural machine translation by jointly learning to
          align and translate, arXiv:1409.0473, eqs. 4 and 5; `y` stands for the maxout
          layer over state and context.
        - Luong, Pham & Manning 2015, Effective approaches to attention-based neural
          machine translation, arXiv:1508.04025, eq. 5 (`y`), section 3.3 (feeding).
    """

    def __init__(
        self,
        cell,
        attention,
        input_feeding=True,
        return_state=False,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # states keep their own dtype
        self.cell = cell
        self.attention = attention
        if not hasattr(cell, "state_size"):
            raise ValueError(f"`cell` must be a Keras RNN cell. Received: {cell}")
        if not isinstance(attention, (BahdanauAttention, LuongAttention, type(None))):
            raise ValueError(
                "`attention` must be a BahdanauAttention, a LuongAttention or None."
                f" Received: {attention}"
            )
        self.input_feeding = input_feeding
        self.return_state = return_state
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.width = keras.layers.RNN(cell).compute_output_shape((None, 1, 1))[-1]
        self.asks_first = isinstance(attention, BahdanauAttention)
        self.supports_masking = True

    def build(self, x_shape, memory_shape=None):
        self._check(x_shape, memory_shape)
        batch, _, reads = x_shape
        if self.attention is not None:
            depth = memory_shape[-1]
            if not self.attention.built:
                self.attention.build((batch, self.width), memory_shape)
            self.kernel = self.add_weight(
                shape=(depth + self.width, self.width),
                initializer=self.kernel_initializer,
                regularizer=self.kernel_regularizer,
                name="kernel",
            )
            if self.input_feeding:
                reads += depth if self.asks_first else self.width
        self.cell_features = reads
        if not self.cell.built:
            self.cell.build((batch, reads))

    def call(
        self,
        x,
        memory=None,
        memory_mask=None,
        initial_state=None,
        mask=None,
        training=False,
        return_attention_scores=False,
    ):
        # Keras fills `mask` only where `x` is the one tensor that is given.
        mask = backend.get_keras_mask(x) if mask is None else mask
        self._check(x.shape, None if memory is None else memory.shape)
        one_query.check_mask("mask", mask, x.shape)
        source = None
        if self.attention is not None:
            memory = ops.cast(memory, self.compute_dtype)
            source = memory, self.attention.project(memory), memory_mask
        elif return_attention_scores:
            raise ValueError(
                "`return_attention_scores` must be False without an attention."
                f" Received: {return_attention_scores}"
            )
        state = self.initial(ops.shape(x)[0], initial_state)
        loop = keras.layers.RNN(self.cell)
        if training:  # one draw for all steps; the loop is traced and cannot draw
            first = ops.zeros((ops.shape(x)[0], self.cell_features), self.compute_dtype)
            loop._maybe_config_dropout_masks(self.cell, first, state[0])
        found, state = self._loop(x, state, source, mask, return_attention_scores)
        loop._maybe_reset_dropout_masks(self.cell)
        y, *alpha = found
        kept = [state] if self.return_state else []
        return (y, *kept, *alpha) if kept or alpha else y

    def initial(self, batch, initial_state=None):
        """Returns the state before the first step: the cell's states, and `y_0 = 0`.

        Args:
            batch: int or scalar tensor `B`.
            initial_state: list of the cell's states, float tensors; zeros if None.

        Raises:
            ValueError: if the states are not as many and as wide as the cell's.
        """
        states = keras.layers.RNN(self.cell).get_initial_state(batch)  # zeros
        if initial_state is not None:
            zeros, given = tree.flatten(states), tree.flatten(initial_state)
            widths = [zero.shape[-1] for zero in zeros]
            if [tuple(one.shape[1:]) for one in given] != [(width,) for width in widths]:
                raise ValueError(
                    f"`initial_state` must be {len(widths)} states (batch, units) with"
                    f" units {widths}. Received: {[tuple(one.shape) for one in given]}"
                )
            states = tree.pack_sequence_as(states, list(map(_like, given, zeros)))
        return [states, ops.zeros((batch, self.width), dtype=self.compute_dtype)]

    def step(self, x, state, memory=None, keys=None, memory_mask=None):
        """Returns what a call computes for one target step, without dropout.

        Args:
            x: float tensor `(B, F)`.
            state: what `initial`, a call with `return_state` or the step before returned.
            memory: float tensor `(B, S, M)`; with an attention only.
            keys: what `attention.project(memory)` returned; computed if None.
            memory_mask: bool tensor `(B, S)`, false at source steps to hide.

        Returns:
            `y` `(B, W)`, the new state, and alpha `(B, S)`; None without an attention.
        """
        source = None
        if self.attention is not None:
            source = ops.cast(memory, self.compute_dtype), keys, memory_mask
        return self._advance(ops.cast(x, self.compute_dtype), state, source)

    def _advance(self, x, state, source):
        """Returns `y`, the new state and alpha after a step."""
        states, y = state
        alpha = None
        if self.asks_first:
            context, alpha = self._ask(_output_of(self.cell, states), source)
            h, states = self._read(x, context, states)
        elif self.attention is not None:
            h, states = self._read(x, y, states)
            context, alpha = self._ask(h, source)
        else:
            h, states = self._read(x, None, states)
        y = h if alpha is None else self._join(context, h)
        new = tree.flatten([states, y])
        new = [_like(one, old) for one, old in zip(new, tree.flatten(state), strict=True)]
        return y, tree.pack_sequence_as(state, new), alpha

    def _ask(self, query, source):
        """Returns the context `(B, M)` and alpha `(B, S)` of a query `(B, W)`."""
        memory, keys, memory_mask = source
        context, alpha = self.attention(query, memory, memory_mask=memory_mask, keys=keys)
        return ops.cast(context, self.compute_dtype), alpha

    def _read(self, x, fed, states):
        """Returns the cell's output `(B, W)` and its new states."""
        if fed is not None and self.input_feeding:
            x = ops.concatenate([x, fed], axis=-1)
        h, states = self.cell(x, states)  # it trains if this layer's call does
        return ops.cast(h, self.compute_dtype), states

    def _join(self, context, h):
        """Returns `y` `(B, W)`."""
        both = ops.concatenate([context, h], axis=-1)  # (B, M + W)
        return ops.tanh(ops.matmul(both, ops.cast(self.kernel, self.compute_dtype)))

    def _loop(self, x, state, source, mask, scores):
        """Returns `[y]`, with alpha if wanted, over all steps, and the last state."""
        batch, steps, features = ops.shape(x)
        x = ops.cast(x, self.compute_dtype)
        if mask is not None:  # one more feature: Keras' loop takes one tensor
            counts = ops.expand_dims(ops.cast(mask, x.dtype), -1)
            x = ops.concatenate([x, counts], axis=-1)  # (B, T, F + 1)

        def step(inputs, flat):
            before = tree.pack_sequence_as(state, list(flat))
            y, new, alpha = self._advance(inputs[:, :features], before, source)
            new = tree.flatten(new)
            if mask is not None:
                counts = inputs[:, features:] > 0  # (B, 1)
                new = [ops.where(counts, a, b) for a, b in zip(new, flat, strict=True)]
                y = new[-1]
                alpha = ops.where(counts, alpha, 0.0) if scores else None
            return [y, alpha] if scores else [y], new

        _, found, last = backend.rnn(step, x, tree.flatten(state))
        # Keras' loop forgets how many steps there are, where that is known.
        found = [ops.reshape(one, (batch, steps, ops.shape(one)[-1])) for one in found]
        return found, tree.pack_sequence_as(state, list(last))

    def _check(self, x_shape, memory_shape):
        """Raises a ValueError if `x` or `memory` cannot be used."""
        one_query.check_axes("x", x_shape, "batch", "target steps", "features")
        if (memory_shape is None) != (self.attention is None):
            raise ValueError(
                "`memory` must be given with an attention, and not without one."
                f" Received: {memory_shape}"
            )
        if self.attention is not None:
            one_query.check_memory(memory_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.cell),
            "attention": keras.saving.serialize_keras_object(self.attention),
            "input_feeding": self.input_feeding,
            "return_state": self.return_state,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    @classmethod
    def from_config(cls, config):
        parts = ("cell", "attention")
        made = {k: keras.saving.deserialize_keras_object(config[k]) for k in parts}
        return cls(**{**config, **made})


def _output_of(cell, states):
    """Returns the output of the step before, the first of a cell's states."""
    stacked = isinstance(cell, keras.layers.StackedRNNCells)
    return tree.flatten(states[-1] if stacked else states)[0]


def _like(new, old):
    """Returns `new` with the dtype and the known sizes of `old`."""
    return ops.cast(ops.reshape(new, ops.shape(old)), old.dtype)
