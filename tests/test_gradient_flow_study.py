"""What studies/gradient_flow found is what theory and its pages say."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "studies/gradient_flow/results"
CHANCE = 0.12  # of ten classes, the most frequent one being somewhat above a tenth


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def cliff(optimizer):
    rows = read(f"depth-cliff-{optimizer}")
    return {(row["net"], row["depth"]): row for row in rows}


@pytest.mark.parametrize("depth", ["deepest", "crossing"])
def test_nets_train_as_deep_as_about_six_depth_scales(depth):
    """The deepest net that trained; and where accuracy crosses a half behind it."""
    far = [
        scale[depth] / scale["xi"]
        for scale in read("trainability")["scales"]
        if scale["sigma_w2"] <= 1.5 or scale["sigma_w2"] >= 2.5
    ]
    assert len(far) == 10
    assert all(4 <= ratio <= 7 for ratio in far)


@pytest.mark.parametrize("depth", [90, 100])
def test_the_deepest_nets_train_in_a_window_around_the_edge_of_chaos(depth):
    trained = [
        row["sigma_w2"]
        for row in read("trainability")["rows"]
        if row["depth"] == depth and (row["accuracy"] or 0) >= 0.5
    ]
    assert 1.76 in trained
    assert 1.45 <= min(trained) and max(trained) <= 2.3


@pytest.mark.parametrize("net", ["sigmoid", "sigmoid clipped"])
def test_sigmoids_learn_at_three_layers_and_are_at_chance_from_four_on(net):
    found = {
        depth: row["accuracy"] for (n, depth), row in cliff("sgd").items() if n == net
    }
    assert found[3] > 0.9
    assert len(found) > 4
    assert all(one < CHANCE for depth, one in found.items() if depth > 3)


def test_adam_moves_the_cliff_of_sigmoids_to_eight_layers():
    found = {
        depth: row["accuracy"]
        for (n, depth), row in cliff("adam").items()
        if n == "sigmoid"
    }
    assert found[4] > 0.9 and found[6] > 0.8
    assert found[8] < 0.5
    assert found[10] < CHANCE and found[30] < CHANCE


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_after_rbms_ten_layers_learn_and_the_first_has_a_thousand_times_the_share(
    optimizer,
):
    nets = cliff(optimizer)
    after, before = nets["sigmoid after RBMs", 10], nets["sigmoid", 10]
    assert after["accuracy"] >= 0.96
    assert before["accuracy"] < CHANCE
    assert after["ratio"] - before["ratio"] >= 3  # decimal logarithms


def test_remedies_move_the_cliff():
    nets = cliff("sgd")
    for net in ("sigmoid highway", "tanh orthogonal", "ReLU residual"):
        assert nets[net, 30]["accuracy"] > 0.9
    for net in ("ReLU He", "ReLU batch norm"):
        assert nets[net, 10]["accuracy"] > 0.9
    for net in ("leaky ReLU He", "ELU He", "SELU LeCun", "ReLU ReZero"):
        assert cliff("more")[net, 30]["accuracy"] > 0.9


def test_what_moves_no_cliff_or_another_one():
    nets = cliff("more")
    assert nets["sigmoid clipped each", 3]["accuracy"] > 0.9
    assert nets["sigmoid clipped each", 10]["accuracy"] < CHANCE
    assert nets["GELU He", 30]["accuracy"] < CHANCE
    assert nets["GELU He", 30]["ratio"] < -2
    unscaled, scaled = (
        nets["ReLU residual unscaled", 20],
        cliff("sgd")["ReLU residual", 20],
    )
    assert unscaled["rate"] is None  # the loss was no number with any
    assert scaled["accuracy"] > 0.95


@pytest.mark.parametrize("name, most", [("trainability", 90), ("depth-cliff-sgd", 90)])
def test_the_time_of_each_is_told(name, most):
    found = read(name)
    rows = found["rows"] if name == "trainability" else found
    assert 0 < sum(row["seconds"] for row in rows) < 60 * most
