"""RBM: a restricted Boltzmann machine as a Keras layer."""

import numbers

import keras
from keras import ops

from engram.layers.rbm import energy

VISIBLE = ("bernoulli", "gaussian")


@keras.saving.register_keras_serializable(package="engram")
class RBM(keras.layers.Layer):
    """A restricted Boltzmann machine: a density over rows, and a layer of its features.

    Visible units `v` and hidden units `h` in {0, 1} have the joint density
    `p(v, h) = e^-E(v, h) / Z` with, for Bernoulli visible units,

        E(v, h) = - (v - mu) b - (h - lambda) (c + (v - mu) W)

    and for Gaussian ones, with a learned variance for each,

        E(v, h) = |v - mu - b|^2 / (2 sigma^2) - (h - lambda) (c + ((v - mu) / sigma^2) W)

    As a layer it maps rows to what the hidden units say of them,

        p(h = 1 | v) = sigmoid(c + s(v - mu) W),     s(x) = x or x / sigma^2

    so it stands in a `Sequential` like a dense layer with a sigmoid. `fit` then trains
    `kernel` and `hidden_bias`; the other weights belong to the density alone, and
    `engram.pretraining.ContrastiveDivergence` trains all of them.

    The offsets mu and lambda centre the units; they change the parameters of a density,
    not which densities there are. `adapt` sets them, and the visible biases, from data.

    Args:
        units: int, hidden units `L`. Must be positive.
        visible: `"bernoulli"` for rows in [0, 1], or `"gaussian"` for real numbers, best
            standardised.
        kernel_initializer: initializer of `kernel` `(V, L)`; by default normal with a
            standard deviation of 0.01.
        kernel_regularizer: regularizer of `kernel` in `fit`.
        seed: int or None, seed of the kernel and of sampling.

    Call arguments:
        inputs: float tensor `(B, V)`.

    Returns:
        `p(h = 1 | v)`, float tensor `(B, L)`.

    Raises:
        ValueError: if an argument is wrong.

    Masking: none; a mask is passed on.

    References:
        - Hinton 2012, A practical guide to training restricted Boltzmann machines.
        - Melchior, Fischer & Wiskott 2016, How to center deep Boltzmann machines, JMLR
          17(99), eq. 5: the offsets.
        - Cho, Ilin & Raiko 2011, Improved learning of Gaussian-Bernoulli restricted
          Boltzmann machines, eq. 3: the variances.
    """

    def __init__(
        self,
        units,
        visible="bernoulli",
        kernel_initializer=None,
        kernel_regularizer=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(units, numbers.Integral) or units < 1:
            raise ValueError(f"`units` must be a positive integer. Received: {units}")
        if visible not in VISIBLE:
            raise ValueError(f"`visible` must be one of {VISIBLE}. Received: {visible}")
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomNormal(0.0, 0.01, seed=seed)
        self.units = int(units)
        self.visible = visible
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def build(self, input_shape):
        width = input_shape[-1]
        self.kernel = self.add_weight(
            shape=(width, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.hidden_bias = self.add_weight(
            shape=(self.units,), initializer="zeros", name="hidden_bias"
        )
        # The forward pass has no gradient for these: `fit` leaves them alone.
        for name, size in (
            ("visible_bias", width),
            ("visible_offset", width),
            ("hidden_offset", self.units),
        ):
            weight = self.add_weight(
                shape=(size,), initializer="zeros", trainable=False, name=name
            )
            setattr(self, name, weight)
        self.log_variance = None
        if self.visible == "gaussian":
            self.log_variance = self.add_weight(
                shape=(width,), initializer="zeros", trainable=False, name="log_variance"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: width})

    def call(self, inputs):
        return ops.sigmoid(energy.hidden_logits(self.density(), inputs))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def density(self):
        """Returns the weights as `energy.Weights`, for the functions of `energy.py`."""
        return energy.Weights(
            *(
                None if weight is None else ops.convert_to_tensor(weight)
                for weight in self._density_variables()
            )
        )

    def set_density(self, weights):
        """Sets the weights from an `energy.Weights`."""
        for variable, value in zip(self._density_variables(), weights, strict=True):
            if variable is not None:
                variable.assign(value)

    def adapt(self, rows, centred=True):
        """Sets biases and offsets so that the units start where the rows are.

        Bernoulli: `mu` is the mean of the rows and `b` its logit, so that the density is
        that of independent pixels. Gaussian: `mu + b` is the mean and `sigma^2` the
        variance. Hidden units start at one half: `lambda = 1/2`, `c = 0`.

        Args:
            rows: float array `(B, V)`.
            centred: bool; without it both offsets are zero.

        Raises:
            ValueError: if the rows are no rows of this layer (`check_rows`).
        """
        width = self.kernel.shape[0] if self.built else None
        rows = check_rows(rows, self.visible, self.variable_dtype, width)
        if not self.built:
            self.build(rows.shape)
        count = rows.shape[0]
        mean = ops.mean(rows, axis=0)
        if self.log_variance is None:
            smoothed = (count * mean + 0.5) / (count + 1)  # never 0 or 1
            self.visible_bias.assign(ops.log(smoothed) - ops.log1p(-smoothed))
        else:
            self.visible_bias.assign(ops.zeros_like(mean) if centred else mean)
            variance = ops.var(rows, axis=0)
            constant = variance < 1e-6  # a column that never changes says nothing
            self.log_variance.assign(ops.log(ops.where(constant, 1.0, variance)))
        self.hidden_bias.assign(ops.zeros((self.units,)))
        self.visible_offset.assign(mean if centred else ops.zeros_like(mean))
        self.hidden_offset.assign(ops.full((self.units,), 0.5 if centred else 0.0))

    def energy(self, v, h):
        """Returns `E(v, h)` `(B,)` of rows `(B, V)` and hidden units `(B, L)`."""
        return energy.energy(self.density(), self._floats(v), self._floats(h))

    def free_energy(self, v):
        """Returns `F(v) = -log sum_h e^-E` `(B,)`; `p(v) = e^-F / Z`, in nats."""
        return energy.free_energy(self.density(), self._floats(v))

    def hidden_probabilities(self, v):
        """Returns `p(h = 1 | v)` `(B, L)`, as a call does."""
        return ops.sigmoid(energy.hidden_logits(self.density(), self._floats(v)))

    def visible_mean(self, h):
        """Returns `E[v | h]` `(B, V)`."""
        return energy.visible_mean(self.density(), self._floats(h))

    def sample_hidden(self, v):
        """Draws `h` `(B, L)` in {0, 1} given `v`."""
        return self._below(self.hidden_probabilities(v))

    def sample_visible(self, h):
        """Draws `v` `(B, V)` given `h`."""
        mean = self.visible_mean(h)
        if self.visible == "bernoulli":
            return self._below(mean)
        noise = keras.random.normal(
            ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator
        )
        return mean + ops.exp(ops.convert_to_tensor(self.log_variance) / 2) * noise

    def gibbs_step(self, v):
        """Draws hidden units given `v`, then visible units `(B, V)` given those."""
        return self.sample_visible(self.sample_hidden(v))

    def reconstruct(self, v):
        """Returns `E[v | h = p(h | v)]` `(B, V)`, without drawing anything."""
        return self.visible_mean(self.hidden_probabilities(v))

    def sample(self, start, steps):
        """Returns rows `(B, V)` after Gibbs steps from `start`: fantasy particles.

        Args:
            start: float array `(B, V)`, such as rows of the data.
            steps: int, how many Gibbs steps.
        """
        v = self._floats(start)
        for _ in range(steps):
            v = self.gibbs_step(v)
        return v

    def _density_variables(self):
        return (
            self.kernel,
            self.visible_bias,
            self.hidden_bias,
            self.visible_offset,
            self.hidden_offset,
            self.log_variance,
        )

    def _floats(self, values):
        return ops.cast(values, self.variable_dtype)

    def _below(self, chances):
        """Draws 1 with the given chances, else 0."""
        drawn = keras.random.uniform(
            ops.shape(chances), dtype=chances.dtype, seed=self.seed_generator
        )
        return ops.cast(drawn < chances, chances.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "visible": self.visible,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "seed": self.seed,
        }


def check_rows(rows, visible, dtype, width=None, name="rows"):
    """Returns `rows` as a tensor `(B, V)` of `dtype`.

    Raises:
        ValueError: naming what is wrong: no rows, another width, NaN, or values outside
            [0, 1] for Bernoulli units.
    """
    rows = ops.cast(ops.convert_to_tensor(rows), dtype)
    if len(rows.shape) != 2 or 0 in rows.shape:
        raise ValueError(
            f"`{name}` must be of shape (rows, visible units) with at least one row."
            f" Received: {tuple(rows.shape)}"
        )
    if width is not None and rows.shape[1] != width:
        raise ValueError(
            f"`{name}` must have {width} columns, one for each visible unit."
            f" Received: {rows.shape[1]}"
        )
    wrong = int(ops.sum(ops.cast(~ops.isfinite(rows), "int32")))
    if wrong:
        raise ValueError(f"`{name}` must be finite. Received: {wrong} NaN or infinite")
    low, high = float(ops.min(rows)), float(ops.max(rows))
    if visible == "bernoulli" and not 0 <= low <= high <= 1:
        raise ValueError(
            f"`{name}` must lie in [0, 1] for Bernoulli visible units."
            f" Received: from {low:g} to {high:g}"
        )
    return rows
