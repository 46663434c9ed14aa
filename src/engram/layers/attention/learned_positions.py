"""LearnedPositions: adds a learned row that tells the position of each step."""

import keras

from engram.layers.attention.multi_head import check_positive
from engram.layers.attention.positions import rows


@keras.saving.register_keras_serializable(package="engram")
class LearnedPositions(keras.layers.Layer):
    """Adds a learned row to each step, that of its position: `y_t = x_t + E_t`.

    Args:
        longest: int, how many positions there are.
        embeddings_initializer: initializer of the rows `E` `(longest, F)`.

    Call arguments:
        x: float tensor `(B, T, F)`.
        start: int or int tensor without axes, the position of the first step: 0, or where
            a sequence goes on.

    Returns:
        `y` `(B, T, F)`.

    Raises:
        ValueError: if `longest` is not a positive integer, or it is known that `x` has
            more steps than there are positions.

    Masking: the mask is passed on; steps that do not count are counted as positions.

    Reference:
        - Gehring et al. 2017, Convolutional sequence to sequence learning, section 3.1,
          https://arxiv.org/abs/1705.03122
    """

    def __init__(self, longest, embeddings_initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        check_positive("longest", longest)
        self.longest = longest
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, x_shape):
        self.embeddings = self.add_weight(
            shape=(self.longest, x_shape[-1]),
            initializer=self.embeddings_initializer,
            name="embeddings",
        )

    def call(self, x, start=0):
        return x + rows(self.embeddings, x, start)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {
            **super().get_config(),
            "longest": self.longest,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }
