"""Contrastive divergence follows the gradient it states, and can be stopped and resumed.

What is called exact here is a sum over all states (`rbm_equations`), with nothing drawn.
"""

import numpy as np
import pytest
import rbm_equations as equations
import scipy.stats
import tensorflow as tf
from keras import ops

from engram import distribution
from engram.layers import RBM
from engram.layers.rbm import draws, enumeration, gradient
from engram.layers.rbm.contrastive_divergence import ContrastiveDivergence, Diverged

V, L = 9, 8
either_way = pytest.mark.parametrize("jit_compile", [False, True])
every_kind = pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])


def _rbm(units=V, hidden=L, visible="bernoulli", dtype="float64", seed=1):
    """Returns an RBM of which no weight is zero."""
    return equations.draw_weights(RBM(hidden, visible, dtype=dtype), units, seed)


def _rows(rows=10, units=V, visible="bernoulli"):
    draw = np.random.default_rng(2)
    if visible == "bernoulli":
        return draw.integers(0, 2, (rows, units)).astype(float)
    return draw.normal(size=(rows, units))


def _trainer(rbm, method="cd", **how):
    """Returns a trainer that goes one plain step of size 1 a batch, unless told else."""
    plain = {
        "batch_size": 10,
        "learning_rate": 1.0,
        "momentum": 0.0,
        "centred": False,
        "jit_compile": False,
    }
    return ContrastiveDivergence(rbm, method, **{**plain, **how})


def _change(rbm, trainer, rows):
    """Returns by how much an epoch changes what is learned, side by side."""
    before = equations.learned(rbm)
    trainer.fit(rows, trainer.epoch + 1)
    return equations.learned(rbm) - before


def _phase(rbm, rows, shares):
    """Returns the phase of an RBM's rows, side by side."""
    p = rbm.hidden_probabilities(rows)
    rows, shares = tf.constant(rows), tf.constant(shares)
    parts = gradient.phase(rbm.density(), (rows, p, shares))
    return np.concatenate([np.ravel(part.numpy()) for part in parts])


def _slope(rbm, function):
    """Returns the slope of a function of what is learned, by central differences."""
    start, step = equations.learned(rbm), 1e-5
    slope = np.zeros_like(start)
    for n in range(len(start)):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[n] += sign * step
            equations.set_learned(rbm, moved)
            sides.append(function(rbm))
        slope[n] = (sides[0] - sides[1]) / (2 * step)
    equations.set_learned(rbm, start)
    return slope


@either_way
def test_the_exact_gradient_is_the_slope_of_the_log_likelihood(jit_compile):
    rbm, rows = _rbm(), _rows()
    slope = _slope(rbm, lambda rbm: equations.log_p(rbm, rows).mean())
    assert np.abs(slope).min() > 1e-5  # none is zero
    found = _change(rbm, _trainer(rbm, "exact", jit_compile=jit_compile), rows)
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-9)


@every_kind
def test_a_phase_is_the_slope_of_the_mean_free_energy(visible):
    rbm, rows = _rbm(visible=visible), _rows(visible=visible)
    shares = np.random.default_rng(3).dirichlet(np.ones(10))
    found = _phase(rbm, rows, shares)
    slope = _slope(rbm, lambda rbm: -shares @ equations.free_energy(rbm, rows))
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-8)
    wanted = shares @ equations.statistics(rbm, rows)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_the_phases_of_gaussian_units_make_the_slope_of_the_log_likelihood():
    # The model's phase is an integral over the plane of its rows.
    rbm, rows = _rbm(2, 5, "gaussian"), _rows(units=2, visible="gaussian")
    axis = np.linspace(-25, 25, 600)
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    p = np.exp(enumeration.log_likelihood(rbm, plane)) * (axis[1] - axis[0]) ** 2
    assert p.sum() == pytest.approx(1, abs=1e-10)
    found = _phase(rbm, rows, np.full(10, 0.1)) - _phase(rbm, plane, p)
    slope = _slope(rbm, lambda rbm: enumeration.log_likelihood(rbm, rows).mean())
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-8)


def test_the_bias_of_cd_falls_with_the_second_eigenvalue_of_a_gibbs_step():
    rbm, v = _rbm(seed=4), equations.states(V)
    steps = equations.gibbs(rbm)
    second = np.sort(np.abs(np.linalg.eigvals(steps)))[-2]
    p = np.zeros(2**V)
    np.add.at(p, (_rows() @ 2 ** np.arange(V)[::-1]).astype(int), 0.1)
    model = _phase(rbm, v, np.exp(enumeration.log_likelihood(rbm, v)))
    gradient, biases = _phase(rbm, v, p) - model, []
    for _ in range(8):
        p = p @ steps
        away = np.linalg.norm(_phase(rbm, v, p) - model)
        biases.append(away / np.linalg.norm(gradient))
    assert 0.1 < biases[0] < 0.2
    np.testing.assert_allclose(np.divide(biases[2:], biases[1:-1]), second, rtol=0.1)


def _chance(found, chances, statistic, count):
    """Returns how likely means over chains are as far off as they are, or farther.

    Args:
        found: the means of a statistic over all chains, `(n,)`.
        chances: of each row, `(starts, rows)`; as many chains have each start.
        statistic: of each row, `(rows, n)`.
        count: how many chains.
    """
    means = chances @ statistic
    squares = [(p[:, None] * statistic).T @ statistic for p in chances]
    covariance = np.mean(squares, axis=0) - means.T @ means / len(means)
    covariance = covariance / count
    away = found - means.mean(axis=0)
    if np.abs(away / np.sqrt(np.diagonal(covariance))).max() > 4:
        return 0.0
    together = away @ np.linalg.solve(covariance, away)
    return scipy.stats.chi2.sf(together, len(away))


@either_way
@pytest.mark.parametrize("k", [1, 3])
def test_cd_draws_as_the_powers_of_a_gibbs_step_say(k, jit_compile):
    rbm, rows, v = _rbm(seed=3), _rows(), equations.states(V)
    statistic = equations.statistics(rbm, v)
    data, steps = equations.statistics(rbm, rows).mean(axis=0), equations.gibbs(rbm)
    first = equations.hidden_given(rbm, rows)
    first = first @ equations.visible_given(rbm, equations.states(L))  # (10, 2^V)
    chances = first @ np.linalg.matrix_power(steps, k - 1)
    many = np.tile(rows, (10_000, 1))
    trainer = _trainer(rbm, k=k, batch_size=len(many), jit_compile=jit_compile)
    found = data - _change(rbm, trainer, many)
    assert 1e-3 < _chance(found, chances, statistic, len(many)) < 0.999
    assert _chance(found, chances @ steps, statistic, len(many)) < 1e-9


@either_way
def test_the_chains_of_pcd_live_on_from_update_to_update(jit_compile):
    rbm, rows, chains, small = _rbm(seed=3), _rows(), 100_000, 1e-6
    statistic = equations.statistics(rbm, equations.states(V))
    data, steps = equations.statistics(rbm, rows).mean(axis=0), equations.gibbs(rbm)
    # from hidden units drawn evenly, by one step an update
    chances = equations.visible_given(rbm, equations.states(L)).mean(axis=0)[None]
    trainer = _trainer(
        rbm, "pcd", chains=chains, learning_rate=small, jit_compile=jit_compile
    )
    for _ in range(3):
        found = data - _change(rbm, trainer, rows) / small
        assert 1e-3 < _chance(found, chances, statistic, chains) < 0.999
        chances = chances @ steps
        assert _chance(found, chances, statistic, chains) < 1e-9


def test_probabilities_in_the_last_step_leave_the_chains_of_pcd_as_they_are():
    rbm, rows, chains, small = _rbm(seed=3), _rows(), 100_000, 1e-6
    v, h = equations.states(V), equations.states(L)
    down = equations.visible_given(rbm, h)
    statistic = equations.statistics(rbm, down @ v)  # of the mean, given each state
    data = equations.statistics(rbm, rows).mean(axis=0)
    steps, chances = down @ equations.hidden_given(rbm, v), np.full((1, 2**L), 2.0**-L)
    trainer = _trainer(
        rbm, "pcd", chains=chains, learning_rate=small, sample_visible=False
    )
    for _ in range(3):
        found = data - _change(rbm, trainer, rows) / small
        assert 1e-3 < _chance(found, chances, statistic, chains) < 0.999
        chances = chances @ steps
        assert _chance(found, chances, statistic, chains) < 1e-9


def test_cd_may_end_with_probabilities():
    rbm, rows = _rbm(seed=3), _rows()
    means = equations.visible_given(rbm, equations.states(L)) @ equations.states(V)
    statistic, many = equations.statistics(rbm, means), np.tile(rows, (10_000, 1))
    chances = equations.hidden_given(rbm, rows)
    data = equations.statistics(rbm, rows).mean(axis=0)
    trainer = _trainer(rbm, batch_size=len(many), sample_visible=False)
    found = data - _change(rbm, trainer, many)
    assert 1e-3 < _chance(found, chances, statistic, len(many)) < 0.999


def test_what_lies_between_0_and_1_is_the_chance_of_a_one_or_is_taken_as_it_is():
    rbm, drawn, v = _rbm(), _rbm(), equations.states(V)
    statistic = equations.statistics(rbm, v)
    model = np.exp(equations.log_p(rbm, v)) @ statistic
    rows = np.random.default_rng(3).random((10, V))
    taken, many = equations.statistics(rbm, rows).mean(axis=0), np.tile(rows, (10_000, 1))
    how = {"method": "exact", "batch_size": len(many)}
    found = model + _change(rbm, _trainer(rbm, sample_visible=False, **how), many)
    np.testing.assert_allclose(found, taken, rtol=0, atol=1e-10)
    found = model + _change(drawn, _trainer(drawn, **how), many)
    chances = np.where(v == 1, rows[:, None], 1 - rows[:, None]).prod(axis=2)
    assert 1e-3 < _chance(found, chances, statistic, len(many)) < 0.999
    assert np.abs(found - taken).max() > 0.01


@either_way
def test_cd_of_gaussian_units_draws_as_an_integral_says(jit_compile):
    rbm, rows = _rbm(2, 3, "gaussian"), _rows(rows=5, units=2, visible="gaussian")
    nodes, areas = np.polynomial.hermite_e.hermegauss(40)
    noise = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    spread = np.exp(equations.weights(rbm)["log_variance"] / 2)
    means = ops.convert_to_numpy(rbm.visible_mean(equations.states(3)))
    v = (means[:, None] + spread * noise).reshape(-1, 2)  # given each hidden state
    area = np.outer(areas, areas).ravel() / (2 * np.pi)
    chances = equations.hidden_given(rbm, rows)[:, :, None] * area
    statistic = equations.statistics(rbm, v)
    data, many = equations.statistics(rbm, rows).mean(axis=0), np.tile(rows, (20_000, 1))
    trainer = _trainer(rbm, batch_size=len(many), jit_compile=jit_compile)
    found = data - _change(rbm, trainer, many)
    likely = _chance(found, chances.reshape(5, -1), statistic, len(many))
    assert 1e-3 < likely < 0.999


def _updates_by_hand(
    rbm, rows, rates, momenta, decay=0.0, target=0.0, cost=0.0, offset_rate=0.0, every=1
):
    """Trains an RBM by exact gradients in NumPy, an update for each rate.

    The offsets take the running means at every so many updates, and at the end.
    """
    velocity, w = 0, equations.weights(rbm)
    mean_v, running_h = w["visible_offset"], w["hidden_offset"]
    for n, (rate, momentum) in enumerate(zip(rates, momenta, strict=True), start=1):
        mean_h = equations.hidden_given(rbm, rows) @ equations.states(rbm.units)
        mean_h = mean_h.mean(axis=0)
        slope = equations.gradient(rbm, rows)
        size = rbm.kernel.shape[0] * rbm.units
        slope[:size] -= decay * equations.learned(rbm)[:size]
        slope[-rbm.units :] += cost * (target - mean_h)
        velocity = momentum * velocity + rate * slope
        equations.set_learned(rbm, equations.learned(rbm) + velocity)
        velocity = velocity if momentum else 0  # kept from one epoch to the next
        mean_v = mean_v + offset_rate * (rows.mean(axis=0) - mean_v)
        running_h = running_h + offset_rate * (mean_h - running_h)
        if n % every and n < len(rates):
            continue
        w = equations.weights(rbm)
        of_v, of_h = mean_v - w["visible_offset"], running_h - w["hidden_offset"]
        rbm.visible_offset.assign(mean_v)
        rbm.hidden_offset.assign(running_h)
        rbm.visible_bias.assign(w["visible_bias"] + w["kernel"] @ of_h)
        rbm.hidden_bias.assign(w["hidden_bias"] + of_v @ w["kernel"])


@pytest.mark.parametrize("centred", [True, False])
def test_updates_equal_the_equations(centred):
    rates, momenta = [0.1, 0.3, 0.2], [0.0, 0.6, 0.9]
    rbm, by_hand, rows = _rbm(), _rbm(), _rows()
    trainer = _trainer(
        rbm,
        "exact",
        learning_rate=lambda epoch: rates[epoch],
        momentum=lambda epoch: momenta[epoch],
        weight_decay=0.03,
        sparsity_target=0.1,
        sparsity_cost=0.5,
        centred=centred,
        offset_rate=0.2,
    )
    trainer.fit(rows, 3)
    offset_rate = 0.2 if centred else 0
    _updates_by_hand(by_hand, rows, rates, momenta, 0.03, 0.1, 0.5, offset_rate)
    for found, wanted in zip(rbm.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@either_way
@pytest.mark.parametrize("hidden", [L, 16], ids=["filled up", "whole lanes"])
def test_offsets_move_every_tenth_update_and_after_the_last(hidden, jit_compile):
    rbm, by_hand = _rbm(7, hidden), _rbm(7, hidden)
    rows, often = _rows(units=7), 23
    how = {"learning_rate": 0.2, "momentum": 0.5, "jit_compile": jit_compile}
    _trainer(rbm, "exact", centred=True, passes=often, offset_rate=0.1, **how).fit(
        rows, 1
    )
    rates, momenta = [0.2] * often, [0.5] * often
    _updates_by_hand(by_hand, rows, rates, momenta, offset_rate=0.1, every=10)
    for found, wanted in zip(rbm.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


@every_kind
def test_recentring_leaves_the_density_as_it_was(visible):
    rbm, rows = _rbm(visible=visible), _rows(rows=50, visible=visible)
    before = enumeration.log_likelihood(rbm, rows)
    draw = np.random.default_rng(3)
    offsets = draw.normal(size=V), draw.normal(size=L)
    moved = gradient.recentred(rbm.density(), *offsets)
    assert moved[3:5] == offsets
    rbm.set_density(moved)
    after = enumeration.log_likelihood(rbm, rows)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-10)


@every_kind
@pytest.mark.parametrize("method", ["cd", "pcd"])
def test_a_centred_update_leads_to_the_density_of_an_uncentred_one(visible, method):
    rows, after = _rows(visible=visible), []
    for centred in (True, False):
        rbm = _rbm(visible=visible)
        _trainer(rbm, method, learning_rate=0.1, centred=centred).fit(rows, 1)
        after.append(enumeration.log_likelihood(rbm, rows))
    np.testing.assert_allclose(*after, rtol=0, atol=1e-10)
    unlearned = enumeration.log_likelihood(_rbm(visible=visible), rows)
    assert np.abs(after[0] - unlearned).max() > 0.1


def _flipped(rows, flip, centred, method, epochs, **how):
    """Returns the mean log-likelihood after training on rows, or on 1 less the rows.

    The kernel starts with the other sign for these.
    """
    rbm = RBM(16, seed=1, dtype="float64")
    rbm.adapt(1 - rows if flip else rows, centred)
    rbm.kernel.assign(-rbm.kernel if flip else rbm.kernel)
    trainer = ContrastiveDivergence(rbm, method, centred=centred, **how)
    trainer.fit(1 - rows if flip else rows, epochs)
    return enumeration.log_likelihood(rbm, 1 - rows if flip else rows).mean()


def test_a_centred_rbm_learns_flipped_rows_as_well():
    rows = (np.random.default_rng(2).random((20, V)) < 0.2).astype(float)
    how = {"batch_size": 20, "passes": 100, "learning_rate": 0.2, "momentum": 0.9}
    how |= {"method": "exact", "epochs": 1, "jit_compile": False}
    one, other = (_flipped(rows, flip, True, **how) for flip in (False, True))
    assert one == pytest.approx(other, abs=1e-9)
    one, other = (_flipped(rows, flip, False, **how) for flip in (False, True))
    assert abs(one - other) > 0.005


def test_a_centred_rbm_learns_flipped_digits_as_well(digits):
    how = {"method": "cd", "epochs": 10, "learning_rate": 0.1, "jit_compile": False}
    one, other = (_flipped(digits, flip, True, **how) for flip in (False, True))
    assert one == pytest.approx(other, abs=0.05)
    one, other = (_flipped(digits, flip, False, **how) for flip in (False, True))
    assert other < one - 0.1


def test_a_last_batch_of_one_row_counts_as_one_row(prototypes):
    found = []
    for count in (1000, 1001):
        rbm = RBM(8, seed=1, dtype="float64")
        ContrastiveDivergence(rbm, batch_size=10, seed=1).fit(prototypes[:count], 50)
        found.append(enumeration.log_likelihood(rbm, prototypes[:1000]).mean())
    assert abs(found[0] - found[1]) < 0.05
    assert min(found) > -30 * np.log(2) + 0.5  # both have learned


@pytest.mark.parametrize("method", ["cd", "pcd", "exact"])
def test_what_fills_up_a_batch_does_not_count(method, monkeypatch):
    changes = []
    for filler in (0, 3):
        rbm = _rbm()
        trainer = _trainer(rbm, method)
        order, counted = trainer._order(14)
        assert counted.sum() == 14 < counted.size
        filled = np.where(counted, order, filler).astype(order.dtype)
        monkeypatch.setattr(trainer, "_order", lambda count, _=(filled, counted): _)
        changes.append(_change(rbm, trainer, _rows(rows=14)))
    np.testing.assert_array_equal(*changes)


@pytest.mark.parametrize(
    "method, k, copies, passes, rate, wanted",
    [
        ("exact", 1, 1, 1000, 0.3, -41.8),
        ("cd", 10, 20, 500, 0.2, -43.5),
        ("cd", 1, 20, 500, 0.2, -44.5),
    ],
    ids=["exact", "CD-10", "CD-1"],
)
def test_bars_and_stripes_are_learned(method, k, copies, passes, rate, wanted):
    rows, best = equations.bars_and_stripes(), -np.inf
    _, counts = np.unique(rows, axis=0, return_counts=True)
    bound = counts @ np.log(counts / 16)
    assert len(rows) == 16 and bound == pytest.approx(-41.5888, abs=1e-4)
    rbm = RBM(16, seed=1, dtype="float64")
    trainer = ContrastiveDivergence(
        rbm,
        method,
        k=k,
        batch_size=16 * copies,  # all rows, each with `copies` chains
        passes=passes // 10,
        learning_rate=rate,
        momentum=0.9,
        jit_compile=False,
    )
    for epoch in range(1, 11):
        trainer.fit(np.tile(rows, (copies, 1)), epoch)
        best = max(best, enumeration.log_likelihood(rbm, rows).sum())
    assert trainer.updates == passes
    assert wanted <= best < bound


def _file(trainer, path):
    """Returns what `save` writes, by name."""
    trainer.save(path)
    with np.load(path) as file:
        return dict(file)


def _assert_alike(trainers, tmp_path):
    """Weights, velocities, chains and counts are the same, bit for bit."""
    one, other = (_file(trainer, tmp_path / "compared.npz") for trainer in trainers)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@either_way
@pytest.mark.parametrize("method", ["cd", "pcd"])
def test_training_goes_on_from_a_file_bit_for_bit(method, jit_compile, tmp_path):
    rows = _rows(rows=47)
    how = {
        "chains": 6,
        "momentum": 0.7,
        "centred": True,
        "learning_rate": lambda epoch: 0.1 * 0.9**epoch,
        "jit_compile": jit_compile,
    }
    whole = _trainer(RBM(L, seed=1), method, **how)
    whole.fit(rows, 4)
    first = _trainer(RBM(L, seed=1), method, **how)
    first.fit(rows, 2)
    file = _file(first, tmp_path / "half.npz")
    assert np.any(file["velocity_0"]) and ("chains" in file) == (method == "pcd")
    second = _trainer(RBM(L, seed=9), method, **how)
    second.load(tmp_path / "half.npz")
    _assert_alike((first, second), tmp_path)
    history = second.fit(rows, 4)
    assert history["epoch"] == [3, 4]
    _assert_alike((whole, second), tmp_path)


def test_training_of_gaussian_units_goes_on_from_a_file_bit_for_bit(tmp_path):
    rows = _rows(rows=27, visible="gaussian")
    whole, first, second = (
        _trainer(RBM(L, "gaussian", seed=n), "pcd", learning_rate=0.01, centred=True)
        for n in (1, 1, 2)
    )
    whole.fit(rows, 4)
    first.fit(rows, 2)
    first.save(tmp_path / "half.npz")
    second.load(tmp_path / "half.npz")
    second.fit(rows, 4)
    _assert_alike((whole, second), tmp_path)


def test_a_file_written_before_the_first_epoch_is_a_start(tmp_path):
    whole, first, second = (_trainer(_rbm(), "pcd", momentum=0.5) for _ in range(3))
    first.save(tmp_path / "start.npz")
    second.load(tmp_path / "start.npz")
    for trainer in (whole, second):
        trainer.fit(_rows(), 2)
    _assert_alike((whole, second), tmp_path)


OTHERS = {
    "method": "cd",
    "chains": 6,
    "batch_size": 9,
    "passes": 2,
    "sample_visible": False,
    "centred": True,
    "seed": 1,
    "jit_compile": True,
    "visible": "gaussian",
    "visible_units": 8,
    "units": 7,
    "dtype": "float32",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_other_settings_is_refused(name, tmp_path):
    def trainer(visible_units=V, units=L, visible="bernoulli", dtype="float64", **how):
        rbm = _rbm(visible_units, units, visible, dtype)
        return _trainer(rbm, **{"method": "pcd", "chains": 5, **how})

    trainer().save(tmp_path / "file.npz")
    other = trainer(**{name: OTHERS[name]})
    with pytest.raises(ValueError, match=f"`{name}` was .* Received: {OTHERS[name]!r}"):
        other.load(tmp_path / "file.npz")


def test_each_epoch_has_its_own_k():
    scheduled, plain = _rbm(), _rbm()
    steps = [1, 3]
    _trainer(scheduled, k=lambda epoch: steps[epoch]).fit(_rows(rows=23), 2)
    trainer = _trainer(plain, k=1)
    trainer.fit(_rows(rows=23), 1)
    trainer.k = 3
    trainer.fit(_rows(rows=23), 2)
    np.testing.assert_array_equal(equations.learned(scheduled), equations.learned(plain))
    trainer.k = 1
    other = _rbm()
    _trainer(other).fit(_rows(rows=23), 2)
    assert np.any(equations.learned(other) != equations.learned(plain))


@every_kind
def test_no_two_updates_share_a_draw_even_if_k_falls(visible, monkeypatch):
    numbers, uniform = [], draws.uniform

    def noted(shape, seed, number, *rest):
        numbers.append(int(number))
        return uniform(shape, seed, number, *rest)

    monkeypatch.setattr(draws, "uniform", noted)
    trainer = _trainer(
        _rbm(visible=visible), k=lambda epoch: 5 - epoch, learning_rate=0.01
    )
    tf.config.run_functions_eagerly(True)
    try:
        trainer.fit(_rows(rows=35, visible=visible), 5)
    finally:
        tf.config.run_functions_eagerly(False)
    of_one_step = 2 if visible == "bernoulli" else 3
    assert len(numbers) == 4 * sum(1 + of_one_step * k for k in (5, 4, 3, 2, 1))
    assert len(set(numbers)) == len(numbers)


def test_rows_of_another_number_go_on_in_the_same_trainer(tmp_path):
    one, other = _trainer(_rbm()), _trainer(_rbm())
    one.fit(_rows(rows=40), 2)
    one.save(tmp_path / "half.npz")
    other.load(tmp_path / "half.npz")
    for trainer in (one, other):
        trainer.fit(_rows(rows=23), 4)
    _assert_alike((one, other), tmp_path)


@pytest.mark.parametrize("method", ["cd", "pcd", "exact"])
def test_two_devices_learn_as_one_does(method, two_devices):
    rows, after = _rows(rows=47), []
    for strategy in (None, distribution.strategy("mirrored")):
        rbm = _rbm(dtype="float32")
        trainer = _trainer(
            rbm,
            method,
            k=2,
            learning_rate=0.3,
            momentum=0.5,
            centred=True,
            sparsity_target=0.1,
            sparsity_cost=0.1,
            strategy=strategy,
        )
        assert trainer.replicas == (1 if strategy is None else 2)
        trainer.fit(rows, 1)
        after.append(rbm.get_weights())
    for one, two, start in zip(*after, _rbm().get_weights(), strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)
        assert np.abs(one - start).max() > 0.01


def test_two_devices_learn_gaussian_units_as_one_does(two_devices):
    rows, after = _rows(rows=47, visible="gaussian"), []
    for strategy in (None, distribution.strategy("mirrored")):
        rbm = _rbm(visible="gaussian", dtype="float32")
        _trainer(rbm, learning_rate=0.03, strategy=strategy).fit(rows, 1)
        after.append(equations.learned(rbm))
    np.testing.assert_allclose(*after, rtol=0, atol=1e-5)
    assert np.abs(after[0] - equations.learned(_rbm(visible="gaussian"))).max() > 0.01


@pytest.mark.parametrize("name", ["batch_size", "chains"])
def test_what_does_not_share_equally_among_devices_is_refused(name, two_devices):
    strategy = distribution.strategy("mirrored")
    with pytest.raises(ValueError, match=f"`{name}` must be 2 equal shares.*: 5"):
        _trainer(_rbm(), "pcd", strategy=strategy, **{name: 5})


def _after(prototypes, **how):
    """Returns an RBM that has learned for ten epochs."""
    rbm = RBM(8, seed=1)
    ContrastiveDivergence(rbm, jit_compile=False, **how).fit(prototypes, 10)
    return rbm


def test_weight_decay_shrinks_the_kernel(prototypes):
    free, decayed = (
        np.linalg.norm(_after(prototypes, weight_decay=decay).kernel)
        for decay in (0.0, 0.1)
    )
    assert decayed < free / 2


@pytest.mark.parametrize("target", [0.05, 0.95])
def test_a_sparsity_target_moves_the_mean_hidden_probability(target, prototypes):
    free, costly = (
        np.mean(
            _after(prototypes, sparsity_target=target, sparsity_cost=cost)(prototypes)
        )
        for cost in (0.0, 2.0)
    )
    assert abs(costly - target) < 0.05 < 0.2 < abs(free - target)


@every_kind
def test_fit_adapts_a_layer_that_is_not_built_and_leaves_others_as_they_are(visible):
    rows, new, built = _rows(visible=visible), RBM(L, visible), _rbm(visible=visible)
    offset = equations.weights(built)["visible_offset"]
    for rbm in (new, built):
        _trainer(rbm, learning_rate=1e-9, centred=rbm is new).fit(rows, 1)
    found = equations.weights(new)["visible_offset"]
    np.testing.assert_allclose(found, rows.mean(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(equations.weights(built)["visible_offset"], offset)


def test_fit_counts_epochs_in_all_and_tells_what_the_monitor_saw():
    rbm, looked = _rbm(), []

    def monitor(given, epoch):
        assert given is rbm
        looked.append(epoch)
        return {"seen": 10.0 * epoch}

    trainer = _trainer(rbm)
    history = trainer.fit(_rows(rows=23), 2, monitor)
    names = ["epoch", "seconds", "looked", "monitor_seconds", "seen"]
    assert list(history) == names
    assert history["epoch"] == history["looked"] == looked == [1, 2]
    assert history["seen"] == [10, 20]
    assert min(history["seconds"]) > 0 <= min(history["monitor_seconds"])
    assert (trainer.epoch, trainer.updates) == (2, 6)
    assert trainer.fit(_rows(rows=23), 2, monitor) == {}
    assert list(trainer.fit(_rows(rows=23), 3)) == ["epoch", "seconds"]
    history = trainer.fit(_rows(rows=23), 8, monitor, look_every=2)
    assert history["epoch"] == [4, 5, 6, 7, 8]
    assert history["looked"] == [4, 6, 8] and history["seen"] == [40, 60, 80]


def test_equal_seeds_train_alike_and_other_seeds_do_not():
    def trained(seed):
        rbm = _rbm()
        _trainer(rbm, seed=seed).fit(_rows(rows=23), 1)
        return equations.learned(rbm)

    np.testing.assert_array_equal(trained(1), trained(1))
    assert np.any(trained(1) != trained(2))


def test_each_pass_takes_every_row_once_in_an_order_of_its_own():
    trainer = _trainer(_rbm(), passes=2)
    orders = []
    for epoch in range(2):
        trainer.epoch = epoch
        order, counted = trainer._order(23)
        assert order.shape == counted.shape == (6, 10)
        assert counted.sum(axis=1).tolist() == [10, 10, 3] * 2
        orders += [order[:3][counted[:3]], order[3:][counted[3:]]]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(23))
    assert len(np.unique(orders, axis=0)) == 4


def test_training_that_diverges_says_so_and_leaves_the_layer_as_it_was():
    rbm = _rbm(visible="gaussian", dtype="float32")
    trainer = _trainer(rbm, learning_rate=20.0)
    before = rbm.get_weights()
    with pytest.raises(Diverged, match="after epoch 1: lower `learning_rate` 20"):
        trainer.fit(_rows(rows=500, visible="gaussian"), 3)
    assert trainer.epoch == 0
    for found, wanted in zip(rbm.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "argument, value",
    [
        ("method", "CD"),
        ("k", 0),
        ("k", 1.5),
        ("chains", 0),
        ("chains", 2.5),
        ("batch_size", 0),
        ("batch_size", 10.0),
        ("batch_size", True),
        ("passes", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("sparsity_target", 0.0),
        ("sparsity_target", 1.0),
        ("sparsity_cost", -1.0),
        ("offset_rate", 0.0),
        ("offset_rate", 1.1),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be .*Received: {value}"):
        ContrastiveDivergence(_rbm(), **{argument: value})


@pytest.mark.parametrize(
    "argument, later", [("k", 0), ("momentum", 1.0), ("learning_rate", -1.0)]
)
def test_a_schedule_that_becomes_wrong_is_refused_in_its_epoch(argument, later):
    start = getattr(_trainer(_rbm()), argument)
    trainer = _trainer(_rbm(), **{argument: lambda epoch: later if epoch else start})
    with pytest.raises(ValueError, match=f"`{argument}` must be .*Received: {later}"):
        trainer.fit(_rows(), 2)
    assert trainer.epoch == 1


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize(
    "rows, message",
    [
        (np.zeros((0, V)), "at least one row"),
        (np.full((3, V), np.nan), "must be finite"),
        (np.full((3, V), 1.1), r"must lie in \[0, 1\].* to 1.1"),
    ],
    ids=["none", "NaN", "above 1"],
)
def test_rows_that_are_none_are_refused(rows, message, built):
    trainer = _trainer(_rbm() if built else RBM(L))
    with pytest.raises(ValueError, match=f"`rows` .*{message}"):
        trainer.fit(rows, 1)


def test_counts_may_be_integers_of_numpy(tmp_path):
    plain, other = _rbm(), _rbm()
    _trainer(plain, "pcd", k=2, batch_size=5, chains=3).fit(_rows(), 1)
    counts = {"k": np.int64(2), "batch_size": np.int64(5), "chains": np.int32(3)}
    trainer = _trainer(other, "pcd", **counts)
    trainer.fit(_rows(), 1)
    trainer.save(tmp_path / "file.npz")
    np.testing.assert_array_equal(equations.learned(other), equations.learned(plain))


def test_a_look_every_no_epochs_is_refused():
    with pytest.raises(ValueError, match="`look_every` must be .*Received: 0"):
        _trainer(_rbm()).fit(_rows(), 1, look_every=0)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="must have 9 columns.* Received: 8"):
        _trainer(_rbm()).fit(_rows(units=8), 1)


def test_an_exact_gradient_that_has_too_many_rows_or_endless_ones_is_refused():
    for rbm, received in (
        (_rbm(21, 3), "21 bernoulli units"),
        (_rbm(3, 3, "gaussian"), "3 gaussian units"),
    ):
        with pytest.raises(ValueError, match=f"at most 20 .* Received: {received}"):
            _trainer(rbm, "exact").fit(_rows(units=rbm.kernel.shape[0]), 1)
