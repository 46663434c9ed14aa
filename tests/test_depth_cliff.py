"""A depth cliff tells what its nets do: right classes, first gradients, lost causes."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from engram import depth_cliff, models
from engram.layers import RBM

PLAIN = {
    "activation": "sigmoid",
    "initializer": "glorot_uniform",
    "norm": "none",
    "path": "none",
    "clipnorm": None,
    "global_clipnorm": None,
    "pretrained": False,
    "learning_rate": [0.1],
}
TRAIN = {"epochs": 4, "looks": 1, "batch_size": 16, "optimizer": "sgd", "seeds": [1]}
SIZES = {"train": [0, 300], "validation": [300, 360], "test": [360, 420]}


@pytest.fixture(autouse=True)
def undo_determinism():
    """Switches off what `training.train` switches on for the rest of its process."""
    yield
    from tensorflow.python.framework.config import disable_op_determinism

    disable_op_determinism()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Images of three kinds, each with a bright pixel of its own; two RBMs, 6 units."""
    folder = tmp_path_factory.mktemp("prepared")
    targets = np.arange(420, dtype=np.int32) % 3
    images = np.random.default_rng(1).integers(0, 60, (420, 3, 3, 1), np.uint8)
    images[np.arange(420), targets, 0] = 255
    spec = {
        "task": "classification",
        "shape": [3, 3, 1],
        "classes": 3,
        "white": 255,
        "weights": [1.0] * 3,  # balanced, so that batches have a third array
        "parts": SIZES,
    }
    np.save(folder / "inputs.npy", images)
    np.save(folder / "targets.npy", targets)
    (folder / "spec.json").write_text(json.dumps(spec))
    stack = keras.Sequential([keras.Input((9,)), RBM(6, seed=1), RBM(6, seed=2)])
    stack.save(folder / "seed-1.keras")
    return folder


def _measured(prepared, depths, nets, known=(), **changes):
    """Returns what was measured but the time it took, which no two runs share."""
    spec = json.loads((prepared / "spec.json").read_text())
    rows = depth_cliff.measure(
        prepared,
        prepared,
        spec,
        depths=depths,
        width=6,
        nets=nets,
        train=TRAIN | changes,
        known=list(known),
    )
    rows = [dict(row) for row in rows]
    assert all(row.pop("seconds") > 0 for row in rows[len(known) :])
    return rows


def test_a_row_for_each_net_and_depth_that_the_stack_reaches(prepared):
    nets = {"plain": PLAIN, "stacked": {**PLAIN, "pretrained": True}}
    rows = _measured(prepared, [1, 3], nets, epochs=1)
    assert [(row["net"], row["depth"]) for row in rows] == [
        ("plain", 1),
        ("plain", 3),
        ("stacked", 1),
    ]
    assert depth_cliff.numbers(rows[1]) == {
        "accuracy/plain": rows[1]["accuracy"],
        "ratio/plain": rows[1]["ratio"],
    }
    figure = depth_cliff.draw(rows, "sgd")
    lines = [axis.get_lines() for axis in figure.axes]
    assert [line.get_xdata().tolist() for line in lines[0][:2]] == [[1, 3], [1]]
    assert lines[0][0].get_ydata()[1] == 100 * rows[1]["accuracy"]


def test_rows_that_are_known_are_not_trained_again(prepared, monkeypatch):
    whole = _measured(prepared, [1, 2], {"net": PLAIN}, epochs=1)
    trained, train = [], depth_cliff.training.train
    monkeypatch.setattr(
        depth_cliff.training, "train", lambda *a: trained.append(a) or train(*a)
    )
    known = whole[:1]
    assert _measured(prepared, [1, 2], {"net": PLAIN}, known, epochs=1) == whole
    assert len(trained) == 1


def test_validation_keeps_the_rate_that_learns(prepared):
    net = {**PLAIN, "activation": "relu", "learning_rate": [1e-6, 0.1]}
    (row,) = _measured(prepared, [1], {"net": net}, epochs=8)
    assert row["rate"] == 0.1 and row["accuracy"] > 0.95


def test_a_gradient_that_is_0_makes_no_ratio_and_no_point(prepared):
    nets = {"closed": {**PLAIN, "path": "rezero"}, "plain": PLAIN}
    rows = _measured(prepared, [1, 2], nets, epochs=1)
    assert [row["ratio"] is None for row in rows] == [False, True, False, False]
    assert set(depth_cliff.numbers(rows[1])) == {"accuracy/closed"}
    json.loads(json.dumps(rows), parse_constant=pytest.fail)
    _, below = depth_cliff.draw(rows, "sgd").axes
    assert [len(line.get_xdata()) for line in below.get_lines()[:2]] == [1, 2]


def test_a_seed_that_fails_with_the_rate_of_the_first_counts_as_chance(
    prepared, monkeypatch
):
    train = depth_cliff.training.train

    def second_fails(build, batches, how, seeds, recorder):
        if seeds == [2]:
            raise depth_cliff.callbacks.Diverged
        return train(build, batches, how, seeds, recorder)

    (alone,) = _measured(prepared, [1], {"net": PLAIN}, epochs=1)
    monkeypatch.setattr(depth_cliff.training, "train", second_fails)
    (row,) = _measured(prepared, [1], {"net": PLAIN}, epochs=1, seeds=[1, 2])
    assert row["accuracy"] == pytest.approx((alone["accuracy"] + 1 / 3) / 2)


def test_the_mean_and_spread_are_over_seeds(prepared):
    rows = _measured(prepared, [1], {"net": PLAIN}, seeds=[1, 2], epochs=1)
    alone = [
        _measured(prepared, [1], {"net": PLAIN}, seeds=[seed], epochs=1)[0]
        for seed in (1, 2)
    ]
    right = [one["accuracy"] for one in alone]
    assert rows[0]["accuracy"] == pytest.approx(np.mean(right))
    assert rows[0]["std"] == pytest.approx(np.std(right, ddof=1))
    ratios = [one["ratio"] for one in alone]
    assert rows[0]["ratio"] == pytest.approx(np.mean(ratios))
    assert alone[0]["std"] is None


def test_a_loss_that_is_no_number_with_any_rate_is_chance(prepared):
    net = {**PLAIN, "activation": "linear", "learning_rate": [1.0]}
    net["initializer"] = "he_normal"
    spec = json.loads((prepared / "spec.json").read_text())

    def build(rate, seed):
        model = models.build(
            "very_deep_net",
            spec,
            rate,
            depth=30,
            width=6,
            optimizer="sgd",
            **{k: v for k, v in net.items() if k not in ("pretrained", "learning_rate")},
        )
        for weight in model.weights:
            weight.assign(10 * weight)
        return model

    row = depth_cliff._measured(build, prepared, spec, [1.0, 0.5], TRAIN)
    assert row["rate"] is None and row["std"] is None
    assert isinstance(row["ratio"], float)  # large, and a number
    assert row["accuracy"] == pytest.approx(1 / 3)


def test_the_ratio_is_that_of_the_first_and_last_hidden_kernels_and_biases(prepared):
    spec = json.loads((prepared / "spec.json").read_text())
    args = {k: v for k, v in PLAIN.items() if k not in ("pretrained", "learning_rate")}

    def build(rate, seed):
        return models.build(
            "very_deep_net", spec, rate, depth=3, width=6, optimizer="sgd", **args
        )

    found = depth_cliff.gradient_ratio(build, prepared, spec, seed=5)
    keras.utils.set_random_seed(5)
    model = build(0.1, 5)
    data = depth_cliff.classification.batches(prepared, "train", depth_cliff.IMAGES, 5)
    x, y = next(iter(data))[:2]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    weights = [model.get_layer(f"hidden_{n}").weights for n in (1, 3)]
    first, last = (
        tf.linalg.global_norm(one)
        for one in tape.gradient(loss, [[w.value for w in some] for some in weights])
    )
    assert found == pytest.approx(float(np.log10(first / last)), abs=1e-4)
