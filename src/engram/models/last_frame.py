"""Last frame: the next frame is the one just seen."""

import keras

from engram.models import video


@keras.saving.register_keras_serializable(package="engram")
class LastFrame(keras.Model):
    """`frame_{t+1} = frame_t`: nothing is trained, a fit measures the loss alone."""

    def solve(self):
        """Sets nothing: there are no weights."""

    def train_step(self, data):
        return self.test_step(data)


def build(spec, learning_rate):
    """Returns the model; it has no weights, and `learning_rate` is not used."""
    frames = video.inputs(spec)
    return video.compile_predictor(LastFrame(frames, frames), learning_rate)
