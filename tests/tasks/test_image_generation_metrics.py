"""Numbers of generated images are those that closed forms and definitions give."""

import json

import numpy as np
import pytest

from engram import bootstrap, comparison
from engram.tasks import image_generation, image_generation_metrics
from engram.tasks.image_generation_metrics import (
    BLOCK,
    frechet,
    kid,
    measure,
    paired,
    precision_recall,
)


@pytest.fixture
def blocks(monkeypatch):
    for module in (image_generation, image_generation_metrics):
        monkeypatch.setattr(module, "ROWS", 3)


def draw(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def gaussian(mean, root, count=40, seed=1):
    """Rows whose mean is `mean` and whose covariance is `root.T @ root`, exactly."""
    rows = draw(count, len(mean), seed=seed)
    white, _ = np.linalg.qr(rows - rows.mean(0))
    return np.asarray(mean) + np.sqrt(count - 1) * white @ np.asarray(root)


# frechet


def test_frechet_of_diagonal_covariances_is_that_of_each_number():
    means, deviations = [[0, 1, -2], [3, 1, 0.5]], [[1, 2, 0.1], [4, 0.5, 0.1]]
    one, other = (
        gaussian(mean, np.diag(deviation), count, seed)
        for mean, deviation, count, seed in zip(
            means, deviations, (40, 70), (1, 2), strict=True
        )
    )
    # 3^2 + 0 + 2.5^2 of the means, 3^2 + 1.5^2 + 0 of the deviations
    assert frechet(one, other) == pytest.approx(15.25 + 11.25)
    assert frechet(other, one) == pytest.approx(15.25 + 11.25)


def test_frechet_of_covariances_that_do_not_commute():
    roots = np.array([[[2.0, 1.0], [0.0, 1.0]], [[1.0, -1.0], [0.0, 3.0]]])
    one, other = (gaussian([0, 0], root, seed=n) for n, root in enumerate(roots))
    first, second = (root.T @ root for root in roots)
    product = first @ second
    assert abs(product - product.T).max() > 1
    # the trace of the root of a 2 x 2 matrix, by its eigenvalues
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(first) + np.trace(second) - 2 * root
    assert frechet(one, other) == pytest.approx(expected)


def test_frechet_to_itself_is_0_and_both_ways_alike():
    one, other = draw(30, 5), 2 * draw(20, 5, seed=2) + 1
    assert frechet(one, one) == pytest.approx(0, abs=1e-12)
    assert frechet(one[::-1], one) == pytest.approx(0, abs=1e-12)
    assert frechet(one, other) == pytest.approx(frechet(other, one))


def test_frechet_of_a_number_that_is_always_the_same():
    one = gaussian([1, 7], [[2, 0], [0, 0]])
    other = gaussian([1, 4], [[3, 0], [0, 0]], seed=2)
    assert frechet(one, other) == pytest.approx(9 + 1)
    # a dead unit on one side only: all of the other's variance is missing
    assert frechet(one, gaussian([1, 7], np.diag([2, 0.5]))) == pytest.approx(0.25)
    assert frechet(np.ones((4, 3)), np.zeros((4, 3))) == pytest.approx(3)


def test_frechet_of_fewer_rows_than_numbers():
    one = draw(4, 9)
    assert frechet(one, one) == pytest.approx(0, abs=1e-12)
    assert frechet(one, one + 2) == pytest.approx(9 * 4)
    assert frechet(one, 3 * one) == pytest.approx(
        4 * ((one.mean(0) ** 2).sum() + one.var(0, ddof=1).sum())
    )


# kid


def test_kid_of_four_numbers_by_hand():
    # (0 1 + 1)^3 + (2 3 + 1)^3 - 2 (1 + 1 + 3^3 + 4^3) / 4
    found = kid(np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]]))
    assert found == pytest.approx(1 + 343 - 46.5)


def test_kid_is_that_of_all_pairs(blocks):
    one, other = draw(7, 4), draw(10, 4, seed=2) + 0.5

    def mean(x, y):
        apart = [(a, b) for a in range(len(x)) for b in range(len(y))]
        if x is y:
            apart = [(a, b) for a, b in apart if a != b]
        return np.mean([(x[a] @ y[b] / 4 + 1) ** 3 for a, b in apart])

    expected = mean(one, one) + mean(other, other) - 2 * mean(one, other)
    assert kid(one, other) == pytest.approx(expected)
    assert kid(other, one) == pytest.approx(expected)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0.0), (0.5, 3.578125)])
def test_kid_is_right_on_average_however_few_rows_there_are(shift, expected):
    # (x y + 1)^3 is of the first three moments: sum of 3, 3 and 1 times their squared
    # differences, 0.5, 0.25 and 0.5^3 + 3 0.5 where the second normal has the mean 0.5
    rows = draw(4000, 11, 1)
    found = [kid(one[:5], one[5:] + shift) for one in rows]
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found) - expected) < 3 * error < 1
    assert min(found) < 0


# precision and recall


def test_neighbourhoods_on_a_line_by_hand():
    real = np.array([[0.0], [1.0], [10.0]])  # they reach 1, 1 and 9
    made = np.array([[-1.0], [-3.0], [19.0], [20.0]])  # 2, 2, 1 and 1
    inside, covered = precision_recall(real, made, k=1)
    assert inside.tolist() == [True, False, True, False]
    assert covered.tolist() == [True, True, False]


@pytest.mark.parametrize("k", [1, 3, 6])
def test_neighbourhoods_are_those_of_the_definition(k, blocks):
    real, made = draw(7, 2), 1.5 * draw(10, 2, seed=2)

    def within(some, centres):
        found = []
        for one in some:
            near = False
            for n, centre in enumerate(centres):
                own = np.delete(centres, n, axis=0)
                reach = sorted(np.linalg.norm(own - centre, axis=1))[k - 1]
                near |= bool(np.linalg.norm(one - centre) <= reach)
            found.append(near)
        return found

    inside, covered = precision_recall(real, made, k)
    assert inside.tolist() == within(made, real)
    assert covered.tolist() == within(real, made)
    assert {True, False} == set(inside) | set(covered)


def test_the_third_neighbour_is_meant():
    real, made = draw(30, 2), draw(40, 2, seed=2)
    for one, three in zip(
        precision_recall(real, made), precision_recall(real, made, 3), strict=True
    ):
        np.testing.assert_array_equal(one, three)


def test_the_same_images_are_all_inside_and_moved_ones_are_not():
    real = draw(60, 8).astype(np.float32)
    for part in precision_recall(real, real[::-1]):
        assert part.all()
    for part in precision_recall(real, real + 100):
        assert not part.any()


def test_one_mode_of_four_is_precise_and_covers_no_other():
    modes = 50 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    real = modes[np.arange(200) // 50] + draw(200, 2)
    inside, covered = precision_recall(real, draw(100, 2, seed=2))
    assert inside.mean() > 0.9
    assert 0.2 < covered.mean() <= 0.25 and not covered[50:].any()


def test_one_real_image_again_and_again_covers_itself_alone():
    real = 1000 + draw(30, 5)
    inside, covered = precision_recall(real, np.repeat(real[7:8], 20, axis=0))
    assert inside.all()
    assert np.flatnonzero(covered).tolist() == [7]


# measure


def sides(seeds=2, made=120, real=90):
    """Three numbers of each image, and four modes, of which the first seed makes two."""
    told = np.stack([np.arange(made) % (2 + 2 * (n > 0)) for n in range(seeds)])
    return {
        "made": draw(seeds, made, 3).astype(np.float32),
        "told": told,
        "real": draw(real, 3, seed=2).astype(np.float32),
        "held": draw(real, 3, seed=3).astype(np.float32),
        "held_told": np.arange(real) % 3,
        "modes": 4,
        "judge_accuracy": 98.5,
    }


def test_metrics_are_means_over_seeds_beside_the_floors_of_held_images():
    known = sides()
    found = measure(**known)
    real, held = known["real"], known["held"]
    for one, row in zip(known["made"], found["per_seed"], strict=True):
        inside, covered = precision_recall(real, one)
        assert row["frechet"] == pytest.approx(frechet(one, real))
        assert row["kid"] == pytest.approx(kid(one, real))
        assert row["precision"] == pytest.approx(100 * inside.sum() / 120)
        assert row["recall"] == pytest.approx(100 * covered.sum() / 90)
        assert row["outside"] == pytest.approx(100 - row["precision"])
        assert row["frechet_floor"] == pytest.approx(frechet(held, real))
        assert row["kid_floor"] == pytest.approx(kid(held, real))
        inside, covered = precision_recall(real, held)
        assert row["precision_floor"] == pytest.approx(100 * inside.mean())
        assert row["recall_floor"] == pytest.approx(100 * covered.mean())
        assert row["modes_floor"] == 3
        assert (row["generated"], row["test"], row["held"]) == (120, 90, 90)
        assert row["judge_accuracy"] == 98.5
    for name, mean in found["metrics"].items():
        values = [row[name] for row in found["per_seed"]]
        assert mean == pytest.approx(np.mean(values))
        assert found["std"][name] == pytest.approx(np.std(values, ddof=1))
    assert set(measure(**sides(seeds=1))["std"].values()) == {None}


def test_the_best_has_the_lowest_frechet():
    found = measure(**sides())
    headline = ["frechet", "frechet_floor", "kid", "precision", "recall", "modes"]
    assert found["headline"] == headline and set(headline) < set(found["metrics"])
    assert (found["sort_by"], found["better"], found["unit"]) == ("frechet", "lower", "")
    details = found["details"]
    assert set(details) == {"curves", "paired"} and details["curves"] == []
    assert json.loads(json.dumps(found)) == found


def test_modes_are_those_told_and_their_shares_diverge_from_even_ones():
    known = sides(seeds=3, made=8)
    known["told"] = np.array([[2] * 8, [0, 1, 2, 3] * 2, [0, 0, 0, 0, 1, 1, 3, 3]])
    rows = measure(**known)["per_seed"]
    assert [row["modes"] for row in rows] == [1, 4, 3]
    # all of one mode of four; even shares; a half and two quarters
    expected = [np.log(4), 0, np.log(2) / 2]
    assert [row["reverse_kl"] for row in rows] == pytest.approx(expected)


def test_pairs_are_of_the_first_images_and_frechet_of_all(monkeypatch):
    known = sides()
    monkeypatch.setattr(image_generation_metrics, "MOST", 60)
    found = measure(**known)
    one, real, held = known["made"][0], known["real"], known["held"]
    row = found["per_seed"][0]
    inside, covered = precision_recall(real[:60], one[:60])
    assert row["precision"] == pytest.approx(100 * inside.mean())
    assert row["recall"] == pytest.approx(100 * covered.mean())
    assert row["kid"] == pytest.approx(kid(one[:60], real[:60]))
    assert row["kid_floor"] == pytest.approx(kid(held[:60], real[:60]))
    assert row["frechet"] == pytest.approx(frechet(one, real))
    assert found["details"]["paired"]["count"] == [50, 10]


def test_blocks_add_up_to_those_outside_and_give_intervals():
    found = measure(**sides())
    pairs = found["details"]["paired"]
    assert (pairs["metric"], pairs["kind"]) == ("outside", "mean")
    assert pairs["unit_of_resampling"] == f"{BLOCK} generated images"
    assert pairs["count"] == [50, 50, 20]
    for total, row in zip(pairs["sum"], found["per_seed"], strict=True):
        assert sum(total) / 120 == pytest.approx(row["outside"])
    rows = np.random.default_rng(1).uniform(size=(2, 40 * BLOCK))
    interval = bootstrap.interval(paired(rows < 0.6), paired(rows < 0.9))
    assert 0 < interval.low < interval.difference < interval.high
    assert interval.difference == pytest.approx(30, abs=2)


def test_compare_calls_images_that_stray_worse():
    """The lower Frechet distance is better, and so is the lower share outside."""
    known, rows, details = sides(seeds=1, made=2000, real=300), [], {}
    about = dict.fromkeys(("learning_rate", "best_epoch", "train_seconds"), 1.0)
    about |= {"task": "image_generation", "dataset": "digits", "fitted": "train"}
    for name, shift in (("near", 0.0), ("astray", 2.0)):
        found = measure(**known | {"made": known["made"] + np.float32(shift)})
        details[name] = found.pop("details")
        found |= {"experiment": name, "model": name, "parameters": 1, "seeds": [1]}
        rows.append(about | found)
    (group,) = comparison.compare(rows, details, "near")["datasets"]
    assert [row["experiment"] for row in group["rows"]] == ["near", "astray"]
    (difference,) = group["differences"]
    assert (difference["metric"], difference["verdict"]) == ("outside", "worse")


def test_a_block_is_of_neighbours():
    found = paired(np.arange(BLOCK + 4)[None] > BLOCK)
    assert (found["count"], found["sum"]) == ([BLOCK, 4], [[100.0 * BLOCK, 100.0]])


def test_features_of_few_bits_are_measured_in_many():
    one, other = 100 + draw(50, 4).astype(np.float16), 100 + draw(50, 4, seed=2)
    other = other.astype(np.float16)
    exact = [side.astype(np.float64) for side in (one, other)]
    assert frechet(one, other) == frechet(*exact)
    assert kid(one, other) == kid(*exact)
    for found, known in zip(
        precision_recall(one, other), precision_recall(*exact), strict=True
    ):
        np.testing.assert_array_equal(found, known)


# what is refused


@pytest.mark.parametrize(
    ("side", "name", "size"),
    [("made", "generated", 720), ("real", "test", 270), ("held", "validation", 270)],
)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(side, name, size, wrong):
    known = sides()
    known[side].flat[[0, 7]] = wrong
    with pytest.raises(ValueError, match=f"2 of {size} {name} features are NaN or infi"):
        measure(**known)


@pytest.mark.parametrize("function", [frechet, kid])
def test_a_single_row_is_refused(function):
    with pytest.raises(ValueError, match="`a` must have at least 2 rows. Received: 1"):
        function(np.ones((1, 3)), draw(5, 3))
    with pytest.raises(ValueError, match="`b` must have at least 2 rows. Received: 0"):
        function(draw(5, 3), np.ones((0, 3)))


def test_fewer_rows_than_neighbours_are_refused():
    with pytest.raises(ValueError, match="`real` must have at least 4 rows. Received: 3"):
        precision_recall(draw(3, 2), draw(4, 2))
    with pytest.raises(ValueError, match="`made` must have at least 6 rows. Received: 5"):
        precision_recall(draw(6, 2), draw(5, 2), k=5)
    with pytest.raises(ValueError, match="`made` must have at least 4 rows. Received: 3"):
        measure(**sides(made=3))


@pytest.mark.parametrize(("wrong", "received"), [(4, "0 to 4"), (-1, "-1 to 1")])
def test_a_mode_that_there_is_not_is_refused(wrong, received):
    known = sides()
    known["told"][0, 5] = wrong
    with pytest.raises(ValueError, match=f"from 0 to 3. Received: {received}"):
        measure(**known)
