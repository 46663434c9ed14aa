"""Errors of reconstructions are those that one computes by hand."""

import numpy as np
import pytest

from engram import bootstrap
from engram.tasks.reconstruction_metrics import BLOCK, SURE, measure, scores

draw = np.random.default_rng(1)
ROWS, LABELS = draw.uniform(size=(47, 6)), draw.integers(0, 3, 47)
DRAWN = [draw.uniform(0.01, 0.99, size=(47, 6)) for _ in range(2)]


def test_two_pixels_by_hand():
    rows, drawn = np.array([[1.0, 0.0], [0.5, 0.0]]), np.array([[0.5, 0.5], [0.5, 0.25]])
    found = scores([drawn], rows)
    np.testing.assert_allclose(found["squared_error"], [[0.5, 0.0625]])
    nats = [[2 * np.log(2), np.log(2) - np.log(0.75)]]
    np.testing.assert_allclose(found["cross_entropy"], nats)
    row = measure(found, np.array([0, 1]))["per_seed"][0]
    assert row["squared_error"] == pytest.approx(0.28125)  # summed, not per pixel


def test_metrics_are_means_over_images_and_seeds_with_their_deviation():
    found = measure(scores(DRAWN, ROWS), LABELS)
    by_seed = [((one - ROWS) ** 2).sum(axis=1).mean() for one in DRAWN]
    assert [row["squared_error"] for row in found["per_seed"]] == pytest.approx(by_seed)
    for name in ("squared_error", "cross_entropy"):
        rows = [row[name] for row in found["per_seed"]]
        assert found["metrics"][name] == pytest.approx(np.mean(rows))
        assert found["std"][name] == pytest.approx(np.std(rows, ddof=1))
    one = measure(scores(DRAWN[:1], ROWS), LABELS)
    assert set(one["std"].values()) == {None}
    assert (found["headline"], found["sort_by"]) == (["squared_error"], "squared_error")
    assert (found["better"], found["unit"]) == ("lower", "")


def test_the_image_itself_has_no_error_and_the_least_cross_entropy():
    itself = scores([ROWS], ROWS)
    np.testing.assert_array_equal(itself["squared_error"], 0)
    others = scores(DRAWN, ROWS)["cross_entropy"]
    assert (itself["cross_entropy"] < others).all()


def test_a_pixel_outside_0_to_1_has_its_whole_error_and_a_bounded_cross_entropy():
    found = scores([np.array([[-0.5, 2.0]])], np.array([[1.0, 1.0]]))
    np.testing.assert_allclose(found["squared_error"], [[3.25]])
    np.testing.assert_allclose(found["cross_entropy"], [[-np.log(SURE)]], rtol=1e-6)


def test_sums_are_taken_in_float64():
    rows = np.full((1, 10**6), 0.1, np.float32)
    found = scores([np.zeros_like(rows)], rows)
    assert found["squared_error"][0, 0] == pytest.approx(10**4, rel=1e-6)


def test_a_class_has_the_error_of_its_own_images():
    found = scores(DRAWN, ROWS)
    (curve,) = measure(found, LABELS)["details"]["curves"]
    assert curve["x"] == [0, 1, 2]
    for one, mean in zip(curve["x"], curve["y"], strict=True):
        assert mean == pytest.approx(found["squared_error"][:, LABELS == one].mean())


def test_blocks_add_up_to_the_metric_and_give_intervals():
    count = 40 * BLOCK + 7
    rows = draw.uniform(size=(count, 4))
    near, far = (
        [rows + size * draw.normal(size=rows.shape) for _ in range(2)]
        for size in (0.1, 0.3)
    )
    one, other = (measure(scores(d, rows), np.zeros(count, int)) for d in (near, far))
    paired = one["details"]["paired"]
    assert sum(paired["count"]) == count and paired["count"][-1] == 7
    for total, row in zip(paired["sum"], one["per_seed"], strict=True):
        assert sum(total) / count == pytest.approx(row["squared_error"])
    found = bootstrap.interval(paired, other["details"]["paired"])
    assert found.low < found.difference < found.high < 0


def test_a_block_is_of_neighbours():
    rows = np.zeros((2 * BLOCK, 1))
    drawn = rows.copy()
    drawn[:BLOCK] = 2
    found = measure(scores([drawn], rows), np.zeros(2 * BLOCK, int))
    assert found["details"]["paired"]["sum"] == [[4.0 * BLOCK, 0.0]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_is_refused(wrong):
    drawn = [DRAWN[0], DRAWN[1].copy()]
    drawn[1][2, 1] = wrong
    with pytest.raises(ValueError, match="1 of 564 pixels are NaN or infinite"):
        scores(drawn, ROWS)
