"""Recurrent encoder and decoder, with or without attention between them."""

import keras
from keras import ops

from engram.layers.attention.attention_rnn import AttentionRNN
from engram.layers.attention.bahdanau_attention import BahdanauAttention
from engram.layers.attention.luong_attention import LuongAttention
from engram.models import translation
from engram.models.translation import PAD, Translator

CELLS = ("simple_rnn", "gru", "lstm", "stlm")


def build(
    spec,
    learning_rate,
    cell,
    attention,
    units,
    width,
    dropout,
    own_words,
    smoothing,
    beam,
    length_penalty,
):
    """Returns the compiled model.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        cell: `"simple_rnn"`, `"gru"`, `"lstm"` or `"stlm"`.
        attention: `"none"`, `"bahdanau"` or `"luong"` (its general score).
        units: int, units `U` of the decoder's cell and of each direction of the encoder.
        width: int, size `F` of a piece.
        dropout: float in [0, 1), of embeddings and outputs.
        own_words: float in [0, 1), share of the decoder's inputs in training that are
            its own guesses and not the true pieces.
        smoothing: float in [0, 1), of the loss.
        beam: int, hypotheses that a search keeps.
        length_penalty: float, exponent of a hypothesis' length in the search.
    """
    model = Seq2Seq(
        cell=cell,
        attention=attention,
        units=units,
        width=width,
        dropout=dropout,
        own_words=own_words,
        beam=beam,
        length_penalty=length_penalty,
        **translation.sizes(spec),
    )
    return translation.compiled(model, learning_rate, smoothing)


@keras.saving.register_keras_serializable(package="engram")
class Seq2Seq(Translator):
    """A recurrent net reads the source both ways, another tells the target.

        m_1 .. m_S  = [forwards(E x); backwards(E x)]                (B, S, 2U)
        s_0         = tanh(W m + b) of the two last states, one map for each state
        h_1 .. h_T  = AttentionRNN(E shifted; s_0, m)
        logits      = tanh(h W_h + b_h) E^T

    Args:
        cell: a word of `CELLS`.
        attention: `"none"`, `"bahdanau"` or `"luong"`.
        units: int, units `U` of the cells.
        dropout: float in [0, 1).
        own_words: float in [0, 1). In training the decoder runs twice: what it guesses
            after the true pieces takes their place, each with this probability, and the
            second run is the one that learns (Mihaylova & Martins 2019, section 3).
        **kwargs: of `Translator`.

    Raises:
        ValueError: if `cell` or `attention` is another word.

    Reference:
        - Bahdanau, Cho & Bengio 2015, arXiv:1409.0473
        - Luong, Pham & Manning 2015, arXiv:1508.04025
        - Bengio et al. 2015, Scheduled Sampling, arXiv:1506.03099
        - Mihaylova & Martins 2019, Scheduled Sampling for Transformers, arXiv:1906.07651
    """

    def __init__(self, cell, attention, units, dropout=0.0, own_words=0.0, **kwargs):
        super().__init__(**kwargs)
        if cell not in CELLS:
            raise ValueError(f"`cell` must be one of {CELLS}. Received: {cell!r}")
        looks = {
            "none": lambda: None,
            "bahdanau": lambda: BahdanauAttention(units, name="attention"),
            "luong": lambda: LuongAttention("general", name="attention"),
        }
        if attention not in looks:
            raise ValueError(
                f"`attention` must be one of {list(looks)}. Received: {attention!r}"
            )
        self.cell, self.attention, self.units = cell, attention, units
        self.dropout, self.own_words = dropout, own_words
        layer, step = _layer_and_cell(cell)
        self.encoder = keras.layers.Bidirectional(
            layer(units, return_sequences=True, return_state=True), name="encoder"
        )
        self.decoder = AttentionRNN(step(units), looks[attention](), name="decoder")
        self.starts = [
            keras.layers.Dense(size, "tanh", name=f"start_{k}")
            for k, size in enumerate(keras.tree.flatten(self.decoder.cell.state_size))
        ]
        self.told = keras.layers.Dense(self.width, "tanh", name="told")
        self.drop = keras.layers.Dropout(dropout)
        self.seeds = keras.random.SeedGenerator()

    def call(self, inputs, training=None):
        source, shifted = inputs
        memory = self._read(source, training)
        if training and self.own_words:
            shifted = self._mixed(shifted, self._decoded(shifted, memory, training))
        return self._decoded(shifted, memory, training)

    def alignments(self, source, shifted):
        if self.attention == "none":
            return {}
        memory = self._read(source)
        x = self.embedded(self.target_embedding, shifted)
        _, alpha = self.decoder(x, **memory, return_attention_scores=True)
        return {"decoder": alpha[:, None]}  # one head

    def encode(self, source):
        memory = self._read(source)
        if self.decoder.attention is not None:
            memory["keys"] = self.decoder.attention.project(memory["memory"])
        return memory

    def first(self, memory, length):
        start = memory["initial_state"]
        return self.decoder.initial(ops.shape(start[0])[0], start)

    def step(self, tokens, state, memory, index):
        x = self.embedded(self.target_embedding, tokens)  # (B, F)
        source = (memory.get(name) for name in ("memory", "keys", "memory_mask"))
        h, state, _ = self.decoder.step(x, state, *source)
        return self._tell(h), state

    def _read(self, source, training=None):
        """Returns the decoder's arguments: the source's memory, its mask, the start."""
        seen = ops.not_equal(source, PAD)  # (B, S)
        x = self.drop(self.embedded(self.source_embedding, source), training=training)
        memory, *states = self.encoder(x, mask=seen, training=training)
        half = len(states) // 2
        pairs = zip(states[:half], states[half:], strict=True)
        start = [
            dense(ops.concatenate(pair, axis=-1))
            for dense, pair in zip(self.starts, pairs, strict=True)
        ]
        found = {"initial_state": start}
        if self.attention != "none":
            found |= {"memory": memory, "memory_mask": seen}
        return found

    def _decoded(self, shifted, memory, training):
        x = self.drop(self.embedded(self.target_embedding, shifted), training=training)
        h = self.decoder(x, **memory, training=training)  # (B, T, W)
        return self._tell(h, training)

    def _tell(self, h, training=None):
        return self.logits(self.drop(self.told(h), training=training))

    def _mixed(self, shifted, logits):
        """Returns `shifted` with some true pieces replaced by the guesses before them."""
        guesses = ops.cast(ops.argmax(logits[:, :-1], axis=-1), shifted.dtype)
        guesses = ops.concatenate([shifted[:, :1], guesses], axis=1)  # (B, T)
        own = keras.random.uniform(ops.shape(shifted), seed=self.seeds) < self.own_words
        return ops.where(own, guesses, shifted)

    def get_config(self):
        names = "cell attention units dropout own_words"
        return {**super().get_config(), **{n: getattr(self, n) for n in names.split()}}


def _layer_and_cell(word):
    """Returns the encoder's layer and the decoder's cell."""
    if word == "stlm":  # loaded for those who want it
        from engram.layers.stlm.stlm import STLM
        from engram.layers.stlm.stlm_cell import STLMCell

        return STLM, STLMCell
    ours = keras.layers
    return {
        "simple_rnn": (ours.SimpleRNN, ours.SimpleRNNCell),
        "gru": (ours.GRU, ours.GRUCell),
        "lstm": (ours.LSTM, ours.LSTMCell),
    }[word]
