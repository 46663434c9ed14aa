"""Augmentation mirrors and moves images in training, and leaves them alone elsewhere."""

import keras
import numpy as np
import pytest

from engram.layers import Augmentation

IMAGE = np.random.default_rng(1).uniform(0.1, 1, (1, 7, 6, 2)).astype(np.float32)


def test_images_stay_as_they_are_but_in_training():
    inputs = keras.Input(IMAGE.shape[1:])
    model = keras.Model(inputs, Augmentation(True, 0.3)(inputs))
    for seen in (model(IMAGE), model(IMAGE, training=False), model.predict(IMAGE)):
        np.testing.assert_array_equal(seen, IMAGE)
    assert np.abs(np.array(model(IMAGE, training=True)) - IMAGE).max() > 0.1


def test_half_the_images_are_mirrored():
    seen = np.array(
        Augmentation(True, 0.0, seed=1)(np.repeat(IMAGE, 400, 0), training=True)
    )
    mirrored = (seen == IMAGE[:, :, ::-1]).all((1, 2, 3))
    assert ((seen == IMAGE).all((1, 2, 3)) ^ mirrored).all()
    assert 160 < mirrored.sum() < 240


def test_images_are_moved_by_whole_pixels_with_zeros_behind():
    seen = np.array(
        Augmentation(False, 0.3, seed=1)(np.repeat(IMAGE, 200, 0), training=True)
    )
    places = set()
    for one in seen:
        fits = [
            (i, j)
            for i in range(-3, 4)
            for j in range(-3, 4)
            if np.array_equal(one, _moved(IMAGE[0], i, j))
        ]
        assert len(fits) == 1
        places |= set(fits)
    assert {abs(i) for i, _ in places} == {0, 1, 2}  # up to 0.3 of 7 pixels
    assert {abs(j) for _, j in places} == {0, 1, 2}  # up to 0.3 of 6, rounded


def _moved(image, down, right):
    wide = np.pad(image, [(3, 3), (3, 3), (0, 0)])
    high, width = image.shape[:2]
    return wide[3 - down : 3 - down + high, 3 - right : 3 - right + width]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_it_comes_back_from_a_file_and_keeps_the_dtype(tmp_path, policy):
    inputs = keras.Input(IMAGE.shape[1:])
    layer = Augmentation(True, 0.3, seed=5, dtype=policy)
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True).layers[-1]
    assert again.get_config() == layer.get_config()
    dtype = keras.backend.standardize_dtype(again(IMAGE, training=True).dtype)
    assert dtype == keras.DTypePolicy(policy).compute_dtype
