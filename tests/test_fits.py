"""Costs and learning curves are those of the seeds, and of no other."""

import pytest

from engram import fits

RUNS = {
    "1": {"rate": 0.01, "best_epoch": 4, "seconds": 2.0, "peak_memory": 700.0},
    "2": {"rate": 0.01, "best_epoch": 7, "seconds": 4.0, "peak_memory": 900.0},
}
RUNS = {seed: {**run, "fitted": "train"} for seed, run in RUNS.items()}


def test_the_cost_is_a_mean_of_times_and_the_most_memory():
    assert fits.cost(RUNS, solved=False) == {
        "seeds": [1, 2],
        "fitted": "train",
        "train_seconds": 3.0,
        "peak_memory": 900.0,
        "learning_rate": 0.01,
        "best_epoch": 5.5,
    }


def test_runs_from_before_memory_was_measured_are_still_read():
    old = {"1": {k: v for k, v in RUNS["1"].items() if k != "peak_memory"}}
    assert fits.cost(old, solved=False)["peak_memory"] is None


def test_what_is_solved_has_no_rate_and_a_mean_of_epochs_no_best_one():
    found = fits.cost(RUNS, solved=True)
    assert found["learning_rate"] is None and found["best_epoch"] is None
    averaged = {seed: {**run, "best_epoch": None} for seed, run in RUNS.items()}
    assert fits.cost(averaged, solved=False)["best_epoch"] is None


@pytest.mark.parametrize("key, title", [("val_loss", fits.HELD), ("loss", fits.SEEN)])
def test_a_learning_curve_is_the_mean_of_the_seeds(key, title):
    history = {"1": {"loss": [9, 9, 9]}, "2": {"loss": [9, 9, 9]}}
    history["1"][key], history["2"][key] = [4, 2, 1], [2, 2, 3]
    (curve,) = fits.curves(history)
    assert curve["y"] == [3, 2, 2] and curve["x"] == [1, 2, 3]
    assert curve["title"] == title


def test_what_is_solved_at_once_has_no_learning_curve():
    assert fits.curves({"1": {"loss": [4], "val_loss": [4]}}) == []
