"""What all generators share: the game against a discriminator that teaches them.

Shapes: `B` points, `...` those of a point: `D` numbers, or `H, W, F` of an image.
"""

from typing import Any

import keras
import tensorflow as tf

GAMES = ("minimax", "nonsaturating")
SEEN = "loss", "discriminator", "real", "fake"  # of each step
CLOSEST = 1e-6  # of points, in their distance
HELD = 4096  # rows of noise that held points are compared by
AT_ONCE = 2500  # points that are generated in one batch


@keras.saving.register_keras_serializable(package="engram")
class Gan(keras.Model):
    """Two nets: one makes points of noise, the other tells them from real ones.

        z    ~ N(0, 1)                                                        (B, Z)
        L_D  = -mean log D(x) - mean log(1 - D(G(z))) + penalty / 2 mean |dl/dx|^2
        L_G  = mean log(1 - D(G(z)))      minimax
               -mean log D(G(z))          nonsaturating
        W   <- average W + (1 - average) W_G     what the model itself makes points with

    with `D` the sigmoid of the discriminator's logit `l`. A pack is `packing` points side
    by side, all real or all made, about which the discriminator gives one answer: so it
    sees whether they are too much alike. A step of training is `d_steps` steps of the
    discriminator, each on its share of the batch, then one of the generator.

    Noise is drawn from `seed`, the step and the place in the batch. So training is the
    same on however many devices, and after a stop; held points are measured by each
    device's share. Batch norm of the generator must be synchronized, for a batch is whole
    in its eyes then.

    Args:
        generator: net from `(B, Z)` to points `(B, ...)`.
        discriminator: net from packs `(B, packing D)`, or of images
            `(B, H, W, packing F)`, to logits `(B, 1)`.
        game: `"minimax"` or `"nonsaturating"`.
        packing: int, points of a pack.
        d_steps: int, steps of the discriminator for one of the generator.
        average: share in [0, 1) of the averaged weights that a step leaves as it is; 0
            for the generator's own.
        penalty: float, of the slope of the logits at real points.
        seed: int, of the noise.
        **kwargs: of a Keras model.

    Call arguments:
        z: float tensor `(B, Z)`.

    Returns:
        Points `(B, ...)`, made with the averaged weights.

    Raises:
        ValueError: if `game` is another word, or a number is none of these.

    References:
        - Goodfellow et al. 2014, Generative adversarial nets, eq. 1, arXiv:1406.2661.
        - Lin et al. 2018, PacGAN, arXiv:1712.04086.
        - Mescheder et al. 2018, Which training methods for GANs do actually converge,
          eq. 9 (the penalty, R1), arXiv:1801.04406.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        game: str,
        packing: int = 1,
        d_steps: int = 1,
        average: float = 0.0,
        penalty: float = 0.0,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if game not in GAMES:
            raise ValueError(f"`game` must be one of {GAMES}. Received: {game!r}")
        for name, count in {"packing": packing, "d_steps": d_steps}.items():
            if count < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {count}")
        if not 0 <= average < 1:
            raise ValueError(f"`average` must be from 0 to below 1. Received: {average}")
        if penalty < 0:
            raise ValueError(f"`penalty` must not be negative. Received: {penalty}")
        self.generator, self.discriminator = generator, discriminator
        self.game, self.packing, self.d_steps = game, packing, d_steps
        self.average, self.penalty, self.seed = average, penalty, seed
        self.batch = 0  # points of a batch on all devices, once `fit` knows
        self.averaged = [
            self.add_weight(
                shape=weight.shape,
                initializer="zeros",
                trainable=False,
                name=f"average_{n}",
            )
            for n, weight in enumerate(self._own() if average else [])
        ]
        for mean, weight in zip(self.averaged, self._own(), strict=False):
            mean.assign(weight)
        self.means = {name: keras.metrics.Mean(name) for name in SEEN}
        self.built = True

    def _own(self) -> list[keras.Variable]:
        return [
            *self.generator.trainable_variables,
            *self.generator.non_trainable_variables,
        ]

    @property
    def metrics(self):
        return list(self.means.values())

    def compile(self, optimizer: keras.Optimizer, **kwargs):
        """Takes the generator's optimizer; the discriminator has one like it.

        Args:
            optimizer: with its learning rate, a float or a schedule over steps.
            **kwargs: of a Keras model's `compile`, without a loss.
        """
        if self.distribute_strategy.num_replicas_in_sync > 1:
            # TensorFlow 2.21 fails where replicas meet within Keras' loop over steps.
            kwargs["steps_per_execution"] = 1
        super().compile(optimizer=optimizer, **kwargs)
        config = optimizer.get_config()
        if self.d_steps > 1 and isinstance(config["learning_rate"], dict):
            config["learning_rate"] = Slowed(optimizer._learning_rate, self.d_steps)
        self.d_optimizer = type(optimizer).from_config(config)
        # Keras would build the first one for the weights of both nets.
        self.optimizer.build(self.generator.trainable_variables)
        self.d_optimizer.build(self.discriminator.trainable_variables)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def count_params(self):
        """Returns the numbers of both nets; means of weights are no others."""
        return self.generator.count_params() + self.discriminator.count_params()

    def fit(self, x: tf.data.Dataset, validation_data=None, **kwargs):
        """Trains on batches `(point, place)`, as `tasks.generation.batches` gives them.

        Raises:
            ValueError: if batches are of no fixed size, or a device's share is no whole
                number of packs for each step of the discriminator.
        """
        replicas = self.distribute_strategy.num_replicas_in_sync
        size = _size(x, replicas * self.d_steps * self.packing)
        if validation_data is not None:
            _size(validation_data, replicas * self.packing)
        if size != self.batch:
            self.batch, self.train_function = size, None  # traced with this number
        return super().fit(x, validation_data=validation_data, **kwargs)

    def call(self, z, training=None):
        if not self.averaged:
            return self.generator(z, training=False)
        count = len(self.generator.trainable_variables)
        learned, counted = self.averaged[:count], self.averaged[count:]
        made, _ = self.generator.stateless_call(learned, counted, z, training=False)
        return made

    def train_step(self, data):
        point, place = data
        for n in range(self.d_steps):
            share = slice(n, None, self.d_steps)
            seen = self._teach_discriminator(point[share], place[share], n)
        loss = self._teach_generator(place)
        for mean, weight in zip(self.averaged, self._own(), strict=False):
            mean.assign(self.average * mean + (1 - self.average) * weight)
        return self._record(point, loss, *seen)

    def test_step(self, data):
        """Measures the distance of made points from held ones, which is `loss` here."""
        point, place = data
        made = self(tf.gather(self._drawn([self.seed + 1, 0], HELD), place % HELD))
        told = [self.discriminator(self._packs(one)) for one in (point, made)]
        seen = _discriminator_loss(*told), *(tf.sigmoid(one) for one in told)
        return self._record(point, distance(point, made), *seen)

    def generate(self, count: int, seed: int):
        """Returns points, an array `(count, ...)`, of the noise of `seed`."""
        width = self.generator.input_shape[-1]
        noise = keras.random.normal((count, width), seed=seed)
        return self.predict(noise, batch_size=min(count, AT_ONCE), verbose=0)

    def _teach_discriminator(self, point, place, n: int):
        made = self.generator(self._noise(place, n), training=True)
        real, fake = self._packs(point), self._packs(made)
        with tf.GradientTape() as tape:
            with tf.GradientTape() as slope:
                slope.watch(real)
                told = self.discriminator(real, training=True)
            guessed = self.discriminator(fake, training=True)
            loss = total = _discriminator_loss(told, guessed)
            if self.penalty:
                axes = range(1, real.shape.rank)
                steep = tf.reduce_sum(slope.gradient(told, real) ** 2, axis=list(axes))
                total += self.penalty / 2 * tf.reduce_mean(steep)
            total = self._shared(total)
        weights = self.discriminator.trainable_variables
        self.d_optimizer.apply(tape.gradient(total, weights), weights)
        return loss, tf.sigmoid(told), tf.sigmoid(guessed)

    def _teach_generator(self, place):
        noise = self._noise(place, self.d_steps)
        with tf.GradientTape() as tape:
            made = self.generator(noise, training=True)
            guessed = self.discriminator(self._packs(made), training=True)
            sign = 1.0 if self.game == "minimax" else -1.0
            loss = -sign * tf.reduce_mean(tf.nn.softplus(sign * guessed))
            shared = self._shared(loss)
        weights = self.generator.trainable_variables
        self.optimizer.apply(tape.gradient(shared, weights), weights)
        return loss

    def _noise(self, place, n: int):
        """Returns this device's share of the noise `(B, Z)` of a step's `n`-th net."""
        draw = self.optimizer.iterations * (self.d_steps + 1) + n
        return tf.gather(self._drawn([self.seed, draw], self.batch), place % self.batch)

    def _drawn(self, seed, count: int):
        shape = count, self.generator.input_shape[-1]
        pair = tf.stack([tf.cast(one, tf.int64) for one in seed])
        # XLA's own algorithm is 150 times slower on a CPU
        return tf.random.stateless_normal(shape, pair, alg="philox")

    def _packs(self, points):
        """Returns `(B / packing, ..., packing F)`: the last axes side by side."""
        *places, numbers = points.shape[1:]
        apart = tf.reshape(points, (-1, self.packing, *places, numbers))
        beside = tf.experimental.numpy.moveaxis(apart, 1, -2)
        return tf.reshape(beside, (-1, *places, self.packing * numbers))

    def _shared(self, loss):  # gradients are summed over devices
        return loss / self.distribute_strategy.num_replicas_in_sync

    def _record(self, point, *seen) -> dict[str, Any]:
        """Adds what is `SEEN` of a batch to the means of the epoch, which it returns."""
        for mean, value in zip(self.means.values(), seen, strict=True):
            mean.update_state(tf.reduce_mean(value), sample_weight=tf.shape(point)[0])
        return {name: mean.result() for name, mean in self.means.items()}

    def get_config(self):
        nets = {"generator": self.generator, "discriminator": self.discriminator}
        own = "game", "packing", "d_steps", "average", "penalty", "seed"
        return {
            "name": self.name,
            **{k: keras.saving.serialize_keras_object(net) for k, net in nets.items()},
            **{key: getattr(self, key) for key in own},
        }

    @classmethod
    def from_config(cls, config):
        nets = ("generator", "discriminator")
        made = {k: keras.saving.deserialize_keras_object(config[k]) for k in nets}
        return cls(**{**config, **made})


@keras.saving.register_keras_serializable(package="engram")
class Slowed(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, each of whose steps is taken `times` times.

    Args:
        schedule: a schedule.
        times: int, at least 1.
    """

    def __init__(self, schedule, times: int):
        super().__init__()
        self.schedule, self.times = schedule, times

    def __call__(self, step):
        return self.schedule(step // self.times)

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "times": self.times}

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["times"])


def _size(data: tf.data.Dataset, parts: int) -> int:
    """Returns the points of a batch, a multiple of `parts`."""
    size = data.element_spec[0].shape[0]
    if size is None:
        raise ValueError(
            "batches must be of a fixed size, as `data.batch(64, drop_remainder=True)`"
            f" makes them. Received: {data.element_spec}"
        )
    if size % parts:
        raise ValueError(
            f"a batch must be a multiple of {parts}, devices times `packing` (times"
            f" `d_steps` in training). Received: {size} points"
        )
    return size


def distance(one, other):
    """Returns the distance of two sets of points `(B, ...)`.

    It is that of `tasks.generation_metrics`.
    """
    one, other = (tf.reshape(x, (tf.shape(x)[0], -1)) for x in (one, other))

    def mean(a, b, alike: bool):
        gaps = tf.norm(a[:, None] - b, axis=-1)
        if alike:  # a point is no pair with itself
            gaps = tf.linalg.set_diag(gaps, tf.ones_like(gaps[0]))
        logs = tf.reduce_sum(tf.math.log(tf.maximum(gaps, CLOSEST)))
        count = tf.cast(tf.shape(gaps)[0], logs.dtype)
        return logs / (count * (count - 1 if alike else count))

    return 2 * mean(one, other, False) - mean(one, one, True) - mean(other, other, True)


def _discriminator_loss(told, guessed):
    """Returns the loss of logits of real and of made packs, `(B, 1)` each."""
    return tf.reduce_mean(tf.nn.softplus(-told)) + tf.reduce_mean(tf.nn.softplus(guessed))
