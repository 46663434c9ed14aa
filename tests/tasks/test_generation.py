"""Points keep their parts, and what is generated is measured as the papers do."""

import json

import numpy as np
import pytest
import toy

from engram import datasets, models
from engram.datasets import gaussian_mixture
from engram.tasks import generation, generation_metrics
from engram.tasks.generation import (
    DataError,
    batches,
    coverage,
    evaluate,
    figures,
    points,
    prepare,
)
from engram.tasks.generation_metrics import distance, measure

SIZES = {"train": 640, "validation": 128, "test": 128}
CROSS = [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("points") / "raw"
    datasets.fetch("gaussian_mixture", folder, file="", **toy.FETCH["gaussian_mixture"])
    return folder


@pytest.fixture(scope="module")
def prepared(raw):
    prepare(raw, raw.parent / "grid")
    return raw.parent / "grid"


def gathered(data):
    return [np.concatenate(a) for a in zip(*data.as_numpy_iterator(), strict=True)]


# prepare and batches


def test_points_keep_their_parts_and_their_modes(prepared):
    spec = json.loads((prepared / "spec.json").read_text())
    assert spec["parts"] == {
        "train": [0, 640],
        "validation": [640, 768],
        "test": [768, 896],
    }
    assert (spec["task"], spec["shape"], spec["sigma"]) == ("generation", [2], 0.05)
    np.testing.assert_array_equal(spec["centres"], gaussian_mixture.centres("grid"))
    for part, count in SIZES.items():
        known = gaussian_mixture.points("grid", part, count)
        np.testing.assert_array_equal(points(prepared, part), known)
    both = points(prepared, "train+validation")
    np.testing.assert_array_equal(both[640:], points(prepared, "validation"))


def test_examples_of_another_kind_are_refused(tmp_path):
    datasets.fetch("bars_and_stripes", tmp_path / "raw", file="", size=2)
    with pytest.raises(DataError, match="examples with 'point'. Received: image"):
        prepare(tmp_path / "raw", tmp_path / "out")


def test_points_of_space_are_refused(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    point = tfds.features.Tensor(shape=(3,), dtype=np.float32)
    builder = type(
        "Builder", (), {"info": type("Info", (), {"features": {"point": point}})}
    )
    monkeypatch.setattr(tfds, "builder_from_directory", lambda raw: builder)
    with pytest.raises(DataError, match=r"of the plane, \(2,\). Received: \(3,\)"):
        prepare(tmp_path, tmp_path / "out")


def test_batches_are_whole_and_their_places_run(prepared):
    data = batches(prepared, "test", 50)
    assert data.element_spec[0].shape == (50, 2)
    found, places = gathered(data)
    np.testing.assert_array_equal(found, points(prepared, "test")[:100])
    assert places.tolist() == list(range(100))


def test_shuffled_points_are_other_ones_in_every_epoch_and_places_are_not(prepared):
    data = batches(prepared, "train", 64, seed=1)
    (one, first), (other, second) = gathered(data), gathered(data)
    assert (one != other).any()
    assert first.tolist() == second.tolist() == list(range(640))
    known = points(prepared, "train")
    assert sorted(map(tuple, one)) == sorted(map(tuple, known))
    again, _ = gathered(batches(prepared, "train", 64, seed=1))
    np.testing.assert_array_equal(one, again)


def test_a_batch_that_no_part_fills_is_refused(prepared):
    with pytest.raises(ValueError, match="at most 128, .* test part. Received: 129"):
        batches(prepared, "test", 129)


# metrics


def test_modes_are_those_with_a_point_within_three_sigma():
    made = np.array([[0.29, 0], [0.31, 0], [2, 0.1], [1.9, 0], [0, 2.5]])
    found = coverage(made, CROSS, sigma=0.1)
    assert found["near"].tolist() == [True, False, True, True, False]
    assert found["modes"] == 2
    assert found["high_quality"] == pytest.approx(60)
    shares = np.array([2, 2, 1]) / 5  # of those nearest to each mode
    assert found["reverse_kl"] == pytest.approx((shares * np.log(shares * 4)).sum())


def test_all_modes_alike_have_no_divergence_and_one_alone_has_the_logarithm():
    assert coverage(np.array(CROSS), CROSS, 0.1)["reverse_kl"] == pytest.approx(0)
    alone = coverage(np.zeros((9, 2)), CROSS, 0.1)
    assert alone["reverse_kl"] == pytest.approx(np.log(4))
    assert (alone["modes"], alone["high_quality"]) == (1, 100)


def test_real_points_are_of_high_quality_as_often_as_a_normal_distribution_says():
    some = gaussian_mixture.points("grid", "test", 20_000)
    found = coverage(some, gaussian_mixture.centres("grid"), 0.05)
    assert found["modes"] == 25
    # within 3 sigma of a plane's normal distribution: 1 - exp(-9 / 2)
    assert found["high_quality"] == pytest.approx(100 * (1 - np.exp(-4.5)), abs=0.3)
    assert found["reverse_kl"] < 0.002


def test_the_distance_is_that_of_all_pairs():
    one, other = np.random.default_rng(1).normal(size=(2, 7, 2))
    pairs = [(a, b) for a in range(7) for b in range(7)]

    def mean(x, y, some):
        return np.mean([np.log(np.linalg.norm(x[a] - y[b])) for a, b in some])

    apart = [(a, b) for a, b in pairs if a != b]
    expected = 2 * mean(one, other, pairs) - mean(one, one, apart)
    expected -= mean(other, other, apart)
    assert distance(one, other) == pytest.approx(expected)


def test_the_distance_sees_what_is_moved_blurred_left_out_or_all_the_same():
    draw, modes = np.random.default_rng(1), gaussian_mixture.centres("grid")

    def made(sigma=0.05, count=25, shift=0.0):
        centres = modes[draw.integers(0, count, 1200)]
        return centres + sigma * draw.standard_normal((1200, 2)) + shift

    real = made()
    assert abs(distance(real, made())) < 0.005
    others = [made(sigma=0.5), made(count=20), made(shift=0.3), np.zeros((1200, 2))]
    found = [distance(real, one) for one in others]
    assert min(found) > 0.03 and max(found) == found[-1]


def test_metrics_are_means_over_seeds_beside_the_floor_of_real_points():
    spec = {"centres": CROSS, "sigma": 0.1}
    draw = np.random.default_rng(1)
    modes = np.array(CROSS)
    real, others = (modes[draw.integers(0, 4, 200)] for _ in range(2))
    made = np.stack([modes[draw.integers(0, k, 100)] for k in (2, 4)])
    found = measure(made, real, others, spec)
    assert [row["modes"] for row in found["per_seed"]] == [2, 4]
    assert found["metrics"]["modes"] == 3
    assert found["std"]["modes"] == pytest.approx(np.sqrt(2))
    assert found["metrics"]["floor"] == pytest.approx(distance(real, others))
    assert set(found["headline"]) <= set(found["metrics"])
    pairs = found["details"]["paired"]
    assert pairs["count"] == [50, 50] and pairs["sum"] == [[5000, 5000]] * 2


def test_numbers_that_are_not_finite_are_refused():
    made = np.zeros((1, 4, 2))
    made[0, 1, 1] = np.inf
    spec = {"centres": CROSS, "sigma": 0.1}
    with pytest.raises(ValueError, match="1 of 8 generated numbers are NaN or infinite"):
        measure(made, np.zeros((4, 2)), np.zeros((4, 2)), spec)


# evaluate, watch and figures


@pytest.fixture(scope="module")
def trained(prepared):
    spec = json.loads((prepared / "spec.json").read_text())
    model = models.build("mlp_gan", spec, 0.01, **toy.GENERATORS["mlp_gan"])
    data = batches(prepared, "train", 64, seed=1)
    held = batches(prepared, "validation", 64)
    model.fit(data, validation_data=held, epochs=2, shuffle=False, verbose=0)
    return model


def test_evaluate_measures_what_the_models_make_of_the_same_noise(
    prepared, trained, tmp_path
):
    found = evaluate([trained, trained], prepared, "train")
    assert set(generation.REPORTED) <= set(found)
    one, other = found["per_seed"]
    assert one == other
    made = trained.generate(generation.GENERATED, generation.SEED)
    np.testing.assert_array_equal(found["made"], made)
    real, others = (points(prepared, part) for part in ("test", "validation"))
    assert one["floor"] == generation_metrics.distance(real, others)
    found["history"] = {"1": trained.history.history}
    first, second = (figures(found, tmp_path / name) for name in "ab")
    assert [file.name for file in first] == ["points.png", "game.png"]
    for left, right in zip(first, second, strict=True):
        assert left.read_bytes().startswith(b"\x89PNG")
        assert left.read_bytes() == right.read_bytes()


def test_a_model_is_watched_by_its_modes(prepared, trained):
    seen, table = generation.watch(trained, prepared)
    found = evaluate([trained], prepared, "train")["metrics"]
    assert seen == {key: found[key] for key in ("modes", "high_quality")}
    assert table == {}
