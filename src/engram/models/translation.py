"""What all models of translation share: their loss, and how they translate."""

import math

import keras
from keras import ops

from engram.layers.attention import decoding

PAD = 0  # the id of no piece, in every vocabulary


class Translator(keras.Model):
    """A model that reads a source sentence and tells a target sentence piece by piece.

        logits = model((source, shifted))        (B, T, V), all at once, for training
        memory = encode(source), state = first(memory, T)
        logits, state = step(y_t, state, memory, t)        (B, V), one after the other

    The two ways give the same logits.

    Args:
        source_pieces: int, size of the source vocabulary.
        target_pieces: int, size `V` of the target vocabulary.
        shared: bool, whether both languages have one vocabulary, and so one embedding.
        start: int, id of the piece before the first one of a sentence.
        end: int, id of the piece after the last one.
        width: int, size `F` of an embedded piece.
        beam: int, how many hypotheses a search keeps; 1 takes the likeliest piece.
        length_penalty: float, at least 0, exponent of a hypothesis' length in the search.

    Raises:
        ValueError: if one vocabulary has two sizes.
    """

    def __init__(
        self,
        source_pieces,
        target_pieces,
        shared,
        start,
        end,
        width,
        beam=1,
        length_penalty=0.6,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if shared and source_pieces != target_pieces:
            raise ValueError(
                "`shared` needs `source_pieces` equal to `target_pieces`."
                f" Received: {source_pieces} and {target_pieces}"
            )
        self.source_pieces, self.target_pieces = source_pieces, target_pieces
        self.shared, self.start, self.end = shared, start, end
        self.width, self.beam, self.length_penalty = width, beam, length_penalty

        def embedding(pieces, name):
            normal = keras.initializers.RandomNormal(stddev=width**-0.5)
            return keras.layers.ReversibleEmbedding(
                pieces, width, embeddings_initializer=normal, name=name
            )

        self.target_embedding = embedding(target_pieces, "target_embedding")
        self.source_embedding = self.target_embedding
        if not shared:
            self.source_embedding = embedding(source_pieces, "source_embedding")
        self._searches = {}  # traced, by length

    def build(self, input_shape=None):
        tokens = keras.KerasTensor((None, None), "int32")
        keras.Operation.compute_output_spec(self, (tokens, tokens))  # builds the layers
        self.built = True

    def embedded(self, embedding, tokens):
        """Returns `sqrt(F) E[tokens]`, of variance 1 at the start, `(B, T, F)`."""
        return embedding(tokens) * math.sqrt(self.width)

    def logits(self, h):
        """Returns `h E^T`, `(..., F)` to `(..., V)`: in- and output share a matrix."""
        return self.target_embedding(h, reverse=True)

    def encode(self, source):
        """Returns all that `step` needs to know of the source `(B, S)`."""
        raise NotImplementedError

    def first(self, memory, length):
        """Returns the state before the first of at most `length` steps."""
        raise NotImplementedError

    def step(self, tokens, state, memory, index):
        """Returns logits `(B, V)` after `tokens` `(B,)` at place `index`, and a state."""
        raise NotImplementedError

    def alignments(self, source, shifted):
        """Returns the alpha of each cross-attention by its name, `(B, H, T, S)`."""
        raise NotImplementedError

    def translate(self, source, length):
        """Returns the translations of `source` `(B, S)`, integers `(B, length)`.

        A row ends with `end`, or at `length`, and is padded with zeros.

        Args:
            source: integers, padded with zeros.
            length: int, the most pieces that a translation may have.
        """
        import tensorflow as tf

        if length not in self._searches:

            def search(source):
                return self._searched(source, length)

            sentences = tf.TensorSpec((None, None), tf.int32)
            self._searches[length] = tf.function(search, [sentences])
        return ops.convert_to_numpy(self._searches[length](source))

    def _searched(self, source, length):
        memory = self.encode(source)
        given = (self.step, self.first(memory, length), memory)
        first = ops.full((ops.shape(source)[0],), self.start, dtype="int32")
        bounds = {"first": first, "length": length, "end": self.end}
        if self.beam == 1:
            return decoding.greedy(*given, **bounds)[0]
        found, _ = decoding.beam(
            *given, **bounds, width=self.beam, length_penalty=self.length_penalty
        )
        return found[:, 0]

    def get_config(self):
        names = "source_pieces target_pieces shared start end width beam length_penalty"
        return {**super().get_config(), **{n: getattr(self, n) for n in names.split()}}


def sizes(spec):
    """Returns the arguments of a `Translator` that a dataset's `spec.json` fixes."""
    return {
        "source_pieces": spec["source_pieces"],
        "target_pieces": spec["target_pieces"],
        "shared": spec["vocabulary"] == "shared",
        "start": spec["start"],
        "end": spec["end"],
    }


def compiled(model, learning_rate, smoothing):
    """Returns the model, built, with Adam and the smoothed cross-entropy.

    Args:
        model: a `Translator`.
        learning_rate: float or schedule.
        smoothing: float in [0, 1), see `SmoothedCrossEntropy`.
    """
    model.build()
    adam = keras.optimizers.Adam(
        learning_rate,
        beta_2=0.98,  # this and epsilon: Vaswani et al. 2017, section 5.3
        epsilon=1e-9,
        global_clipnorm=1.0,  # recurrent nets have a few gradients that are very long
    )
    model.compile(optimizer=adam, loss=SmoothedCrossEntropy(smoothing))
    return model


@keras.saving.register_keras_serializable(package="engram")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy with a share of the target's mass spread over the vocabulary.

        loss = -sum_v q_v log p_v,    q = (1 - e) [v = y] + e / V
             = logsumexp(z) - (1 - e) z_y - e mean(z)

        d loss / dz = p - q

    in nats a piece, averaged over the pieces that count. The second form needs no array
    of `q`.

    Args:
        smoothing: float `e` in [0, 1).

    Raises:
        ValueError: if `smoothing` lies outside.

    Reference:
        - Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision,
          section 7, arXiv:1512.00567
    """

    def __init__(self, smoothing=0.0, name="cross_entropy", **kwargs):
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        super().__init__(name=name, **kwargs)
        if not 0 <= smoothing < 1:
            raise ValueError(f"`smoothing` must be in [0, 1). Received: {smoothing}")
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        y = ops.expand_dims(ops.cast(y_true, "int32"), -1)  # (B, T, 1)
        e = self.smoothing

        @ops.custom_gradient  # passes over `z` are what it costs, and `p` is kept
        def cross_entropy(z):
            highest = ops.max(z, axis=-1, keepdims=True)  # (B, T, 1)
            p = ops.exp(z - highest)  # (B, T, V), times the sum below
            total = ops.sum(p, axis=-1, keepdims=True)
            told = ops.take_along_axis(z, y, axis=-1)
            loss = ops.log(total) + highest
            loss = loss - (1 - e) * told - e * ops.mean(z, axis=-1, keepdims=True)

            def gradient(*args, upstream=None):
                (upstream,) = args if upstream is None else (upstream,)
                upstream, size = upstream[..., None], z.shape[-1]
                change = p * (upstream / total) - upstream * (e / size)
                told = change - (1 - e) * upstream
                return ops.where(ops.arange(size) == y, told, change)

            return loss[..., 0], gradient

        return cross_entropy(ops.cast(y_pred, "float32"))

    def get_config(self):
        return {**super().get_config(), "smoothing": self.smoothing}
