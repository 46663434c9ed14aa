"""Metrics of classes and of their probabilities are what their definitions say."""

import numpy as np
import pytest
from scipy.special import softmax

from engram import bootstrap
from engram.tasks import classification_metrics, sequences_metrics
from engram.tasks.classification_metrics import (
    BLOCK,
    calibration_error,
    chances,
    decisions,
    measure,
    natural,
    temperature_of,
)

draw = np.random.default_rng(1)
LOGITS, TRUTH = draw.normal(size=(2, 47, 3)), draw.integers(0, 3, 47)
RIGHT = LOGITS.argmax(-1) == TRUTH  # (S, B)


def test_a_seed_is_scored_by_accuracy_and_error_in_per_cent_and_by_nats():
    found = measure(LOGITS, TRUTH)
    for seed, row in enumerate(found["per_seed"]):
        p = np.exp(LOGITS[seed]) / np.exp(LOGITS[seed]).sum(-1, keepdims=True)
        assert row["accuracy"] == pytest.approx(100 * RIGHT[seed].mean())
        assert row["error"] == pytest.approx(100 * (~RIGHT[seed]).mean())
        nats = -np.log(p[np.arange(47), TRUTH]).mean()
        assert row["cross_entropy"] == pytest.approx(nats)
    about = {key: found[key] for key in ("headline", "sort_by", "better", "unit")}
    assert about == {
        "headline": ["accuracy"],
        "sort_by": "accuracy",
        "better": "higher",
        "unit": "%",
    }


def test_metrics_are_means_over_seeds_with_their_deviation():
    found = measure(LOGITS, TRUTH)
    for name in found["metrics"]:
        rows = [row[name] for row in found["per_seed"]]
        assert found["metrics"][name] == pytest.approx(np.mean(rows))
        assert found["std"][name] == pytest.approx(np.std(rows, ddof=1))
    assert set(measure(LOGITS[:1], TRUTH)["std"].values()) == {None}


def test_the_same_logits_score_as_those_of_a_sequences_class():
    ours = measure(LOGITS, TRUTH)
    spec = {"target": "class", "classes": 3}
    theirs = sequences_metrics.measure(LOGITS, np.zeros((47, 5, 1)), TRUTH[:, None], spec)
    for name in ("accuracy", "cross_entropy"):
        assert ours["metrics"][name] == pytest.approx(theirs["metrics"][name])
    (one,), (other,) = (found["details"]["curves"] for found in (ours, theirs))
    assert one["y"] == pytest.approx(other["y"])
    assert one | {"y": 0} == other | {"y": 0}


def test_a_class_has_the_accuracy_of_its_own_images():
    (curve,) = measure(LOGITS, TRUTH)["details"]["curves"]
    assert curve["x"] == [0, 1, 2]
    for one, share in zip(curve["x"], curve["y"], strict=True):
        assert share == pytest.approx(100 * RIGHT[:, TRUTH == one].mean())


def test_large_logits_do_not_overflow():
    found = measure(np.array([[[1e4, 0.0, -1e4]]], np.float32), np.array([1]))
    assert found["metrics"]["cross_entropy"] == pytest.approx(1e4)


def test_blocks_add_up_to_the_metric_and_give_intervals():
    count = 40 * BLOCK + 7
    truth = draw.integers(0, 3, count)
    signs = np.eye(3)[truth]
    good, bad = (x * signs + draw.normal(size=(2, count, 3)) for x in (3, 1))
    one, other = measure(good, truth), measure(bad, truth)
    paired = other["details"]["paired"]
    assert sum(paired["count"]) == count and paired["count"][-1] == 7
    for total, row in zip(paired["sum"], other["per_seed"], strict=True):
        assert sum(total) / count == pytest.approx(row["accuracy"])
    found = bootstrap.interval(paired, one["details"]["paired"])
    assert found.low < found.difference < found.high < 0


def test_a_block_is_of_neighbours():
    right = np.zeros((1, 2 * BLOCK, 3))
    right[0, :BLOCK, 0] = 1  # the first block is of class 0, and so is told
    paired = measure(right - [0, 0, 1], np.arange(2 * BLOCK) // BLOCK)
    assert paired["details"]["paired"]["sum"] == [[100.0 * BLOCK, 0.0]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_logit_that_is_no_number_is_refused(wrong):
    logits = LOGITS.copy()
    logits[0, 2, 1] = wrong
    with pytest.raises(ValueError, match="1 of 282 logits are NaN or infinite"):
        measure(logits, TRUTH)


def log(*rows):
    return np.log(np.array(rows))


def drawn(images=4000, classes=3, seed=1):
    """Scores `(B, C)`, and classes drawn from their softmax."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(images, classes)) * 2
    chance = softmax(scores, axis=-1).cumsum(-1)
    return scores, (draw.random((images, 1)) > chance).sum(-1)


# the class told


def test_a_rare_class_counts_as_much_in_the_balanced_accuracy():
    truth = np.array([0] * 8 + [1] * 2)
    told = np.array([0] * 8 + [1, 0])
    found = decisions(np.eye(2)[told], truth)
    assert found["accuracy"] == pytest.approx(90)
    assert found["error"] == pytest.approx(10)
    assert found["balanced_accuracy"] == pytest.approx((100 + 50) / 2)
    # class 0: 8 right, 1 too many, none missed; class 1: 1 right, none, 1 missed
    assert found["f1"] == pytest.approx(100 * (16 / 17 + 2 / 3) / 2)


def test_a_class_without_test_images_is_in_no_mean():
    truth, told = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2])
    found = decisions(np.eye(3)[told], truth)
    assert found["balanced_accuracy"] == pytest.approx(75)
    assert found["f1"] == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_whoever_tells_one_class_alone_is_half_right_in_balance():
    truth = np.array([0] * 9 + [1])
    found = decisions(np.eye(2)[np.zeros(10, int)], truth)
    assert (found["accuracy"], found["balanced_accuracy"]) == (90, 50)


# probabilities


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    scores, truth = drawn(60)
    p = softmax(scores, axis=-1)
    areas = []
    for one in range(3):
        mine, others = p[truth == one, one], p[truth != one, one]
        areas.append((mine[:, None] > others[None]).mean())
    assert chances(scores, truth, None)["auc"] == pytest.approx(np.mean(areas))


def test_one_class_alone_has_no_area():
    assert "auc" not in chances(log([0.5, 0.5]), np.array([1]), None)


def test_the_calibration_error_is_that_of_an_example_by_hand():
    # 0.75 and 0.76 in one bin, one of them right; 0.97 in another, right
    scores = log([0.75, 0.25], [0.24, 0.76], [0.97, 0.03])
    truth = np.array([0, 0, 0])
    expected = (abs(1 - (0.75 + 0.76)) + abs(1 - 0.97)) / 3
    assert calibration_error(scores, truth) == pytest.approx(expected)


def test_who_is_as_right_as_sure_has_no_calibration_error_to_speak_of():
    scores, truth = drawn(200_000)
    assert calibration_error(scores, truth) < 0.004
    assert calibration_error(3 * scores, truth) > 0.1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_makes_scores_as_sure_as_they_are_right(temperature):
    scores, truth = drawn(50_000)
    found = temperature_of(temperature * scores, truth)
    assert found == pytest.approx(temperature, rel=0.03)
    near = [
        classification_metrics.cross_entropy(temperature * scores / t, truth)
        for t in (found, 0.98 * found, 1.02 * found)
    ]
    assert near[0] == min(near)


def test_scores_that_are_always_right_keep_a_finite_temperature():
    truth = np.array([0, 1, 0, 1])
    found = temperature_of(9 * np.eye(2)[truth], truth)
    assert found == pytest.approx(classification_metrics.COLDEST, rel=0.01)


def test_one_temperature_changes_no_class_and_mends_other_images_of_the_kind():
    held, known = drawn(5000, seed=1)
    scores, truth = drawn(5000, seed=2)
    found = chances(3 * scores, truth, (3 * held, known))
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    assert found["calibration_error"] < 0.02 < 0.1 < found["calibration_error_before"]
    alone = chances(3 * scores, truth, None)
    assert alone["temperature"] == 1
    assert alone["calibration_error"] == alone["calibration_error_before"]
    assert alone["auc"] == found["auc"]
    assert alone["cross_entropy"] == found["cross_entropy"]


def test_class_weights_leave_the_probabilities_those_of_what_there_is():
    """A net that the weights made think classes are equally frequent."""
    frequent = np.array([0.9, 0.1])
    weights = 1 / (2 * frequent)
    scores, truth = drawn(100_000, classes=2)
    scores = scores + np.log(frequent)
    draw = np.random.default_rng(3)
    truth = (draw.random(len(scores)) < softmax(scores, axis=-1)[:, 1]).astype(int)
    told = (scores + np.log(weights)).astype(np.float32)
    np.testing.assert_allclose(natural(told, list(weights)), scores, atol=1e-5)
    found = measure(told[None], truth, None, list(weights))["metrics"]
    plain = measure(told[None], truth)["metrics"]
    assert found["calibration_error"] < 0.005 < 0.05 < plain["calibration_error"]
    assert found["balanced_accuracy"] == plain["balanced_accuracy"]
