"""What is told of an RBM while it learns is what its definition says."""

import numpy as np
import pytest
import rbm_equations as equations

from engram.layers import RBM
from engram.layers.rbm import contrastive_divergence, enumeration, monitor


def _rbm(visible="bernoulli", dtype="float64"):
    return equations.draw_weights(RBM(8, visible, dtype=dtype), 9)


def _rows(rows=20):
    return np.random.default_rng(2).integers(0, 2, (rows, 9)).astype(float)


def test_the_pseudo_likelihood_is_the_chance_of_each_bit_given_the_others():
    rbm, rows = _rbm(), _rows()
    wanted = np.zeros(20)
    for unit in range(9):
        flipped = rows.copy()
        flipped[:, unit] = 1 - flipped[:, unit]
        p, q = (np.exp(equations.log_p(rbm, v)) for v in (rows, flipped))
        wanted += np.log(p / (p + q))
    found = monitor.pseudo_likelihood(rbm, rows)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("units", [(9, 8), (7, 8), (30, 13)])  # one and two chunks
def test_log_z_while_it_learns_is_the_one_of_enumeration(visible, units):
    rows, hidden = units
    for dtype, error in (("float64", 1e-10), ("float32", 1e-4)):
        rbm = equations.draw_weights(RBM(hidden, visible, dtype=dtype), rows)
        exact = enumeration.log_partition(rbm)
        assert monitor.log_partition(rbm) == pytest.approx(exact, rel=0, abs=error)


def test_log_z_while_it_learns_has_the_limit_of_enumeration():
    rbm = equations.draw_weights(RBM(21), 30)
    with pytest.raises(ValueError, match="at most 20 units. Received: 30 .* 21 hidden"):
        monitor.log_partition(rbm)


def test_without_a_kernel_the_pseudo_likelihood_is_the_likelihood():
    rbm = RBM(8, kernel_initializer="zeros", dtype="float64")
    rbm.adapt(_rows())
    wanted = enumeration.log_likelihood(rbm, _rows())
    found = monitor.pseudo_likelihood(rbm, _rows())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


def test_what_lies_between_0_and_1_is_rounded_for_the_pseudo_likelihood():
    rbm, rows = _rbm(), _rows()
    between = 0.1 + 0.8 * rows
    found = monitor.pseudo_likelihood(rbm, between)
    np.testing.assert_array_equal(found, monitor.pseudo_likelihood(rbm, rows))


def test_bits_of_gaussian_units_cannot_be_flipped():
    with pytest.raises(ValueError, match="`rbm` must have Bernoulli .* gaussian"):
        monitor.pseudo_likelihood(_rbm("gaussian"), _rows())


def test_the_free_energy_gap_is_that_of_the_log_likelihoods():
    rbm, train, held = _rbm(), _rows(), equations.states(9)[:50]
    gain = enumeration.log_likelihood(rbm, train).mean()
    gain -= enumeration.log_likelihood(rbm, held).mean()
    assert monitor.free_energy_gap(rbm, train, held) == pytest.approx(gain, abs=1e-10)


def test_the_gap_rises_when_the_rows_are_learned_by_heart(digits):
    train, held = digits[:20], digits[20:]
    rbm = RBM(64, seed=1)
    trainer = contrastive_divergence.ContrastiveDivergence(
        rbm, batch_size=20, learning_rate=0.1, jit_compile=False
    )
    gaps = []
    for epochs in (1, 100, 400):
        trainer.fit(train, epochs)
        gaps.append(monitor.free_energy_gap(rbm, train, held))
    early, middle, late = gaps
    assert early + 3 < middle < late - 3


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_a_monitor_tells_every_number_of_rows_that_are_held_out(visible, dtype):
    rbm, train, held = _rbm(visible, "float32"), _rows(), equations.states(9)[:50]
    look = monitor.monitor(train.astype(dtype), held.astype(dtype), exact=True)
    first, second = look(rbm, 1), look(rbm, 2)
    names = ["reconstruction", "free_energy_gap", "pseudo_likelihood", "log_likelihood"]
    if visible == "gaussian":
        names.remove("pseudo_likelihood")
    assert list(first) == list(second) == names
    assert {type(value) for value in first.values()} == {float}
    assert first == second
    exact = enumeration.log_likelihood(rbm, held).mean()
    assert first["log_likelihood"] == pytest.approx(exact)
    error = np.square(held - np.asarray(rbm.reconstruct(held))).mean()
    assert first["reconstruction"] == pytest.approx(error, rel=1e-5)
    gap = monitor.free_energy_gap(rbm, train, held)
    assert first["free_energy_gap"] == pytest.approx(gap, rel=1e-5)
    if visible == "bernoulli":
        exact = monitor.pseudo_likelihood(rbm, held).mean()
        assert first["pseudo_likelihood"] == pytest.approx(exact, rel=1e-5)


def test_a_monitor_leaves_the_likelihood_out_unless_asked_and_looks_at_some_rows_alone():
    rbm, many = _rbm(), np.tile(equations.states(9), (5, 1))
    seen = monitor.monitor(many, many[::-1])(rbm, 1)
    assert "log_likelihood" not in seen
    gap = monitor.free_energy_gap(rbm, many[: monitor.SEEN], many[::-1][: monitor.SEEN])
    assert len(many) > monitor.SEEN and gap != 0
    assert seen["free_energy_gap"] == pytest.approx(gap, abs=1e-10)
