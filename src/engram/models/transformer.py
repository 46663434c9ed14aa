"""Transformer: an encoder that looks at itself, a decoder that looks at the encoder."""

import keras
from keras import ops

from engram.layers.attention.sinusoidal_positions import SinusoidalPositions
from engram.layers.attention.transformer_decoder_block import TransformerDecoderBlock
from engram.layers.attention.transformer_encoder_block import TransformerEncoderBlock
from engram.models import translation
from engram.models.translation import PAD, Translator


def build(
    spec,
    learning_rate,
    depth,
    width,
    heads,
    feedforward,
    norm,
    dropout,
    smoothing,
    beam,
    length_penalty,
):
    """Returns the compiled model.

    Args:
        spec: contents of `spec.json`.
        learning_rate: float or schedule.
        depth: int, blocks of the encoder, and as many of the decoder.
        width: int, size `F` of a piece in all blocks.
        heads: int, heads `H` of each attention; must divide `width`.
        feedforward: int, units between the two maps after each attention.
        norm: `"post"` or `"pre"`, layer normalisation after each sum or before each part.
        dropout: float in [0, 1), of embeddings and of what each part adds.
        smoothing: float in [0, 1), of the loss.
        beam: int, hypotheses that a search keeps.
        length_penalty: float, exponent of a hypothesis' length in the search.
    """
    model = Transformer(
        depth=depth,
        width=width,
        heads=heads,
        feedforward=feedforward,
        norm=norm,
        dropout=dropout,
        beam=beam,
        length_penalty=length_penalty,
        **translation.sizes(spec),
    )
    return translation.compiled(model, learning_rate, smoothing)


@keras.saving.register_keras_serializable(package="engram")
class Transformer(Translator):
    """Encoder and decoder of attention alone.

        h = dropout(sqrt(F) E[source] + positions);  h = block(h), layer after layer
        y = dropout(sqrt(F) E[shifted] + positions);  y = block(y, h), layer after layer
        logits = y E^T

    Args:
        depth: int, blocks of encoder and of decoder.
        heads: int, heads of each attention.
        feedforward: int, units between the two maps after each attention.
        norm: `"post"` or `"pre"`.
        dropout: float in [0, 1).
        **kwargs: of `Translator`.

    Reference:
        - Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762
    """

    def __init__(self, depth, heads, feedforward, norm="post", dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.depth, self.heads, self.feedforward = depth, heads, feedforward
        self.norm, self.dropout = norm, dropout
        form = {"norm": norm, "dropout": dropout}
        self.positions = SinusoidalPositions(name="positions")
        self.drop = keras.layers.Dropout(dropout)
        self.encoder = [
            TransformerEncoderBlock(heads, feedforward, **form, name=f"encoder_{k}")
            for k in range(1, depth + 1)
        ]
        self.decoder = [
            TransformerDecoderBlock(heads, feedforward, **form, name=f"decoder_{k}")
            for k in range(1, depth + 1)
        ]
        if norm == "pre":  # what the last block adds up is not normalised yet
            self.encoder_norm = keras.layers.LayerNormalization(name="encoder_norm")
            self.decoder_norm = keras.layers.LayerNormalization(name="decoder_norm")

    def call(self, inputs, training=None):
        source, shifted = inputs
        h, seen = self._encoded(source, training)
        y = self._entered(self.target_embedding, shifted, training=training)
        for block in self.decoder:
            y = block(y, h, memory_mask=seen, training=training)
        return self._told(y)

    def alignments(self, source, shifted):
        h, seen = self._encoded(source)
        y, found = self._entered(self.target_embedding, shifted), {}
        for block in self.decoder:
            y, alpha = block(y, h, memory_mask=seen, return_attention_scores=True)
            found[block.name] = alpha["cross"]
        return found

    def encode(self, source):
        h, seen = self._encoded(source)
        return {"projected": [block.project(h) for block in self.decoder], "seen": seen}

    def first(self, memory, length):
        batch = ops.shape(memory["seen"])[0]
        return [block.new_cache(batch, length) for block in self.decoder]

    def step(self, tokens, state, memory, index):
        y = self._entered(self.target_embedding, tokens[:, None], index)  # (B, 1, F)
        caches = []
        for block, cache, projected in zip(
            self.decoder, state, memory["projected"], strict=True
        ):
            y, cache = block.step(y, cache, index, projected, memory["seen"])
            caches.append(cache)
        return self._told(y)[:, 0], caches

    def _encoded(self, source, training=None):
        seen = ops.not_equal(source, PAD)  # (B, S)
        h = self._entered(self.source_embedding, source, training=training)
        for block in self.encoder:
            h = block(h, mask=seen, training=training)
        return (self.encoder_norm(h) if self.norm == "pre" else h), seen

    def _entered(self, embedding, tokens, start=0, training=None):
        x = self.positions(self.embedded(embedding, tokens), start=start)
        return self.drop(x, training=training)

    def _told(self, y):
        return self.logits(self.decoder_norm(y) if self.norm == "pre" else y)

    def get_config(self):
        return {
            **super().get_config(),
            "depth": self.depth,
            "heads": self.heads,
            "feedforward": self.feedforward,
            "norm": self.norm,
            "dropout": self.dropout,
        }
