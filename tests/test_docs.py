"""The examples of the pages in docs/ run as they are told."""

import re
from pathlib import Path

import numpy as np

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "attention.md"


def test_the_examples_run_one_after_the_other():
    both, step_by_step = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names = {}
    exec(both, names)
    assert names["model"].output_shape == [(None, None, 64), (None, 4, None, None)]
    from engram.layers import TransformerDecoderBlock

    draw = np.random.default_rng(1)
    x, memory = (draw.normal(size=(2, n, 8)).astype("float32") for n in (3, 5))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
    names = {"TransformerDecoderBlock": TransformerDecoderBlock, "batch": 2, "length": 3}
    names |= {"x": x, "memory": memory, "memory_mask": mask}
    exec(step_by_step, names)
    whole = names["decoder"](x, memory, memory_mask=mask)
    np.testing.assert_allclose(names["y"][:, 0], whole[:, -1], rtol=0, atol=1e-5)


def test_a_training_is_watched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "gradient_flow.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names = {}
    exec(example, names)
    assert {row["step"] for row in names["flow"].rows} == {0, 50, 100}
    first = names["flow"].rows[0]
    assert (first["step"], first["layer"]) == (0, "hidden_1")
    assert first["gradient"] < -4
    assert (tmp_path / "gradient.png").stat().st_size > 0


def test_a_generator_of_ones_own_finds_the_points():
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "gan.md").read_text(), re.S)
    names = {}
    exec(example, names)
    assert names["made"].shape == (1000, 2)
    np.testing.assert_allclose(names["made"].mean(0), (3, -2), atol=0.5)
