"""Annealing finds the log Z that enumeration finds, from both directions."""

import numpy as np
import pytest
import rbm_equations as equations

from engram.layers import RBM
from engram.layers.rbm import annealing, contrastive_divergence, enumeration

FEW = annealing.temperatures(100, 800, 2000)
both_directions = pytest.mark.parametrize(
    "direction", [annealing.forward, annealing.backward]
)


@pytest.fixture(scope="module")
def trained(digits):
    """An RBM of 16 hidden units that has learned the digits."""
    rbm = RBM(16, seed=1)
    contrastive_divergence.ContrastiveDivergence(
        rbm, "pcd", learning_rate=lambda epoch: 0.1 * 0.95**epoch, momentum=0.5
    ).fit(digits, 40)
    return rbm


def test_by_default_the_temperatures_are_those_of_the_source():
    betas = annealing.temperatures()
    assert len(betas) == 14_501 and betas[0] == 0 and betas[-1] == 1
    steps = np.diff(betas)
    for above, below, step in ((0, 0.5, 1e-3), (0.5, 0.9, 1e-4), (0.9, 1, 1e-5)):
        inside = (betas[:-1] >= above - 1e-12) & (betas[:-1] < below - 1e-12)
        np.testing.assert_allclose(steps[inside], step, rtol=1e-6)


@both_directions
def test_log_z_of_a_trained_rbm_is_within_a_twentieth_of_a_nat(
    direction, trained, digits
):
    exact = enumeration.log_partition(trained)
    independent = 64 * np.log(2) + 16 * np.log(2)
    assert abs(exact - independent) > 5  # it has learned something
    for seed in (1, 2):
        found = direction(trained, digits, FEW, seed=seed)
        assert found.estimate == pytest.approx(exact, abs=0.05)
        assert found.low < exact < found.high
        assert found.high - found.low < 0.2


@both_directions
@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_log_z_of_a_small_rbm_is_within_a_two_hundredth_of_a_nat(direction, visible):
    rbm = equations.draw_weights(RBM(5, visible, dtype="float64"), 4)
    rows = np.random.default_rng(1).integers(0, 2, (30, 4))
    found = direction(rbm, rows, annealing.temperatures(200, 400, 400), chains=2000)
    exact = enumeration.log_partition(rbm)
    assert found.estimate == pytest.approx(exact, abs=0.005)


def test_chains_that_cannot_be_drawn_exactly_come_from_gibbs_steps():
    rbm = equations.draw_weights(RBM(21), 6)
    assert rbm.units > enumeration.LIMIT
    exact, every = enumeration.log_partition(rbm), equations.states(6)
    unlikely = every[[enumeration.log_likelihood(rbm, every).argmin()]]
    estimates = [
        annealing.backward(rbm, unlikely, np.linspace(0, 1, 20), 2000, steps=steps)
        for steps in (0, 200)
    ]
    at_once, found = estimates
    assert found.low < exact < found.high and found.high - found.low < 0.2
    assert not at_once.low < exact < at_once.high  # the steps are needed


def test_with_few_temperatures_one_direction_is_too_low_and_the_other_too_high(
    trained, digits
):
    exact = enumeration.log_partition(trained)
    betas = np.linspace(0, 1, 3)
    low, high = (
        [direction(trained, digits, betas, chains=1, seed=n).estimate for n in range(30)]
        for direction in (annealing.forward, annealing.backward)
    )
    assert np.mean(low) + 3 * np.std(low) / 30**0.5 < exact
    assert np.mean(high) - 3 * np.std(high) / 30**0.5 > exact


def test_without_a_kernel_every_chain_has_the_exact_log_z():
    rows = np.random.default_rng(1).integers(0, 2, (30, 6))
    rbm = RBM(5, kernel_initializer="zeros", dtype="float64")
    rbm.adapt(rows)
    for direction in (annealing.forward, annealing.backward):
        found = direction(rbm, rows, [0, 0.5, 1], chains=3)
        np.testing.assert_allclose(found, enumeration.log_partition(rbm), atol=1e-10)


def test_equal_seeds_estimate_alike_and_other_seeds_do_not():
    rbm = equations.draw_weights(RBM(5), 4)
    rows, betas = np.zeros((3, 4)), np.linspace(0, 1, 20)
    for direction in (annealing.forward, annealing.backward):
        first, again, other = (direction(rbm, rows, betas, seed=n) for n in (1, 1, 2))
        assert first == again
        assert first != other


def test_a_single_chain_has_an_estimate_but_no_width():
    rbm = equations.draw_weights(RBM(5), 4)
    found = annealing.forward(rbm, np.zeros((3, 4)), np.linspace(0, 1, 20), chains=1)
    assert found.low == found.estimate == found.high


@both_directions
@pytest.mark.parametrize(
    "betas", [[0.1, 1], [0, 0.9], [0, 0.5, 0.4, 1], [0, 0.5, 0.5, 1], [0, np.nan, 1]]
)
def test_temperatures_that_do_not_rise_from_0_to_1_are_refused(direction, betas):
    rbm = equations.draw_weights(RBM(5), 4)
    with pytest.raises(ValueError, match="`betas` must rise from 0 to 1. Received: 0"):
        direction(rbm, np.zeros((3, 4)), betas)


@both_directions
def test_rows_that_do_not_fit_are_refused(direction):
    rbm = equations.draw_weights(RBM(5), 4)
    for rows, message in (
        (np.zeros((3, 5)), "must have 4 columns"),
        (np.full((3, 4), 2.0), r"must lie in \[0, 1\]"),
        (np.zeros((0, 4)), "at least one row"),
    ):
        with pytest.raises(ValueError, match=message):
            direction(rbm, rows, [0, 1])
