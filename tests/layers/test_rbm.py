"""The RBM is the density of its equations, and a layer like any other."""

import warnings

import keras
import layer_checks
import numpy as np
import pytest
import rbm_equations as equations
import scipy.stats
from keras import ops

from engram.layers import RBM
from engram.layers.rbm import energy
from engram.layers.rbm.rbm import VISIBLE

V, L, B = 5, 4, 7
every_kind = pytest.mark.parametrize("visible", VISIBLE)


def _rbm(visible="bernoulli", dtype="float64", seed=3):
    """Returns a built RBM whose weights are all drawn, none is zero."""
    return equations.draw_weights(RBM(L, visible, seed=seed, dtype=dtype), V)


def _rows(visible="bernoulli", rows=B, dtype="float64"):
    draw = np.random.default_rng(2)
    if visible == "bernoulli":
        return draw.integers(0, 2, (rows, V)).astype(dtype)
    return draw.normal(size=(rows, V)).astype(dtype)


def _close(found, wanted, tolerance=1e-12):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


@every_kind
def test_the_energy_equals_the_equation(visible):
    rbm, v, h = _rbm(visible), _rows(visible), equations.states(L)
    names = ["kernel", "hidden_bias", "visible_bias", "visible_offset", "hidden_offset"]
    names += ["log_variance"] if visible == "gaussian" else []
    assert [weight.name for weight in rbm.weights] == names
    wanted = equations.energies(rbm, v, h)
    for k in range(len(h)):
        _close(rbm.energy(v, np.tile(h[k], (B, 1))), wanted[:, k])


@every_kind
def test_the_free_energy_sums_over_all_hidden_states(visible):
    rbm, v = _rbm(visible), _rows(visible)
    _close(rbm.free_energy(v), equations.free_energy(rbm, v))


def test_the_free_energy_of_hidden_units_sums_over_all_rows():
    rbm, h = _rbm(), equations.states(L)
    wanted = -equations.log_sum(-equations.energies(rbm, equations.states(V), h), axis=0)
    _close(energy.hidden_free_energy(rbm.density(), ops.convert_to_tensor(h)), wanted)


@every_kind
def test_a_call_gives_the_chances_of_the_hidden_units(visible):
    rbm, v = _rbm(visible), _rows(visible)
    wanted = equations.hidden_given(rbm, v) @ equations.states(L)
    _close(rbm(v), wanted)
    _close(rbm.hidden_probabilities(v), wanted)


def test_the_mean_of_bernoulli_units_given_hidden_ones_sums_over_all_rows():
    rbm, h = _rbm(), equations.states(L)
    wanted = equations.visible_given(rbm, h) @ equations.states(V)
    _close(rbm.visible_mean(h), wanted)


def test_gaussian_units_given_hidden_ones_are_normal_around_their_mean():
    # E(v, h) as a function of v is |v - mean|^2 / (2 sigma^2) and a constant.
    rbm, v, h = _rbm("gaussian"), _rows("gaussian"), equations.states(L)
    mean = ops.convert_to_numpy(rbm.visible_mean(h))
    variance = np.exp(equations.weights(rbm)["log_variance"])
    apart = ((v[:, None] - mean) ** 2 / (2 * variance)).sum(axis=2)
    at_mean = np.diagonal(equations.energies(rbm, mean, h))
    _close(equations.energies(rbm, v, h), apart + at_mean)


def test_a_reconstruction_is_the_mean_of_the_rows_given_the_mean_of_the_hidden_units():
    rbm, v = _rbm(), _rows()
    w = equations.weights(rbm)
    q = ops.convert_to_numpy(rbm(v)) - w["hidden_offset"]
    wanted = 1 / (1 + np.exp(-(w["visible_bias"] + q @ w["kernel"].T)))
    _close(rbm.reconstruct(v), wanted)


def _deviations(drawn, chances):
    """Returns by how many standard errors the means of draws of 0 and 1 are off."""
    assert set(np.unique(drawn)) == {0, 1}
    error = np.sqrt(chances * (1 - chances) / len(drawn))
    return (drawn.mean(axis=0) - chances) / error


@every_kind
def test_hidden_units_are_drawn_with_their_chances(visible):
    rbm, v = _rbm(visible), _rows(visible, rows=1)
    drawn = ops.convert_to_numpy(rbm.sample_hidden(np.repeat(v, 20_000, axis=0)))
    assert np.abs(_deviations(drawn, ops.convert_to_numpy(rbm(v))[0])).max() < 4


def test_bernoulli_units_are_drawn_with_their_chances():
    rbm, h = _rbm(), equations.states(L)[5:6]
    drawn = ops.convert_to_numpy(rbm.sample_visible(np.repeat(h, 20_000, axis=0)))
    mean = ops.convert_to_numpy(rbm.visible_mean(h))[0]
    assert np.abs(_deviations(drawn, mean)).max() < 4


def test_gaussian_units_are_drawn_with_their_mean_and_variance():
    rbm, h = _rbm("gaussian"), equations.states(L)[5:6]
    drawn = ops.convert_to_numpy(rbm.sample_visible(np.repeat(h, 20_000, axis=0)))
    spread = np.exp(equations.weights(rbm)["log_variance"] / 2)
    standard = (drawn - ops.convert_to_numpy(rbm.visible_mean(h))) / spread
    for unit in standard.T:
        assert scipy.stats.kstest(unit, "norm").pvalue > 1e-3
    among = np.corrcoef(standard.T)[np.triu_indices(V, 1)]
    assert np.abs(among).max() < 4 / np.sqrt(len(standard))


def test_a_long_chain_visits_every_row_as_often_as_the_density_says():
    rbm, v = _rbm(), equations.states(V)
    chains, counts = np.zeros((3000, V)), np.zeros(len(v))
    digits = 2 ** np.arange(V)[::-1]
    for _ in range(10):
        chains = ops.convert_to_numpy(rbm.sample(chains, 15))
        counts += np.bincount((chains @ digits).astype(int), minlength=len(v))
    wanted = np.exp(equations.log_p(rbm, v)) * counts.sum()
    assert wanted.min() > 5  # else chi-square says nothing
    assert np.sort(np.abs(np.linalg.eigvals(equations.gibbs(rbm))))[-2] ** 15 < 1e-3
    assert scipy.stats.chisquare(counts, wanted).pvalue > 1e-3


def test_long_gaussian_chains_have_the_marginals_of_the_mixture():
    rbm, h = _rbm("gaussian"), equations.states(L)
    means = ops.convert_to_numpy(rbm.visible_mean(h))
    spread = np.exp(equations.weights(rbm)["log_variance"] / 2)
    # Each hidden state's weight is the mass of e^-E over v, by its height at the mean.
    logits = -np.diagonal(equations.energies(rbm, means, h))
    shares = np.exp(logits - equations.log_sum(logits))
    drawn = ops.convert_to_numpy(rbm.sample(np.zeros((5000, V)), 60))
    for unit in range(V):

        def cdf(x, unit=unit):
            at = (x[:, None] - means[:, unit]) / spread[unit]
            return scipy.stats.norm.cdf(at) @ shares

        assert scipy.stats.kstest(drawn[:, unit], cdf).pvalue > 1e-3


def test_equal_seeds_start_and_draw_alike_and_other_seeds_do_not():
    def drawn(seed):
        rbm = RBM(L, seed=seed)
        rbm.adapt(_rows())
        return rbm.get_weights()[0], ops.convert_to_numpy(rbm.sample(_rows(), 3))

    for found, wanted in zip(drawn(1), drawn(1), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for found, other in zip(drawn(1), drawn(2), strict=True):
        assert np.any(found != other)


def test_by_default_the_kernel_starts_small_and_all_else_at_zero():
    rbm = RBM(200, "gaussian", seed=1)
    rbm.build((None, 100))
    kernel, *others = rbm.get_weights()
    assert kernel.std() == pytest.approx(0.01, rel=0.05)
    assert abs(kernel.mean()) < 4 * 0.01 / np.sqrt(kernel.size)
    for one in others:
        np.testing.assert_array_equal(one, 0)


@pytest.mark.parametrize("centred", [True, False])
def test_adapted_without_a_kernel_it_has_the_means_of_the_rows(centred):
    rows = _rows(rows=40)
    rows[:, 0], rows[:, 1] = 0, 1  # even of what never changes
    rbm = RBM(L, kernel_initializer="zeros", dtype="float64")
    rbm.adapt(rows, centred)
    smoothed = (rows.sum(axis=0) + 0.5) / 41
    _close(rbm.reconstruct(rows[:1])[0], smoothed)
    w = equations.weights(rbm)
    np.testing.assert_array_equal(w["visible_offset"], rows.mean(axis=0) * centred)
    np.testing.assert_array_equal(w["hidden_offset"], 0.5 if centred else 0)
    np.testing.assert_array_equal(w["hidden_bias"], 0)


@pytest.mark.parametrize("centred", [True, False])
def test_adapted_gaussian_units_have_the_means_and_variances_of_the_rows(centred):
    rows = _rows("gaussian", rows=40) * [1, 2, 3, 0.1, 0] + [0, 1, 2, 3, 4]
    rbm = RBM(L, "gaussian", kernel_initializer="zeros", dtype="float64")
    rbm.adapt(rows, centred)
    _close(rbm.reconstruct(rows[:1])[0], rows.mean(axis=0))
    w = equations.weights(rbm)
    _close(np.exp(w["log_variance"]), [*rows[:, :4].var(axis=0), 1])
    _close(w["visible_offset"], rows.mean(axis=0) * centred)


def test_adapting_sets_a_built_layer_anew_and_keeps_its_kernel():
    rbm, rows = _rbm(), _rows()
    kernel = rbm.get_weights()[0]
    rbm.adapt(rows)
    w = equations.weights(rbm)
    np.testing.assert_array_equal(w["kernel"], kernel)
    np.testing.assert_array_equal(w["hidden_bias"], 0)
    _close(w["visible_offset"], rows.mean(axis=0))


def test_weights_go_out_and_in_as_a_density():
    rbm, other = _rbm("gaussian"), RBM(L, "gaussian", dtype="float64")
    other.build((None, V))
    other.set_density(rbm.density())
    for found, wanted in zip(other.get_weights(), rbm.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_config_keeps_every_argument():
    rbm = RBM(
        units=L,
        visible="gaussian",
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(0.3),
        seed=7,
    )
    layer_checks.check_config(rbm)


def test_a_fresh_process_reloads_both_kinds(tmp_path):
    inputs = keras.Input((V,))
    kinds = [_rbm(visible, dtype="float32")(inputs) for visible in VISIBLE]
    model = keras.Model(inputs, keras.layers.Concatenate()(kinds))
    layer_checks.check_reload(
        model, _rows(dtype="float32"), tmp_path, "engram.layers.rbm.rbm"
    )


@every_kind
def test_a_reloaded_layer_is_the_same_density(visible, tmp_path):
    rows = _rows(visible, dtype="float32")
    rbm = RBM(L, visible, seed=1)
    rbm.adapt(rows)  # builds it
    keras.Sequential([keras.Input((V,)), rbm]).save(tmp_path / "model.keras")
    (again,) = keras.models.load_model(tmp_path / "model.keras").layers
    np.testing.assert_array_equal(again.free_energy(rows), rbm.free_energy(rows))
    np.testing.assert_array_equal(again.reconstruct(rows), rbm.reconstruct(rows))


def test_the_batch_may_be_unknown_and_axes_may_stand_before_the_last():
    rbm = _rbm(dtype="float32")
    inputs = keras.Input(batch_shape=(None, None, V))
    model = keras.Model(inputs, rbm(inputs))
    assert model.output_shape == (None, None, L)
    assert rbm.compute_output_shape((3, 2, V)) == (3, 2, L)
    for batch, steps in ((3, 2), (1, 4)):
        x = _rows(rows=batch * steps, dtype="float32")
        found = model.predict(x.reshape(batch, steps, V), verbose=0)
        _close(found.reshape(-1, L), rbm(x), 1e-6)


def test_a_mask_is_passed_on():
    x = np.stack([_rows(), _rows()])
    x[0, 2:4] = 9
    h = keras.layers.Masking(9.0)(x)
    found = _rbm(dtype="float32")(h)
    np.testing.assert_array_equal(found._keras_mask, (x != 9).any(axis=-1))


@every_kind
def test_mixed_precision_outputs_the_compute_dtype(visible):
    layer_checks.check_policies(
        lambda policy: _rbm(visible, dtype=policy), _rows(visible), tolerance=0.01
    )


def test_under_a_mixed_policy_the_density_keeps_its_full_precision():
    rbm, half = _rbm(dtype="float32"), _rbm(dtype="mixed_float16")
    np.testing.assert_array_equal(half.free_energy(_rows()), rbm.free_energy(_rows()))
    np.testing.assert_array_equal(half.reconstruct(_rows()), rbm.reconstruct(_rows()))


@every_kind
def test_gradients_reach_the_kernel_and_the_hidden_bias(visible):
    rbm = _rbm(visible, dtype="float32")
    assert [w.name for w in rbm.trainable_weights] == ["kernel", "hidden_bias"]
    layer_checks.check_gradients(rbm, _rows(visible, dtype="float32"))


@every_kind
def test_fit_trains_what_the_output_depends_on_and_leaves_the_rest(visible):
    rbm = _rbm(visible, dtype="float32")
    model = keras.Sequential([rbm, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    x = _rows(visible, rows=64, dtype="float32")
    before = equations.weights(rbm)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no gradient is missing
        history = model.fit(x, x[:, :1], epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0] / 2
    for name, after in equations.weights(rbm).items():
        assert np.any(after != before[name]) == (name in ("kernel", "hidden_bias")), name


def test_the_regularizer_counts_in_the_loss():
    rbm = RBM(L, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.5))
    rbm(_rows(dtype="float32"))
    assert float(sum(rbm.losses)) == pytest.approx(0.5 * V * L)


def test_a_compiled_training_step_equals_the_plain_one():
    def make():
        return keras.Sequential([keras.Input((V,)), _rbm(dtype="float32")])

    target = np.random.default_rng(4).uniform(size=(B, L))
    layer_checks.check_compiled_step(make, _rows(dtype="float32"), target)


@pytest.mark.parametrize(
    "argument, value",
    [
        ("units", 0),
        ("units", -1),
        ("units", 2.5),
        ("visible", "binary"),
        ("visible", None),
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_value(argument, value):
    def make(units=L, **arguments):
        return RBM(units, **arguments)

    layer_checks.check_refused(make, argument, value)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match=f"expected axis -1 .* to have value {V}"):
        _rbm(dtype="float32")(np.zeros((2, V + 1), "float32"))


def _spoilt(value):
    rows = _rows()
    rows[1, 2] = value
    return rows


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.zeros((0, V)), r"at least one row.* Received: \(0, 5\)"),
        (np.zeros((3, 0)), r"at least one row.* Received: \(3, 0\)"),
        (np.zeros(V), r"shape \(rows, visible units\).* Received: \(5,\)"),
        (np.zeros((2, 3, V)), r"shape \(rows, visible units\).* Received: \(2, 3, 5\)"),
        (_spoilt(np.nan), "be finite. Received: 1 NaN"),
        (_spoilt(np.inf), "be finite. Received: 1 NaN or infinite"),
        (_spoilt(1.5), r"in \[0, 1\] .* Received: from 0 to 1.5"),
        (_spoilt(-0.5), r"in \[0, 1\] .* Received: from -0.5 to 1"),
    ],
    ids=["no rows", "no units", "one row", "frames", "NaN", "inf", "above 1", "below 0"],
)
def test_rows_that_are_none_are_refused(rows, message):
    with pytest.raises(ValueError, match=f"`rows` must .*{message}"):
        RBM(L).adapt(rows)


def test_rows_that_do_not_fit_the_built_layer_are_refused():
    with pytest.raises(ValueError, match="must have 5 columns.* Received: 6"):
        _rbm().adapt(np.zeros((3, V + 1)))


def test_gaussian_units_take_any_number_but_no_nan():
    rbm = RBM(L, "gaussian")
    rbm.adapt(_spoilt(-7.0))
    with pytest.raises(ValueError, match="must be finite"):
        rbm.adapt(_spoilt(np.nan))
