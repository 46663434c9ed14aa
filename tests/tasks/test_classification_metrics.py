"""Errors on images are those that NumPy computes by hand, and those of sequences."""

import numpy as np
import pytest

from engram import bootstrap
from engram.tasks import sequences_metrics
from engram.tasks.classification_metrics import BLOCK, measure

draw = np.random.default_rng(1)
LOGITS, TRUTH = draw.normal(size=(2, 47, 3)), draw.integers(0, 3, 47)
RIGHT = LOGITS.argmax(-1) == TRUTH  # (S, B)


def test_a_seed_is_scored_by_accuracy_and_error_in_per_cent_and_by_nats():
    found = measure(LOGITS, TRUTH)
    for seed, row in enumerate(found["per_seed"]):
        chances = np.exp(LOGITS[seed]) / np.exp(LOGITS[seed]).sum(-1, keepdims=True)
        assert row["accuracy"] == pytest.approx(100 * RIGHT[seed].mean())
        assert row["error"] == pytest.approx(100 * (~RIGHT[seed]).mean())
        nats = -np.log(chances[np.arange(47), TRUTH]).mean()
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
    for name in ("accuracy", "error", "cross_entropy"):
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
