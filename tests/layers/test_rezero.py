"""ReZero is a learned number times its input, 0 at first, and comes back from a file."""

import keras
import layer_checks
import numpy as np

from engram.layers import ReZero

X = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32)


def _with(scale, **how):
    layer = ReZero(**how)
    layer.build(X.shape)
    layer.scale.assign(scale)
    return layer


def test_it_is_closed_at_first_and_then_its_number_times_the_input():
    layer = ReZero()
    assert not keras.ops.convert_to_numpy(layer(X)).any()
    np.testing.assert_array_equal(_with(-1.5)(X), -1.5 * X)
    assert [weight.shape for weight in layer.trainable_weights] == [()]


def test_its_number_learns_and_precision_is_that_of_the_policy():
    model = keras.Sequential([keras.Input((4, 5)), _with(0.5)])
    layer_checks.check_gradients(model, X)
    layer_checks.check_policies(lambda policy: _with(0.5, dtype=policy), X, 2e-3)


def test_a_mask_is_passed_on():
    inputs = keras.Input((4,), dtype="int32")
    h = ReZero()(keras.layers.Embedding(9, 2, mask_zero=True)(inputs))
    assert h._keras_mask is not None


def test_it_comes_back_in_a_fresh_process(tmp_path):
    model = keras.Sequential([keras.Input((4, 5)), _with(0.5, name="scale")])
    layer_checks.check_reload(model, X, tmp_path, "engram.layers.rezero")
