"""Errors on sequences are those that NumPy computes by hand."""

import numpy as np
import pytest

from engram import bootstrap
from engram.tasks.sequences_metrics import BLOCK, measure

NUMBER = {"target": "number", "classes": None}
CLASS = {"target": "class", "classes": 3}
EACH = {"target": "class at each step", "classes": 4}


def marked(count, steps=20):
    """Inputs `(B, T, 2)` with a marker in each half, the first at `n` modulo 10."""
    inputs = np.zeros((count, steps, 2), np.uint16)
    inputs[np.arange(count), np.arange(count) % 10, 1] = 65535
    inputs[:, -1, 1] = 65535
    return inputs


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_the_error_of_a_sum_is_its_mean_square():
    truth = np.array([[1.0], [0.5], [2.0]], np.float32)
    outputs = np.array([[[1.0], [1.0], [2.0]], [[0.0], [0.5], [1.0]]])
    found = measure(outputs, marked(3), truth, NUMBER)
    rows = [row["mse"] for row in found["per_seed"]]
    assert rows == pytest.approx([0.25 / 3, 2 / 3])
    assert found["metrics"]["mse"] == pytest.approx(np.mean(rows))
    assert found["std"]["mse"] == pytest.approx(np.std(rows, ddof=1))
    assert (found["headline"], found["better"]) == (["mse"], "lower")


def test_who_always_answers_one_errs_by_a_sixth():
    draw = np.random.default_rng(1)
    truth = draw.uniform(size=(20_000, 2)).sum(1, keepdims=True)
    found = measure(np.ones((1, 20_000, 1)), marked(20_000), truth, NUMBER)
    assert found["metrics"]["mse"] == pytest.approx(1 / 6, rel=0.03)
    assert found["std"]["mse"] is None  # one seed


def test_errors_are_grouped_by_how_long_the_first_number_was_remembered():
    inputs = marked(80)  # ages 20 down to 11
    age = 20 - inputs[..., 1].argmax(1)
    outputs = age[None, :, None].astype(float)  # error = age
    (curve,) = measure(outputs, inputs, np.zeros((80, 1)), NUMBER)["details"]["curves"]
    assert 11 <= min(curve["x"]) < 12 and max(curve["x"]) == 20
    assert curve["x"] == sorted(curve["x"])
    for x, y in zip(curve["x"], curve["y"], strict=True):
        assert x**2 <= y <= x**2 + 0.25 + 1e-9  # at most two ages in a group


def test_classes_are_scored_by_accuracy_in_per_cent_and_cross_entropy_in_nats():
    draw = np.random.default_rng(1)
    logits, truth = draw.normal(size=(2, 40, 3)), draw.integers(0, 3, (40, 1))
    found = measure(logits, np.zeros((40, 5, 1)), truth, CLASS)
    for seed in range(2):
        right = logits[seed].argmax(-1) == truth[:, 0]
        chances = log_softmax(logits[seed])[np.arange(40), truth[:, 0]]
        row = found["per_seed"][seed]
        assert row["accuracy"] == pytest.approx(100 * right.mean())
        assert row["cross_entropy"] == pytest.approx(-chances.mean())
    assert (found["headline"], found["better"]) == (["accuracy"], "higher")
    (curve,) = found["details"]["curves"]
    both = logits.argmax(-1) == truth[:, 0]  # (S, B)
    for one, share in zip(curve["x"], curve["y"], strict=True):
        assert share == pytest.approx(100 * both[:, truth[:, 0] == one].mean())


def test_recall_counts_all_steps_in_the_loss_and_symbols_alone_in_the_accuracy():
    truth = np.zeros((6, 9), np.uint8)
    truth[:, -3:] = np.random.default_rng(1).integers(1, 4, (6, 3))
    logits = np.random.default_rng(2).normal(size=(2, 6, 9, 4))
    found = measure(logits, np.zeros((6, 9, 5)), truth, EACH)
    chances = np.take_along_axis(
        log_softmax(logits), np.broadcast_to(truth[None, ..., None], (2, 6, 9, 1)), -1
    )
    right = logits[:, :, -3:].argmax(-1) == truth[:, -3:]
    assert found["metrics"]["cross_entropy"] == pytest.approx(-chances.mean())
    assert found["metrics"]["accuracy"] == pytest.approx(100 * right.mean())
    (curve,) = found["details"]["curves"]
    assert curve["x"] == [1, 2, 3]
    assert curve["y"] == pytest.approx((100 * right.mean((0, 1))).tolist())


def test_knowing_the_blanks_and_guessing_the_symbols_has_the_published_baseline():
    delay, symbols = 30, 8
    truth = np.zeros((4, delay + 20), np.uint8)
    truth[:, -10:] = 1 + np.arange(40).reshape(4, 10) % symbols
    logits = np.full((1, *truth.shape, symbols + 1), -50.0)
    logits[:, :, :-10, 0] = 50
    logits[:, :, -10:, 1:] = 50
    found = measure(logits, np.zeros((4, delay + 20, 10)), truth, EACH)
    baseline = 10 * np.log(symbols) / (delay + 20)
    assert found["metrics"]["cross_entropy"] == pytest.approx(baseline)


def test_large_logits_do_not_overflow():
    logits = np.array([[[1e4, 0.0, -1e4]]])
    found = measure(logits, np.zeros((1, 2, 1)), np.array([[1]]), CLASS)
    assert found["metrics"]["cross_entropy"] == pytest.approx(1e4)


def test_blocks_add_up_to_the_metric_and_give_intervals():
    count = 20 * BLOCK + 7
    draw = np.random.default_rng(1)
    truth = draw.uniform(size=(count, 1))
    near, far = (truth + draw.normal(0, size, (2, count, 1)) for size in (0.01, 0.1))
    one, other = (measure(o, marked(count), truth, NUMBER) for o in (near, far))
    paired = other["details"]["paired"]
    assert sum(paired["count"]) == count and paired["count"][-1] == 7
    for total, row in zip(paired["sum"], other["per_seed"], strict=True):
        assert sum(total) / count == pytest.approx(row["mse"])
    found = bootstrap.interval(paired, one["details"]["paired"])
    assert 0 < found.low < found.difference < found.high


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_output_that_is_no_number_is_refused(wrong):
    outputs = np.ones((1, 5, 1))
    outputs[0, 2] = wrong
    with pytest.raises(ValueError, match="1 of 5 outputs are NaN or infinite"):
        measure(outputs, marked(5), np.ones((5, 1)), NUMBER)
