"""Schedules: how the learning rate goes, step after step."""

import keras
from keras import ops


def schedule(
    decay: str, rate: float, steps: int, warmup: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate of each step, counted from 0.

        cosine        rate (1 + cos(pi t / steps)) / 2
        inverse_sqrt  rate sqrt(warmup / max(t + 1, warmup))

    and in the first `warmup` steps that times `(t + 1) / warmup`.

    Args:
        decay: `"cosine"` or `"inverse_sqrt"`.
        rate: float.
        steps: length of the training.
        warmup: steps over which the rate rises; 0 if it begins at its highest, which
            `inverse_sqrt` cannot.

    Raises:
        ValueError: if `decay` is another word, or has no `warmup` and needs one.
    """
    if decay == "inverse_sqrt":
        falling = InverseSquareRoot(rate, warmup)
    elif decay == "cosine":
        falling = keras.optimizers.schedules.CosineDecay(rate, steps)
    else:
        raise ValueError(
            f"`decay` must be 'cosine' or 'inverse_sqrt'. Received: {decay!r}"
        )
    return WarmedUp(falling, warmup) if warmup else falling


@keras.saving.register_keras_serializable(package="engram")
class WarmedUp(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule whose first steps are smaller.

        rate(t) = schedule(t) min(1, (t + 1) / steps)

    Args:
        schedule: the learning rate afterwards, a schedule.
        steps: int, at least 1.
    """

    def __init__(self, schedule, steps):
        super().__init__()
        self.schedule, self.steps = schedule, steps

    def __call__(self, step):
        rise = ops.minimum(1.0, (ops.cast(step, "float32") + 1) / self.steps)
        return self.schedule(step) * rise

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["steps"])


@keras.saving.register_keras_serializable(package="engram")
class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that stays for some steps and then falls with the root of their number.

        rate(t) = rate sqrt(steps / max(t + 1, steps))

    Args:
        rate: float.
        steps: int, at least 1.

    Raises:
        ValueError: if `steps` is below 1.

    Reference:
        - Vaswani et al. 2017, Attention Is All You Need, eq. 3, arXiv:1706.03762, whose
          rise is that of `WarmedUp`.
    """

    def __init__(self, rate, steps):
        super().__init__()
        if not steps >= 1:
            raise ValueError(f"`steps` must be at least 1. Received: {steps}")
        self.rate, self.steps = rate, steps

    def __call__(self, step):
        now = ops.cast(step, "float32") + 1
        return self.rate * ops.sqrt(self.steps / ops.maximum(now, self.steps))

    def get_config(self):
        return {"rate": self.rate, "steps": self.steps}
