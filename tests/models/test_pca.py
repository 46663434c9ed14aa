"""PCA solves at once, and leaves out exactly the smallest eigenvalues."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.decomposition import PCA

from engram import models

SPEC = {"task": "reconstruction", "shape": [3, 4, 1], "visible": 12}
draw = np.random.default_rng(1)
ROWS = draw.uniform(size=(90, 12)) * draw.uniform(size=12) + 0.1 * draw.uniform(size=12)
ROWS = ROWS.astype(np.float32)


def _data(rows, batch_size=25):
    """Returns batches of pairs, as `tasks.reconstruction.batches`."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((rows, rows)).batch(batch_size)


def _fitted(units, **more):
    model = models.build("pca", SPEC, 0.001, units=units)
    return model, model.fit(_data(ROWS), **more)


@pytest.mark.parametrize("units", [1, 5, 12])
def test_the_error_on_training_rows_is_the_sum_of_the_eigenvalues_left_out(units):
    model, _ = _fitted(units)
    error = ((model.predict(ROWS, verbose=0) - ROWS) ** 2).sum(axis=1).mean()
    eigenvalues = np.linalg.eigvalsh(np.cov(ROWS.astype(float).T, bias=True))
    assert error == pytest.approx(eigenvalues[: 12 - units].sum(), rel=1e-4, abs=1e-9)


def test_other_rows_are_projected_as_scikit_learn_does():
    model, _ = _fitted(4)
    rows, peer = draw.uniform(size=(7, 12)), PCA(4).fit(ROWS.astype(float))
    expected = peer.inverse_transform(peer.transform(rows))
    np.testing.assert_allclose(model.predict(rows, verbose=0), expected, atol=1e-5)


def test_it_is_two_dense_layers_around_a_linear_code():
    model, _ = _fitted(4)
    kinds = [(type(one), one.activation.__name__) for one in model.layers[1:]]
    assert kinds == [(keras.layers.Dense, "linear")] * 2
    assert [layer.name for layer in model.layers] == ["row", "code", "visible"]
    code = keras.Model(model.input, model.get_layer("code").output)
    np.testing.assert_allclose(ops.mean(code(ROWS), axis=0), np.zeros(4), atol=1e-6)


def test_it_reports_losses_as_one_epoch_does():
    class Heard(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.epoch, self.logs = epoch, logs

    heard = Heard()
    model, history = _fitted(4, validation_data=_data(ROWS[:30]), callbacks=[heard])
    losses = [((model.predict(r, verbose=0) - r) ** 2).mean() for r in (ROWS, ROWS[:30])]
    wanted = dict(zip(("loss", "val_loss"), losses, strict=True))
    assert {key: [value] for key, value in heard.logs.items()} == history.history
    assert heard.epoch == 0 and heard.logs == pytest.approx(wanted, rel=1e-4)


def test_the_order_of_the_rows_and_their_batches_do_not_matter():
    model, _ = _fitted(3)
    other = models.build("pca", SPEC, 0.001, units=3)
    other.fit(_data(ROWS[::-1], 7))
    np.testing.assert_allclose(model(ROWS), other(ROWS), atol=1e-5)


def test_it_comes_back_from_its_file_and_is_still_solved_at_once(tmp_path):
    model, _ = _fitted(4)
    model.save(tmp_path / "model.keras")
    again = models.load("pca", "reconstruction", tmp_path / "model.keras")
    np.testing.assert_array_equal(again(ROWS), ops.convert_to_numpy(model(ROWS)))
    assert hasattr(again, "solve")


def test_a_code_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="`units` must be at most 12, .* Received: 13"):
        models.build("pca", SPEC, 0.001, units=13)
