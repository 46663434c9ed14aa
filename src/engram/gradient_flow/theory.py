"""What mean-field theory expects of a wide net with random weights.

With weights `N(0, sigma_w^2 / n)` and biases `N(0, sigma_b^2)`, preactivations of layer
after layer are Gaussian, of a variance that goes to a fixed point, and gradients grow or
shrink by the same factor in every layer:

    q*   = sigma_w^2 E[phi(sqrt(q*) z)^2] + sigma_b^2          z ~ N(0, 1)
    chi  = sigma_w^2 E[phi'(sqrt(q*) z)^2]                      factor of |gradient|^2
    xi   = 1 / |ln slope|         slope of the map of correlations at its fixed point

Nets train up to a depth of about 6 xi. Below `chi = 1` the slope is `chi` itself.

Sources: Poole et al. 2016, Exponential expressivity in deep neural networks through
transient chaos; Schoenholz et al. 2017, Deep information propagation; Hanin & Nica 2018,
Products of many large random matrices and gradients in deep neural networks.
"""

import math
from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
TRAINABLE = 6  # depth scales: as deep as a net still trains, about
LARGEST = 1e6  # variance of weights that is asked for a critical one
SELU, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

# A midpoint rule with a border at 0, where ReLU and its relatives have their kink.
# Gauss-Hermite quadrature is 9 % wrong there with 201 nodes.
WIDTH = 0.01
Z = np.arange(-10 + WIDTH / 2, 10, WIDTH)
DENSITY = np.exp(-(Z**2) / 2) / math.sqrt(2 * math.pi) * WIDTH


def _sigmoid(z):
    return 0.5 * (1 + np.tanh(z / 2))


def _normal(z):
    """Returns the standard normal's distribution function."""
    return 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))


def _elu(z):
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def _selu(z):
    return SELU * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0)))


# phi and phi'
ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "linear": (lambda z: z, np.ones_like),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (  # Keras' slope
        lambda z: np.where(z > 0, z, 0.2 * z),
        lambda z: np.where(z > 0, 1, 0.2),
    ),
    "elu": (_elu, lambda z: np.exp(np.minimum(z, 0))),
    "selu": (
        _selu,
        lambda z: SELU * np.where(z > 0, 1, SELU_ALPHA * np.exp(np.minimum(z, 0))),
    ),
    "gelu": (
        lambda z: z * _normal(z),
        lambda z: _normal(z) + z * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi),
    ),
}


def mean(function: Function) -> float:
    """Returns `E[function(z)]` over a standard normal `z`."""
    return float(np.sum(DENSITY * function(Z)))


def variance(activation: str, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Returns `q*`, the variance of preactivations that stays from layer to layer.

    Where every variance stays (ReLU at `sigma_w2 = 2`, linear at 1), 1 is returned; 0 or
    inf where activations die out or grow without end.
    """
    phi, _ = _functions(activation)
    q = 1.0
    for _ in range(20_000):
        new = sigma_w2 * float(DENSITY @ phi(math.sqrt(q) * Z) ** 2) + sigma_b2
        if abs(new - q) < 1e-12 * q:
            return new
        if new > 1e12 or new < 1e-12:
            return math.inf if new > 1 else 0.0
        q = new
    return q


def chi(activation: str, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Returns the factor of a layer on squared gradients; NaN if nothing bounds `q`."""
    if activation == "linear":
        return sigma_w2
    if activation in ("relu", "leaky_relu"):  # of any variance
        slope = 0.2 if activation == "leaky_relu" else 0.0
        return sigma_w2 * (1 + slope**2) / 2
    _, slope_of = _functions(activation)
    root = math.sqrt(variance(activation, sigma_w2, sigma_b2))
    if root == math.inf:
        return math.nan
    return sigma_w2 * mean(lambda z: slope_of(root * z) ** 2)


def depth_scale(slope: float) -> float:
    """Returns `xi = 1 / |ln slope|` in layers; infinite at 1."""
    if not 0 < slope < math.inf:
        return 0.0
    log = abs(math.log(slope))
    return 1 / log if log > 1e-12 else math.inf


def correlation_depth(activation: str, sigma_w2: float, sigma_b2: float = 0.0) -> float:
    """Returns `xi_c`, layers over which two inputs' correlation settles.

    Beyond `chi = 1` equal inputs part; the fixed point `c* < 1` of the correlation is
    found by halving, and the slope is `sigma_w^2 E[phi'(u) phi'(v)]` there.
    """
    factor = chi(activation, sigma_w2, sigma_b2)
    if factor <= 1 or activation in ("linear", "relu", "leaky_relu"):
        return depth_scale(factor)
    phi, slope_of = _functions(activation)
    q = variance(activation, sigma_w2, sigma_b2)

    def paired(function, c):
        coarse, density = Z[::10], DENSITY[::10] * 10
        u = coarse[:, None]
        v = c * u + math.sqrt(1 - c * c) * coarse
        both = function(math.sqrt(q) * u) * function(math.sqrt(q) * v)
        return float(density @ both @ density)

    low, high = 0.0, 1 - 1e-9
    for _ in range(40):
        c = (low + high) / 2
        over = (sigma_w2 * paired(phi, c) + sigma_b2) / q > c
        low, high = (c, high) if over else (low, c)
    return depth_scale(sigma_w2 * paired(slope_of, low))


def critical(activation: str, sigma_b2: float = 0.0) -> float:
    """Returns the `sigma_w2` at which `chi` is 1, found by halving.

    Raises:
        ValueError: if `chi` passes 1 nowhere, or the variance has no fixed point there.
    """
    low, high = 0.0, 1.0
    while chi(activation, high, sigma_b2) < 1:
        low, high = high, 2 * high
        if high > LARGEST:
            raise ValueError(
                f"chi of {activation!r} is below 1 up to sigma_w2 = {LARGEST:.0e}."
                f" Received: sigma_b2 = {sigma_b2}"
            )
    for _ in range(50):
        middle = (low + high) / 2
        below = chi(activation, middle, sigma_b2) < 1
        low, high = (middle, high) if below else (low, middle)
    if not math.isclose(chi(activation, low, sigma_b2), 1, rel_tol=1e-3):
        raise ValueError(
            f"{activation!r} has no critical weights: chi is"
            f" {chi(activation, low, sigma_b2):.4g} at sigma_w2 = {low:.4g} and has no"
            f" value above. Received: sigma_b2 = {sigma_b2}"
        )
    return (low + high) / 2


def spread(
    activation: str,
    depth: int,
    width: int,
    probes: float = 1,
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
) -> float:
    """Returns `beta`: `ln |J u|^2` is about `N(depth ln chi - beta / 2, beta)`.

        beta  = depth (kappa - 1 + 2 kappa / probes) / width

    with `kappa` of `spread_of_slopes`. Which units pass a gradient on is one and the
    same draw for every probe `u`, so only the second term falls with their number:
    5 / width a layer of ReLU for a single one (Hanin & Nica 2018), 1 / width for very
    many, that is, for the Frobenius norm. That is true while `depth` is far below
    `width`: a long product turns all probes into few directions, and more of them are
    then worth less. What `q` itself fluctuates by, which smooth activations feel too, is
    left out.

    Args:
        activation: a word of `ACTIVATIONS`.
        depth: layers.
        width: units of each.
        probes: vectors `u` that the squared norm is averaged over before the logarithm.
        sigma_w2: variance of weights times `width`.
        sigma_b2: variance of biases.
    """
    kappa = spread_of_slopes(activation, sigma_w2, sigma_b2)
    return depth * (kappa - 1 + 2 * kappa / probes) / width


def spread_of_slopes(
    activation: str, sigma_w2: float = 1.0, sigma_b2: float = 0.0
) -> float:
    """Returns `kappa = E[phi'^4] / E[phi'^2]^2`: 2 for ReLU, 1 without an activation."""
    _, slope_of = _functions(activation)
    scale = 1.0
    if activation not in ("linear", "relu", "leaky_relu"):
        scale = math.sqrt(variance(activation, sigma_w2, sigma_b2))
    fourth = mean(lambda z: slope_of(scale * z) ** 4)
    return fourth / mean(lambda z: slope_of(scale * z) ** 2) ** 2


def batch_norm(activation: str) -> float:
    """Returns a layer's factor on squared gradients after batch normalisation.

        chi = E[phi'(z)^2] / Var[phi(z)]                pi / (pi - 1) = 1.467 for ReLU

    Whatever the weights' scale: it is above 1, so without residual connections gradients
    explode. Source: Yang et al. 2019, A mean field theory of batch normalization.
    """
    phi, slope_of = _functions(activation)
    variance = mean(lambda z: phi(z) ** 2) - mean(phi) ** 2
    return mean(lambda z: slope_of(z) ** 2) / variance


def residual(depth: int, scale: float) -> float:
    """Returns `ln` of the factor of blocks `h + scale W relu(h)` on `|gradient|^2`.

        depth ln(1 + scale^2)        1 at most for scale = 1 / sqrt(depth), 0 for ReZero

    `W` is drawn as He et al. 2015 have it.
    """
    return depth * math.log1p(scale**2)


def _functions(activation: str) -> tuple[Function, Function]:
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be one of {', '.join(ACTIVATIONS)}."
            f" Received: {activation!r}"
        )
    return ACTIVATIONS[activation]
