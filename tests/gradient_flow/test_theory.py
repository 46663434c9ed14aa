"""Theory agrees with the numbers of its papers, and with closed forms."""

import math

import numpy as np
import pytest

from engram.gradient_flow import theory


@pytest.mark.parametrize(
    ("activation", "sigma_w2", "sigma_b2", "q", "chi", "xi"),
    [
        ("tanh", 1.0, 0.05, 0.1936, 0.7590, 3.63),
        ("tanh", 1.5, 0.05, 0.4180, 0.9386, 15.8),
        ("tanh", 2.5, 0.05, 1.0640, 1.1335, 11.8),
        ("tanh", 4.0, 0.05, 2.1955, 1.3424, 6.98),
        ("sigmoid", 1.0, 0.0, 0.2647, 0.05572, 0.35),
        ("sigmoid", 16.0, 0.0, 5.855, 0.3989, 1.09),
    ],
)
def test_the_fixed_point_and_the_depth_scale(activation, sigma_w2, sigma_b2, q, chi, xi):
    args = activation, sigma_w2, sigma_b2
    assert theory.variance(*args) == pytest.approx(q, rel=2e-4)
    assert theory.chi(*args) == pytest.approx(chi, rel=2e-4)
    assert theory.correlation_depth(*args) == pytest.approx(xi, rel=2e-3, abs=5e-3)


def test_where_every_depth_trains():
    assert theory.critical("tanh", 0.05) == pytest.approx(1.76095, abs=1e-5)
    z, weight = np.polynomial.hermite_e.hermegauss(201)  # right for smooth functions
    weight = weight / weight.sum()
    for q in (0.25, 1, 2):  # chi = 1 gives sigma_w^2, the fixed point then sigma_b^2
        h = np.tanh(np.sqrt(q) * z)
        sigma_w2 = 1 / (weight @ (1 - h**2) ** 2)
        sigma_b2 = q - sigma_w2 * (weight @ h**2)
        assert theory.critical("tanh", sigma_b2) == pytest.approx(sigma_w2, rel=1e-6)
    with pytest.raises(ValueError, match="'gelu' has no critical weights: chi is 0.587"):
        theory.critical("gelu")
    assert theory.chi("sigmoid", theory.critical("sigmoid")) == pytest.approx(1, abs=1e-6)
    assert 100 < theory.critical("sigmoid") < 105
    assert theory.chi("relu", 2.0) == theory.chi("linear", 1.0) == 1
    assert theory.chi("relu", 1.0) == 0.5
    assert theory.depth_scale(1.0) == math.inf
    assert theory.depth_scale(math.exp(-0.5)) == pytest.approx(2)


def test_means_are_right_across_the_kink_of_relu():
    assert 2 * theory.mean(theory.ACTIVATIONS["relu"][1]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("activation", theory.ACTIVATIONS)
def test_each_slope_is_that_of_its_function(activation):
    function, slope = theory.ACTIVATIONS[activation]
    z = np.linspace(-3, 3, 61) + 0.01  # not at a kink
    measured = (function(z + 1e-6) - function(z - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope(z), measured, atol=1e-7)


def test_finite_width_is_that_of_hanin_and_nica_for_one_probe():
    assert theory.spread("relu", 20, 1000) == pytest.approx(5 * 20 / 1000)
    assert theory.spread("linear", 20, 1000, probes=8) == pytest.approx(20 * 2 / 8 / 1000)
    assert theory.spread_of_slopes("relu") == pytest.approx(2)
    assert theory.spread_of_slopes("linear") == pytest.approx(1)


def test_batch_norm_and_residual_blocks():
    expected = math.pi / (math.pi - 1)
    assert theory.batch_norm("relu") == pytest.approx(expected, abs=1e-4)
    assert theory.batch_norm("linear") == pytest.approx(1)
    assert theory.residual(30, 1.0) == pytest.approx(30 * math.log(2))
    assert theory.residual(10**6, 1e-3) == pytest.approx(1, abs=1e-6)
    assert theory.residual(30, 0.0) == 0


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="`activation` must be one of .* 'step'"):
        theory.chi("step", 1.0)
