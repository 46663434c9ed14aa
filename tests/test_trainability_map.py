"""A trainability map tells which nets learned, and goes on where it was stopped."""

import json
import math

import numpy as np
import pytest

from engram import trainability_map
from engram.gradient_flow import theory

TRAIN = {"steps": 30, "batch_size": 32, "learning_rate": 0.6, "seed": 1}
HOW = {"activation": "tanh", "width": 8, "sigma_b2": 0.05, "train": TRAIN}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Images of five kinds, each with a bright pixel of its own."""
    folder = tmp_path_factory.mktemp("prepared")
    targets = np.arange(400, dtype=np.int32) % 5
    images = np.random.default_rng(1).integers(0, 60, (400, 3, 3, 1), np.uint8)
    images[np.arange(400), targets // 3, targets % 3] = 255
    spec = {
        "shape": [3, 3, 1],
        "classes": 5,
        "white": 255,
        "weights": [1.0] * 5,  # balanced, so that batches have a third array
        "parts": {"train": [0, 400]},
        "fingerprint": "that of these images",
    }
    np.save(folder / "inputs.npy", images)
    np.save(folder / "targets.npy", targets)
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


@pytest.fixture
def spec(prepared):
    return json.loads((prepared / "spec.json").read_text())


def _rows(prepared, spec, depths, sigma_w2, known=(), **changes):
    """Returns what was measured but the time it took, which no two runs share."""
    how = HOW | {"depths": depths, "sigma_w2": sigma_w2, "known": list(known)} | changes
    rows = [dict(row) for row in trainability_map.measure(prepared, spec, **how)]
    new = rows[len(known) :]
    assert all(row.pop("seconds") > 0 or row["accuracy"] is None for row in new)
    return rows


def test_a_net_that_can_learn_does_and_one_that_cannot_stays_at_chance(prepared, spec):
    shallow, lost = _rows(prepared, spec, [1, 40], [1.5])
    assert shallow["depth"] == 1 and shallow["accuracy"] > 0.9
    assert lost["depth"] == 40 and lost["accuracy"] < 0.5


def test_deeper_nets_are_given_up_after_two_depths_at_chance(prepared, spec):
    rows = _rows(prepared, spec, [30, 40, 50, 60], [0.3, 1.76])
    told = {s: [r["accuracy"] for r in rows if r["sigma_w2"] == s] for s in (0.3, 1.76)}
    assert all(one < 2 / 5 for one in told[0.3][:2])
    assert told[0.3][2:] == [None, None]
    assert [row["depth"] for row in rows] == [30, 30, 40, 40, 50, 50, 60, 60]


def test_weights_start_as_the_theory_has_them(spec):
    model = trainability_map.net(spec, "tanh", 400, 2, TRAIN)
    trainability_map.start(model, 1.7, 0.05, seed=3)
    kernel, bias = model.trainable_variables[2:4]
    assert np.var(kernel) * 400 == pytest.approx(1.7, rel=0.02)
    assert np.var(bias) == pytest.approx(0.05, rel=0.25)
    first = np.array(kernel)
    trainability_map.start(model, 6.8, 0.05, seed=3)
    np.testing.assert_allclose(kernel, 2 * first, rtol=1e-5)


def test_a_net_does_not_depend_on_the_nets_before_it(prepared, spec):
    (alone,) = _rows(prepared, spec, [3], [2.0])
    assert _rows(prepared, spec, [2, 3], [1.0, 2.0])[-1] == alone


def test_rows_that_are_known_are_not_trained_again(prepared, spec, monkeypatch):
    whole = _rows(prepared, spec, [1, 2], [1.0, 1.5])
    fitted, fit = [], trainability_map.fit
    monkeypatch.setattr(trainability_map, "fit", lambda *a: (fitted.append(a), fit(*a)))
    assert _rows(prepared, spec, [1, 2], [1.0, 1.5], whole[:3]) == whole
    assert len(fitted) == 1


def test_the_deepest_net_that_trained_stands_beside_theory():
    accuracy = {
        1.0: [0.9, 0.8, 0.1],
        1.76095: [0.9, 0.9, 0.9],
        4.0: [0.1, 0.2, None],
    }
    rows = [
        {"sigma_w2": variance, "depth": depth, "accuracy": one}
        for variance, told in accuracy.items()
        for depth, one in zip((10, 20, 30), told, strict=True)
    ]
    weak, critical, strong = trainability_map.scales(rows, "tanh", 0.05)
    assert weak["deepest"] == 20 and not weak["open"]
    assert weak["xi"] == pytest.approx(3.63, abs=0.01)  # reference table
    assert weak["crossing"] == pytest.approx(20 + 10 * (0.8 - 0.5) / (0.8 - 0.1))
    assert weak["ratio"] == pytest.approx(weak["crossing"] / weak["xi"])
    assert critical["crossing"] is None and strong["crossing"] is None
    assert critical["open"] and critical["deepest"] == 30
    assert critical["xi"] is None or critical["xi"] > 1000
    assert strong["deepest"] is None and strong["ratio"] is None
    assert strong["xi"] == pytest.approx(6.98, abs=0.05)


def test_the_picture_has_each_net_in_its_place():
    rows = [
        {"sigma_w2": variance, "depth": depth, "accuracy": variance / 10 + depth / 100}
        for depth in (10, 20, 40)
        for variance in (1.0, 4.0)
    ]
    rows[-1]["accuracy"] = None
    axis = trainability_map.draw(rows, "tanh", 0.05).axes[0]
    (mesh,) = axis.collections
    seen = mesh.get_array().reshape(3, 2)
    np.testing.assert_allclose(seen.filled(-1), [[20, 50], [30, 60], [50, -1]])
    line, ends = axis.get_lines()
    (end,) = ends.get_xydata().tolist()  # that of 1.0 is not seen
    assert end == [4.0, pytest.approx(20 + 20 * 0.1 / 0.6)]
    at = np.argmin(abs(line.get_xdata() - 1.0))
    expected = 6 * theory.correlation_depth("tanh", line.get_xdata()[at], 0.05)
    assert line.get_ydata()[at] == pytest.approx(expected)
    assert math.isfinite(max(line.get_ydata()))
