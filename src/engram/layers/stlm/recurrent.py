"""What STLM layers share: states in float32, checked masks, readable memories."""

import keras
from keras import ops
from keras.src import backend  # the scope in which variables are cast

from engram.layers.stlm import memories


def of_cell(name):
    """Returns a property that reads `name` from the layer's cell."""
    return property(lambda self: getattr(self.cell, name), doc=f"`{name}` of the cell.")


class Recurrent(keras.layers.RNN):
    """A `keras.layers.RNN` over a cell with the states `h, C_s, C_l`.

    It differs from Keras' in that states stay in float32 under a mixed policy, and that a
    mask or a list of states that does not fit is refused by name.
    """

    combine = of_cell("combine")
    output_gates = of_cell("output_gates")
    short_horizon = of_cell("short_horizon")
    long_horizon = of_cell("long_horizon")
    use_bias = of_cell("use_bias")
    dropout = of_cell("dropout")
    recurrent_dropout = of_cell("recurrent_dropout")
    seed = of_cell("seed")

    def call(self, sequences, initial_state=None, mask=None, training=False):
        # Keras casts the variables of a layer that is called by itself to half precision
        # under a mixed policy, `autocast=False` or not.
        with backend.AutocastScope(None):
            return self._run(sequences, initial_state, mask, training)

    def _run(self, sequences, initial_state, mask, training):
        states = self._first_states(sequences, initial_state)
        mask = checked_mask(sequences, mask)
        sequences = ops.cast(sequences, self.compute_dtype)
        self._maybe_config_dropout_masks(self.cell, sequences[:, 0], states)
        last, outputs, states = self.inner_loop(sequences, states, mask, training)
        self._maybe_reset_dropout_masks(self.cell)
        if self.stateful:
            for kept, state in zip(self.states, states, strict=True):
                kept.assign(ops.cast(state, kept.dtype))
        output = outputs if self.return_sequences else last
        output = ops.cast(output, self.compute_dtype)
        return (output, *states) if self.return_state else output

    def memories(self, sequences, initial_state=None, mask=None):
        """Returns what both memories held after each step, `C_s` and `C_l` `(B, T, U)`.

        Takes the arguments of a call, and changes nothing: a stateful layer keeps its
        states. For plots of what each memory keeps.
        """
        sequences = ops.convert_to_tensor(sequences)
        if not self.built:
            self.build(sequences.shape)
        states = self._first_states(sequences, initial_state)
        mask = checked_mask(sequences, mask)
        reader = keras.layers.RNN(
            _Reader(self.cell),
            return_sequences=True,
            go_backwards=self.go_backwards,
            dtype=memories.memory_dtype(self.compute_dtype),
        )
        both = reader(sequences, initial_state=states, mask=mask)  # (B, T, ..., 2U)
        if mask is not None:  # Keras outputs 0 before the first step that counts
            read = ops.flip(mask, 1) if self.go_backwards else mask
            seen = ops.cumsum(ops.cast(read, "int32"), axis=1) > 0
            seen = ops.reshape(seen, (*ops.shape(seen), *[1] * (len(both.shape) - 2)))
            first = ops.expand_dims(ops.concatenate(states[1:], axis=-1), 1)
            both = ops.where(seen, both, first)
        return ops.split(both, 2, axis=-1)

    def _first_states(self, sequences, initial_state):
        if initial_state is None:
            if self.stateful:
                initial_state = self.states
            else:
                initial_state = self.zero_states(sequences)
        count = len(initial_state) if isinstance(initial_state, (list, tuple)) else 1
        if count != 3:
            raise ValueError(
                "`initial_state` must be the three states [h, C_s, C_l]."
                f" Received: {count} state(s)"
            )
        dtype = memories.memory_dtype(self.compute_dtype)
        states = [ops.cast(state, dtype) for state in initial_state]
        for name, state, shape in zip(
            ("h", "C_s", "C_l"), states, self.state_shapes(sequences.shape), strict=True
        ):
            if not _fits(state.shape, shape):
                raise ValueError(
                    f"`initial_state`: {name} must have the shape {shape}."
                    f" Received: {tuple(state.shape)}"
                )
        return states

    def zero_states(self, sequences):
        """Returns `[h, C_s, C_l]` of zeros."""
        return self.get_initial_state(ops.shape(sequences)[0])

    def state_shapes(self, sequences_shape):
        """Returns the shapes of `h`, `C_s`, `C_l`."""
        return [(sequences_shape[0], size) for size in self.cell.state_size]

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        kept = self.cell.get_config()
        for name in ("name", "trainable", "dtype"):  # the layer's own
            del kept[name]
        return {**config, **kept}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class _Reader(keras.layers.Layer):
    """A cell whose output is what both memories hold, `[C_s, C_l]` `(B, 2U)`."""

    def __init__(self, cell):
        super().__init__(dtype=memories.memory_dtype(cell.compute_dtype))
        self.cell = cell
        self.state_size = cell.state_size
        self.output_size = 2 * cell.units
        self.built = True

    def call(self, inputs, states):
        _, states = self.cell(inputs, states)
        return ops.concatenate(states[1:], axis=-1), states


def checked_mask(sequences, mask):
    """Returns `mask`, or the first of several, as booleans `(B, T)`; None if it is None.

    Raises:
        ValueError: if it has another shape.
    """
    mask = mask[0] if isinstance(mask, (list, tuple)) else mask
    if mask is None:
        return None
    wanted = tuple(sequences.shape[:2])
    if not _fits(mask.shape, wanted):
        raise ValueError(
            f"`mask` must have the shape (batch, time) = {wanted}."
            f" Received: {tuple(mask.shape)}"
        )
    return ops.cast(mask, "bool")


def _fits(found, wanted):
    """Whether two shapes agree where both are known."""
    return len(found) == len(wanted) and all(
        a is None or b is None or a == b for a, b in zip(found, wanted, strict=True)
    )
