"""Images become rows of zeros and ones, machines learn them, likelihoods are true."""

import json

import keras
import numpy as np
import pytest

from engram import datasets, models
from engram.datasets.bars_and_stripes import bound, images
from engram.layers.rbm import enumeration
from engram.tasks import density, density_metrics

ARGUMENTS = {
    "units": 6,
    "method": "exact",
    "k": 1,
    "passes": 500,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "centred": True,
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars") / "raw"
    datasets.fetch("bars_and_stripes", folder, file="", size=2)
    return folder


@pytest.fixture(scope="module")
def bars(raw):
    density.prepare(raw, raw.parent / "bars", validation=0, flipped=False)
    return raw.parent / "bars"


@pytest.fixture(scope="module")
def fitted(bars):
    """A machine that has learned all images of 2 x 2 pixels, and its history."""
    keras.utils.set_random_seed(1)
    spec = json.loads((bars / "spec.json").read_text())
    model = models.build(
        "rbm", spec, keras.optimizers.schedules.CosineDecay(0.5, 20), **ARGUMENTS
    )
    data = density.batches(bars, "train", 8, seed=1)
    kept = model.fit(
        data, validation_data=density.batches(bars, "validation", 8), epochs=20
    )
    return model, kept.history


def test_every_part_of_a_complete_dataset_has_all_images(bars):
    for part in ("train", "validation", "test", "train+validation"):
        found = density.rows(bars, part)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, images(2).reshape(8, 4))


def test_flipped_rows_have_ones_for_zeros(raw, tmp_path):
    spec = density.prepare(raw, tmp_path / "flipped", validation=0, flipped=True)
    found = density.rows(tmp_path / "flipped", "train")
    np.testing.assert_array_equal(found, 1 - images(2).reshape(8, 4))
    assert spec["dataset"] == "flipped" and spec["shape"] == [2, 2]


def test_batches_are_the_rows_and_shuffled_by_seed_alone(bars):
    plain = np.concatenate([b.numpy() for b in density.batches(bars, "test", 3)])
    np.testing.assert_array_equal(plain, density.rows(bars, "test"))
    orders = [
        np.concatenate([b.numpy() for b in density.batches(bars, "train", 3, seed=s)])
        for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any() and (orders[0] != plain).any()


def test_digits_are_cut_at_half_and_the_last_ones_are_held_out(tmp_path):
    datasets.fetch("digits", tmp_path / "raw", file="")
    with pytest.raises(density.DataError, match="from 1 to 1028"):
        density.prepare(tmp_path / "raw", tmp_path / "d", validation=0, flipped=False)
    spec = density.prepare(tmp_path / "raw", tmp_path / "d", 100, flipped=False)
    assert spec["parts"]["validation"] == [929, 1029] and spec["bound"] is None
    from engram.datasets import digits

    pixels, _ = digits.images("train", unseen_hands=False)
    expected = pixels.reshape(len(pixels), -1) > 8
    np.testing.assert_array_equal(density.rows(tmp_path / "d", "train"), expected[:929])


def test_nothing_is_held_out_of_a_complete_dataset(raw, tmp_path):
    with pytest.raises(density.DataError, match="must be 0.*Received: 3"):
        density.prepare(raw, tmp_path / "out", validation=3, flipped=False)


def test_examples_without_images_are_refused(tmp_path):
    datasets.fetch("adding", tmp_path / "raw", file="", steps=4, train=5, test=5)
    with pytest.raises(density.DataError, match="needs examples with 'image'"):
        density.prepare(tmp_path / "raw", tmp_path / "out", validation=1, flipped=False)


def test_a_machine_learns_all_images_and_tells_its_exact_likelihood(bars, fitted):
    model, history = fitted
    found = density.evaluate([model, model], bars, "train")
    exact = enumeration.log_likelihood(model.rbm, density.rows(bars, "test"))
    assert found["metrics"]["log_likelihood"] == pytest.approx(exact.mean(), abs=1e-9)
    assert found["metrics"]["log_likelihood_backward"] == pytest.approx(exact.mean())
    gap = found["metrics"]["gap_to_bound"]
    assert gap == pytest.approx(bound(2) - exact.mean(), abs=1e-9) and 0 < gap < 0.1
    # log Z of an epoch has 32 bits
    unit = float(np.spacing(np.float32(enumeration.log_partition(model.rbm))))
    assert history["val_loss"][-1] == pytest.approx(-exact.mean(), abs=2 * unit)
    assert history["val_loss"][-1] < history["val_loss"][0]


def test_a_saved_machine_has_the_same_likelihood(bars, fitted, tmp_path):
    model, _ = fitted
    model.save(tmp_path / "m.keras")
    again = models.load("rbm", "density", tmp_path / "m.keras")
    rows = density.rows(bars, "test")
    before, after = (one.log_likelihood(rows, rows)["forward"] for one in (model, again))
    np.testing.assert_array_equal(before, after)


def test_likelihoods_are_summed_in_blocks_that_lose_nothing():
    scores = np.random.default_rng(1).normal(-90, 9, (2, 120))
    found = density_metrics.paired(scores)
    assert found["count"] == [50, 50, 20]
    np.testing.assert_allclose(np.sum(found["sum"], axis=1), scores.sum(1))


def test_the_curve_ranks_rows_from_least_to_most_probable():
    curve = density_metrics.ranked(np.array([[3.0, 1.0, 2.0]]))
    assert curve["y"][0] == 1 and curve["y"][-1] == 3
    assert np.all(np.diff(curve["y"]) >= 0)


def test_a_likelihood_that_is_no_number_is_refused():
    scores = {"forward": np.array([1.0, np.nan]), "backward": np.zeros(2)}
    with pytest.raises(ValueError, match="1 of 4 log-likelihoods"):
        density_metrics.measure([scores], {"bound": None})


@pytest.mark.parametrize("held_out", [False, True])
def test_figures_are_drawn_the_same_each_time(bars, fitted, tmp_path, held_out):
    model, history = fitted
    found = {**density.evaluate([model], bars, "train"), "history": {"1": history}}
    if held_out:
        found["spec"]["parts"]["validation"] = [0, 4]
    made = []
    for folder in ("a", "b"):
        model.rbm.seed_generator.state.assign([0, 1])
        files = density.figures(found, tmp_path / folder)
        made.append({file.name: file.read_bytes() for file in files})
    assert made[0] == made[1]
    names = ["fantasies.png", "filters.png", "learning.png", "reconstructions.png"]
    assert sorted(made[0]) == names


@pytest.mark.parametrize(("units", "exact"), [(16, True), (20, True), (21, False)])
def test_the_losses_are_exact_as_far_as_log_z_is_enumerated(units, exact):
    spec = {"task": "density", "visible": 25}
    model = models.build("rbm", spec, 0.1, **(ARGUMENTS | {"units": units}))
    assert model.cheap == exact
