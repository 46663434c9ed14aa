"""The exact numbers are those of a sum over all states, or of an integral."""

import numpy as np
import pytest
import rbm_equations as equations
import scipy.stats
from keras import ops

from engram.layers import RBM
from engram.layers.rbm import energy, enumeration


def _rbm(visible_units=9, hidden=8, visible="bernoulli"):
    rbm = RBM(hidden, visible, dtype="float64")
    return equations.draw_weights(rbm, visible_units)


@pytest.mark.parametrize("visible_units, hidden", [(9, 8), (8, 9), (7, 7)])
def test_log_z_is_the_same_by_rows_by_hidden_states_and_by_both(visible_units, hidden):
    rbm = _rbm(visible_units, hidden)
    wanted = equations.log_z(rbm)
    w = rbm.density()
    sides = (energy.free_energy, visible_units), (energy.hidden_free_energy, hidden)
    for side, units in sides:
        found = equations.log_sum(enumeration.log_weights(w, side, units))
        assert found == pytest.approx(wanted, abs=1e-10)
    assert enumeration.log_partition(rbm) == pytest.approx(wanted, abs=1e-10)


def test_log_p_is_that_of_the_equations_and_sums_up_to_one():
    rbm, rows = _rbm(), equations.states(9)
    found = enumeration.log_likelihood(rbm, rows)
    np.testing.assert_allclose(found, equations.log_p(rbm, rows), rtol=0, atol=1e-10)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-12)


def test_a_known_log_z_is_taken_as_it_is():
    rbm, rows = _rbm(), equations.states(9)[:5]
    exact = enumeration.log_likelihood(rbm, rows)
    found = enumeration.log_likelihood(rbm, rows, enumeration.log_partition(rbm) + 1)
    np.testing.assert_allclose(found, exact - 1, rtol=0, atol=1e-12)


def test_the_density_is_stationary_under_gibbs_steps_and_in_balance():
    rbm = _rbm()
    v, h = equations.states(9), equations.states(8)
    p = np.exp(enumeration.log_likelihood(rbm, v))
    of_h, of_v = (ops.convert_to_numpy(p) for p in (rbm(v), rbm.visible_mean(h)))
    up = np.where(h[None] == 1, of_h[:, None], 1 - of_h[:, None]).prod(axis=2)
    down = np.where(v[None] == 1, of_v[:, None], 1 - of_v[:, None]).prod(axis=2)
    steps = up @ down  # (2^V, 2^V)
    np.testing.assert_allclose(steps.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(p @ steps, p, rtol=0, atol=1e-12)
    flow = p[:, None] * steps
    np.testing.assert_allclose(flow, flow.T, rtol=0, atol=1e-12)


def test_without_a_kernel_bernoulli_units_are_independent_pixels():
    rows = np.random.default_rng(3).integers(0, 2, (200, 12)).astype(float)
    rows[:, 0] = 1
    rbm = RBM(10, kernel_initializer="zeros", dtype="float64")
    rbm.adapt(rows)
    p = (rows.sum(axis=0) + 0.5) / 201
    wanted = (rows * np.log(p) + (1 - rows) * np.log(1 - p)).sum(axis=1)
    found = enumeration.log_likelihood(rbm, rows)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


def test_without_a_kernel_gaussian_units_are_independent_normals():
    rows = np.random.default_rng(3).normal([3, -1, 0], [1, 2, 0.1], (200, 3))
    rbm = RBM(10, "gaussian", kernel_initializer="zeros", dtype="float64")
    rbm.adapt(rows)
    normal = scipy.stats.norm(rows.mean(axis=0), rows.std(axis=0))
    found = enumeration.log_likelihood(rbm, rows)
    np.testing.assert_allclose(found, normal.logpdf(rows).sum(axis=1), rtol=0, atol=1e-10)


def _grid(rbm, points=400):
    """Returns points of a plane far beyond an RBM's rows, and the area of each."""
    w = equations.weights(rbm)
    reach = np.abs(w["kernel"]).sum(axis=1) * (1 + np.abs(w["hidden_offset"]).max())
    reach = reach + 9 * np.exp(w["log_variance"] / 2)
    middle = w["visible_offset"] + w["visible_bias"]
    axes = np.linspace(middle - reach, middle + reach, points).T
    area = np.prod([axis[1] - axis[0] for axis in axes])
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, len(axes)), area


@pytest.mark.parametrize("visible_units, hidden", [(1, 6), (2, 5)])
def test_the_density_of_gaussian_units_integrates_to_one(visible_units, hidden):
    rbm = _rbm(visible_units, hidden, "gaussian")
    rows, area = _grid(rbm)
    p = np.exp(enumeration.log_likelihood(rbm, rows))
    assert p.sum() * area == pytest.approx(1, abs=1e-10)
    # and log Z is the integral of the energies, over all hidden states
    summed = equations.log_sum(-equations.energies(rbm, rows, equations.states(hidden)))
    wanted = summed + np.log(area)
    assert enumeration.log_partition(rbm) == pytest.approx(wanted, abs=1e-10)


def test_gaussian_units_are_a_mixture_of_a_normal_for_every_hidden_state():
    rbm, h = _rbm(2, 5, "gaussian"), equations.states(5)
    w = equations.weights(rbm)
    variance, q = np.exp(w["log_variance"]), h - w["hidden_offset"]
    drive = w["visible_bias"] + q @ w["kernel"].T
    squares = (drive**2 - w["visible_bias"] ** 2) / (2 * variance)
    shares = np.exp(q @ w["hidden_bias"] + squares.sum(axis=1))
    means = w["visible_offset"] + drive
    rows = np.random.default_rng(3).normal(0, 2, (50, 2))
    normals = scipy.stats.norm(means, np.sqrt(variance)).pdf(rows[:, None])
    wanted = np.log(normals.prod(axis=2) @ shares / shares.sum())
    found = enumeration.log_likelihood(rbm, rows)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


def test_other_units_of_measure_change_a_gaussian_density_by_their_size_alone():
    rbm, scale = _rbm(3, 5, "gaussian"), np.array([0.1, 2, 30])
    rows = np.random.default_rng(3).normal(0, 2, (50, 3))
    wanted = enumeration.log_likelihood(rbm, rows) - np.log(scale).sum()
    w = rbm.density()
    rbm.set_density(
        w._replace(
            kernel=w.kernel * scale[:, None],
            visible_bias=w.visible_bias * scale,
            visible_offset=w.visible_offset * scale,
            log_variance=w.log_variance + 2 * np.log(scale),
        )
    )
    found = enumeration.log_likelihood(rbm, rows * scale)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


def test_more_states_than_are_gone_through_at_a_time_are_all_counted():
    rbm = _rbm(17, 16)
    w = equations.weights(rbm)
    rbm.kernel.assign(np.zeros((17, 16)))
    assert 2**16 > 2 * enumeration.CHUNK
    wanted = -w["visible_offset"] @ w["visible_bias"]
    wanted += np.logaddexp(0, w["visible_bias"]).sum()
    wanted -= w["hidden_offset"] @ w["hidden_bias"]
    wanted += np.logaddexp(0, w["hidden_bias"]).sum()
    assert enumeration.log_partition(rbm) == pytest.approx(wanted, abs=1e-9)


def test_a_layer_in_float32_is_counted_in_float64():
    exact = _rbm()
    short = RBM(8)
    short.build((None, 9))
    short.set_density(exact.density())
    exact.set_density(short.density())  # the same numbers, in float64
    found = enumeration.log_partition(short)
    assert found == pytest.approx(enumeration.log_partition(exact), abs=1e-12)


def test_rows_come_in_the_order_of_their_numbers():
    rows = ops.convert_to_numpy(enumeration.all_rows(4, "float32"))
    assert rows.dtype == "float32"
    assert rows.shape == (16, 4) and len(np.unique(rows, axis=0)) == 16
    np.testing.assert_array_equal(rows @ [1, 2, 4, 8], np.arange(16))
    np.testing.assert_array_equal(
        enumeration.numbered_rows(np.array([5, 0]), 4), rows[[5, 0]]
    )


@pytest.mark.parametrize(
    "visible, visible_units, hidden",
    [("bernoulli", 21, 22), ("bernoulli", 22, 21), ("gaussian", 2, 21)],
)
def test_too_many_units_on_the_smaller_side_are_refused(visible, visible_units, hidden):
    rbm = RBM(hidden, visible)
    rbm.build((None, visible_units))
    with pytest.raises(ValueError) as raised:
        enumeration.log_partition(rbm)
    assert "at most 20 units" in str(raised.value)
    received = f"Received: {visible_units} visible and {hidden} hidden units"
    assert received in str(raised.value)


def test_one_small_side_is_enough():
    for visible_units, hidden in ((30, 3), (3, 30)):
        rbm = RBM(hidden, kernel_initializer="zeros")
        rbm.build((None, visible_units))
        wanted = 33 * np.log(2)
        assert enumeration.log_partition(rbm) == pytest.approx(wanted, abs=1e-10)
