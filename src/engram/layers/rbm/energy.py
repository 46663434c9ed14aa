"""The energy of a restricted Boltzmann machine, and what follows from it in closed form.

With the offsets mu `(V,)` and lambda `(L,)` (centring; zero gives the usual RBM) and

    a = c + s(v - mu) W,      s(x) = x  (Bernoulli visibles),   x / sigma^2  (Gaussian)
    m = W (h - lambda)

    Bernoulli   E(v, h) = - (v - mu) b - (h - lambda) a
    Gaussian    E(v, h) = |v - mu - b|^2 / (2 sigma^2) - (h - lambda) a

    p(h = 1 | v) = sigmoid(a)
    p(v = 1 | h) = sigmoid(b + m),   v | h ~ Normal(mu + b + m, sigma^2)

    free energy    F(v) = -log sum_h e^-E = E_v(v) - sum_j softplus(a_j) - lambda_j a_j
    of hiddens     G(h) = -log sum_v e^-E
        Bernoulli  = -(h - lambda) c - sum_i softplus(b_i + m_i) - mu_i (b_i + m_i)
        Gaussian   = -(h - lambda) c - sum_i ((b_i + m_i)^2 - b_i^2) / (2 sigma_i^2)
                     + log(2 pi sigma_i^2) / 2

where `E_v(v)` is the part of the energy without `h`. Letters: `B` rows, `V` visible,
`L` hidden units.

Sources: Hinton 2012, A practical guide to training restricted Boltzmann machines;
Melchior, Fischer & Wiskott 2016, How to center deep Boltzmann machines, eq. 5 (offsets);
Cho, Ilin & Raiko 2011, Improved learning of Gaussian-Bernoulli RBMs, eq. 3 (variances as
`log sigma^2`).
"""

import math
from typing import Any, NamedTuple

from keras import ops


class Weights(NamedTuple):
    """What defines an RBM: W, biases b and c, offsets mu and lambda, log sigma^2.

    `log_variance` is None where the visible units are Bernoulli.
    """

    kernel: Any  # (V, L)
    visible_bias: Any  # (V,)
    hidden_bias: Any  # (L,)
    visible_offset: Any  # (V,)
    hidden_offset: Any  # (L,)
    log_variance: Any = None  # (V,)


def scaled(w, v):
    """Returns `s(v - mu)` `(B, V)`."""
    centred = v - w.visible_offset
    return centred if w.log_variance is None else centred * ops.exp(-w.log_variance)


def hidden_logits(w, v):
    """Returns `a` `(B, L)`, the logits of `p(h = 1 | v)`."""
    return w.hidden_bias + ops.matmul(scaled(w, v), w.kernel)


def visible_drive(w, h):
    """Returns `b + m` `(B, V)`: logits of Bernoulli visibles, or a mean less `mu`."""
    return w.visible_bias + ops.matmul(h - w.hidden_offset, ops.transpose(w.kernel))


def visible_mean(w, h):
    """Returns `E[v | h]` `(B, V)`."""
    drive = visible_drive(w, h)
    return ops.sigmoid(drive) if w.log_variance is None else w.visible_offset + drive


def energy(w, v, h):
    """Returns `E(v, h)` `(B,)`."""
    pulled = ops.sum((h - w.hidden_offset) * hidden_logits(w, v), axis=-1)
    return visible_energy(w, v) - pulled


def free_energy(w, v):
    """Returns `F(v)` `(B,)`, with `p(v) = e^-F / Z`."""
    a = hidden_logits(w, v)
    summed = ops.sum(ops.softplus(a) - w.hidden_offset * a, axis=-1)
    return visible_energy(w, v) - summed


def hidden_free_energy(w, h):
    """Returns `G(h)` `(B,)`, with `p(h) = e^-G / Z`."""
    drive = visible_drive(w, h)
    pulled = ops.matmul(h - w.hidden_offset, w.hidden_bias)
    if w.log_variance is None:
        terms = ops.softplus(drive) - w.visible_offset * drive
    else:
        quadratic = ops.square(drive) - ops.square(w.visible_bias)
        terms = quadratic * ops.exp(-w.log_variance) / 2
        terms = terms + (w.log_variance + math.log(2 * math.pi)) / 2
    return -pulled - ops.sum(terms, axis=-1)


def visible_energy(w, v):
    """Returns the part of the energy without `h`, `(B,)`."""
    if w.log_variance is None:
        return -ops.matmul(v - w.visible_offset, w.visible_bias)
    distance = ops.square(v - w.visible_offset - w.visible_bias)
    return ops.sum(distance * ops.exp(-w.log_variance), axis=-1) / 2
