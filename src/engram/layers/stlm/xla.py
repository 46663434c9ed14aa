"""Where XLA may compile a loop over time by itself: on TensorFlow, in a traced call."""

from keras.src import backend


def may_compile(sequences):
    """Whether TensorFlow traces the call and knows the steps of `(B, T, ...)`."""
    if backend.backend() != "tensorflow" or sequences.shape[1] is None:
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()
