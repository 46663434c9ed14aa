"""The gradient of an RBM's log-likelihood, and the same density around other offsets.

The gradient of the mean log-likelihood is a difference of two means, one over the data
and one over the model's own rows (Bernoulli; `s` is in `energy.py`):

    d log p / dW = < s(v - mu) (p(h|v) - lambda)^T >_data - < the same >_model
    d log p / db = < v - mu >_data - < the same >_model (Gaussian: (v - mu - b) / sigma^2)
    d log p / dc = < p(h|v) - lambda >_data - < the same >_model

Around new offsets the biases are others and the density is what it was:

    b' = b + W (lambda' - lambda)   (Gaussian: less mu' - mu)
    c' = c + s(mu' - mu) W

Source: Melchior, Fischer & Wiskott 2016, How to center deep Boltzmann machines, eq. 6 to
10.
"""

from keras import ops

from engram.layers.rbm import energy


def difference(w, data, model):
    """Returns the phase of the data less that of the model.

    Args:
        w: `energy.Weights`.
        data: `v` `(B, V)`, `p` `(B, L)` and shares `(B,)`, as of `phase`.
        model: the same of the model's rows, which may be another number.
    """
    v, p, shares = model
    return phase(w, data, (v, p, -shares))


def phase(w, *parts):
    """Returns the weighted mean of `-dE/d(W, b, c, log sigma^2)` with `h = p`.

    All rows go through one product; the offsets enter after it, as outer products.

    Args:
        w: `energy.Weights`.
        *parts: of the rows, each `v` `(B, V)`, `p = p(h = 1 | v)` `(B, L)` and shares
            `(B,)`, what each row counts in the mean.
    """
    total = sum(ops.sum(shares) for _, _, shares in parts)
    mean_v = sum(mean(v, shares) for v, _, shares in parts)
    mean_p = sum(mean(p, shares) for _, p, shares in parts)
    of_hidden = mean_p - total * w.hidden_offset
    of_kernel = (
        ops.matmul(
            ops.transpose(ops.concatenate([v for v, _, _ in parts])),
            ops.concatenate([p * shares[:, None] for _, p, shares in parts]),
        )
        - w.visible_offset[:, None] * of_hidden
        - mean_v[:, None] * w.hidden_offset
    )
    of_visible = mean_v - total * w.visible_offset
    if w.log_variance is None:
        return [of_kernel, of_visible, of_hidden]
    precision = ops.exp(-w.log_variance)
    of_visible = (of_visible - total * w.visible_bias) * precision
    of_variance = sum(mean(variance_slope(w, v, p), shares) for v, p, shares in parts)
    return [of_kernel * precision[:, None], of_visible, of_hidden, of_variance]


def variance_slope(w, v, p):
    """Returns `-dE/d(log sigma^2)` of each row `(B, V)`, Gaussian units."""
    away = v - w.visible_offset - w.visible_bias
    m = ops.matmul(p - w.hidden_offset, ops.transpose(w.kernel))
    return ops.square(away) * ops.exp(-w.log_variance) / 2 - energy.scaled(w, v) * m


def mean(rows, shares):
    """Returns the sum of rows `(B, n)`, each times its share `(B,)`."""
    return ops.sum(rows * shares[:, None], axis=0)  # faster than a product


def recentred(w, visible_offset, hidden_offset):
    """Returns the same density around other offsets."""
    of_v = visible_offset - w.visible_offset  # (V,)
    of_h = hidden_offset - w.hidden_offset  # (L,)
    b = w.visible_bias + ops.matmul(w.kernel, of_h)
    s = of_v
    if w.log_variance is not None:
        b -= of_v  # the mean of Gaussian units is mu + b
        s = of_v * ops.exp(-w.log_variance)
    c = w.hidden_bias + ops.matmul(s, w.kernel)
    return w._replace(
        visible_bias=b,
        hidden_bias=c,
        visible_offset=visible_offset,
        hidden_offset=hidden_offset,
    )
