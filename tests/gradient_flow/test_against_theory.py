"""What is measured of random nets is what mean-field theory says.

The nets are those of the table in docs/gradient_flow.md.
"""

import importlib.util
import json
import math
from pathlib import Path

import pytest

from engram.gradient_flow import theory

SCRIPT = Path(__file__).parents[2] / "docs/gradient_flow.py"


@pytest.fixture(scope="module")
def nets():
    spec = importlib.util.spec_from_file_location("gradient_flow_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("activation", "sigma_w2", "sigma_b2", "seeds"),
    [
        ("tanh", 1.5, 0.05, 16),
        ("tanh", 2.5, 0.05, 16),
        ("sigmoid", 1.0, 0.0, 16),
        ("linear", 1.0, 0.0, 16),
        ("relu", 2.0, 0.0, 32),
        ("relu", 1.0, 0.0, 32),
    ],
)
def test_chi_of_a_layer_within_a_hundredth(nets, activation, sigma_w2, sigma_b2, seeds):
    found = nets.plain(activation, sigma_w2, sigma_b2, seeds)
    assert found["measured"] == pytest.approx(found["theory"], rel=0.01)


def test_narrow_nets_lose_gradients_by_what_theory_says(nets, monkeypatch):
    """32 layers of 64, one probe: the mean of ln |J u|^2 is lower by beta / 2 = 1.25."""
    depth, width, seeds = 32, 64, 150
    for name, value in {"WIDTH": width, "DEPTH": depth, "PROBES": 1}.items():
        monkeypatch.setattr(nets, name, value)
    beta = theory.spread("relu", depth, width)
    assert beta / 2 == pytest.approx(1.25)
    found = nets.plain("relu", 2.0, 0.0, seeds)
    added_back = depth * math.log(found["measured"])
    assert added_back == pytest.approx(0, abs=3 * (beta / seeds) ** 0.5)
    spread = (depth * found["error"] / found["measured"]) ** 2 * seeds
    assert spread == pytest.approx(beta, rel=0.3)


def test_batch_norm_makes_gradients_grow(nets):
    found = nets.batch_norm(seeds=4)
    assert found["theory"] == pytest.approx(1.467, abs=1e-3)
    assert found["measured"] == pytest.approx(found["theory"], abs=0.06)


@pytest.mark.parametrize("scale", [1.0, 20**-0.5])
def test_residual_blocks_multiply_by_one_plus_the_square_of_their_scale(nets, scale):
    found = nets.residual(20, scale, seeds=16)
    assert found["measured"] == pytest.approx(found["theory"], abs=0.1)


@pytest.mark.parametrize("start", ["Gaussian", "orthogonal"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_squared_singular_values_spread_as_much_as_theory_says(nets, activation, start):
    found = nets.spread_of_squares(activation, start, 5, seeds=2)
    assert found["measured"] == pytest.approx(found["theory"], rel=0.1, abs=1e-4)


def test_a_gru_without_kernels_keeps_sigmoid_of_its_bias_each_step(nets):
    found = nets.gated()
    assert found["measured"] == pytest.approx(found["theory"], abs=1e-6)
    assert found["error"] < 1e-6  # of all entries


def test_the_page_has_the_table_that_was_measured(nets):
    rows = json.loads((nets.DOCS / "gradient_flow.json").read_text())
    page = (nets.DOCS / "gradient_flow.md").read_text(encoding="utf-8")
    assert nets.filled(page, rows) == page
