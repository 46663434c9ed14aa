"""A linear code keeps the principal axes of rows, and leads back as least squares say."""

import keras
import layer_checks
import numpy as np
import pytest
from keras import ops
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from engram.layers.rbm.linear_code import INSIDE, LinearCode, principal_axes

draw = np.random.default_rng(1)
ROWS = 1 / (1 + np.exp(-3 * draw.normal(size=(200, 3)) @ draw.normal(size=(3, 7))))


def _adapted(units=3, dtype="float64"):
    layer = LinearCode(units, dtype=dtype)
    layer.adapt(ROWS)
    return layer


def test_the_axes_are_those_of_scikit_learn():
    mean, axes = principal_axes(ROWS, 4)
    peer = PCA(4).fit(ROWS)
    np.testing.assert_allclose(mean, peer.mean_, atol=1e-12)
    np.testing.assert_allclose(np.abs(axes), np.abs(peer.components_.T), atol=1e-9)
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-12)


def test_an_axis_points_where_its_largest_entry_is_positive():
    _, axes = principal_axes(ROWS, 7)
    assert (axes[np.abs(axes).argmax(axis=0), range(7)] > 0).all()
    _, again = principal_axes(ROWS[::-1], 7)
    np.testing.assert_allclose(axes, again, atol=1e-9)


def test_the_code_is_the_place_along_each_axis_from_the_mean():
    mean, axes = principal_axes(ROWS, 3)
    layer = _adapted()
    np.testing.assert_allclose(layer(ROWS), (ROWS - mean) @ axes, atol=1e-12)
    np.testing.assert_allclose(layer(mean[None]), np.zeros((1, 3)), atol=1e-12)


def test_the_way_back_is_the_least_squares_fit_of_the_logits():
    layer = _adapted()
    code, inner = ops.convert_to_numpy(layer(ROWS)), ROWS.clip(INSIDE, 1 - INSIDE)
    fit = LinearRegression().fit(code, np.log(inner / (1 - inner)))
    expected = 1 / (1 + np.exp(-fit.predict(code)))
    np.testing.assert_allclose(layer.visible_mean(code), expected, atol=1e-9)
    zero = layer.visible_mean(np.zeros((1, 3)))
    middle = np.log(inner / (1 - inner)).mean(axis=0)
    np.testing.assert_allclose(zero[0], 1 / (1 + np.exp(-middle)), atol=1e-9)


def test_rows_whose_logits_are_linear_in_the_code_come_back_as_they_were():
    # one number decides of both columns, by the same law: the axis orders the rows as it
    rows = np.repeat(ROWS[:, :1], 2, axis=1) * 0.02 + 0.49  # where logits are straight
    layer = LinearCode(1, dtype="float64")
    layer.adapt(rows)
    np.testing.assert_allclose(layer.visible_mean(layer(rows)), rows, atol=1e-6)


def test_rows_of_only_zeros_and_ones_have_a_way_back_too():
    rows = np.round(ROWS)
    rows[:, 0] = 0  # a column that never changes
    layer = LinearCode(3)
    layer.adapt(rows)
    back = ops.convert_to_numpy(layer.visible_mean(layer(rows)))
    assert np.isfinite(back).all() and back[:, 0].max() < 0.001
    assert ((back - rows) ** 2).sum() < ((rows.mean(axis=0) - rows) ** 2).sum() / 4


def test_the_config_is_complete():
    layer_checks.check_config(LinearCode(3))


def test_a_reloaded_code_is_the_same(tmp_path):
    layer = _adapted(dtype="float32")
    model = keras.Sequential([keras.Input((7,)), layer])
    layer_checks.check_reload(
        model, ROWS.astype("float32"), tmp_path, "engram.layers.rbm.linear_code"
    )


def test_fitting_leaves_its_weights_alone():
    layer = _adapted()
    assert layer.trainable_weights == [] and len(layer.weights) == 4


@pytest.mark.parametrize("units", [0, -1, 2.5, "3"])
def test_units_that_are_no_positive_integer_are_refused(units):
    with pytest.raises(ValueError, match=f"positive integer. Received: {units}"):
        LinearCode(units)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (ROWS[:, :2], "at least 3 columns, .* Received: 2"),
        (2 * ROWS, r"must lie in \[0, 1\]"),
        (np.full((4, 7), np.nan), "must be finite"),
        (ROWS[0], "must be of shape"),
    ],
)
def test_rows_that_have_no_such_code_are_refused(rows, told):
    with pytest.raises(ValueError, match=told):
        LinearCode(3).adapt(rows)


def test_rows_of_another_width_than_before_are_refused():
    with pytest.raises(ValueError, match="must have 7 columns.* Received: 6"):
        _adapted().adapt(ROWS[:, :6])
