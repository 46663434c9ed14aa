"""Every number in a README's table stands in a committed results file."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from engram import readme

ROOT = Path(__file__).parents[1]
STUDIES = [
    f"studies/{name}/README.md"
    for name in (
        "traffic",
        "long_memory",
        "sequential_mnist",
        "rbm_mnist",
        "translation",
        "multi30k",
        "judges",
        "gradient_flow",
        "images",
        "city_counts",
    )
]
GROUP = {
    "id": "road",
    "dataset": "road",
    "headline": ["rmse_to_60"],
    "rows": [
        {
            "experiment": "a",
            "model": "gru",
            "learning_rate": 0.01,
            "best_epoch": 8.2,
            "parameters": 1234,
            "seeds": [1],
            "metrics": {"rmse_to_60": 1.5},
            "std": {"rmse_to_60": None},
            "train_seconds": 2.0,
        }
    ],
    "published": [
        {
            "experiment": "a",
            "metric": "rmse_to_60",
            "published": 1.25,
            "source": "Paper",
            "difference": "d",
        }
    ],
}


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Results that git has: a rerun of the tour writes times of its own."""
    folder = tmp_path_factory.mktemp("committed")
    wanted = ["results", "studies", "benchmarks/results"]
    archive = ["git", "archive", "--format=tar", "HEAD", *wanted]
    packed = subprocess.run(archive, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            f"docs/{name}.md"
            for name in ("attention", "gan", "gradient_flow", "rbm", "stlm")
        ),
    ]
    + STUDIES,
)
def test_the_tables_are_those_of_the_committed_results(page, committed):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- table:" in text
    known = [readme.filled(text, folder) for folder in (committed, ROOT)]
    assert text in known, "write them anew: make tables"


def test_the_page_names_the_gpu_and_the_versions_of_its_table():
    results = ROOT / "benchmarks/results/stlm_gpu.json"
    content = json.loads(results.read_text(encoding="utf-8"))
    text = " ".join((ROOT / "docs/stlm.md").read_text(encoding="utf-8").split())
    assert {f"one {device} (" in text for device in content["devices"].values()} == {True}
    for backend, package in (("JAX", "jax"), ("PyTorch", "torch")):
        versions = content["versions"][backend]
        assert f"Keras {versions['keras']}" in text
        assert f"{backend} {versions[package]}" in text


def test_a_block_is_replaced_and_the_text_around_it_stays(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"datasets": [GROUP]}))
    text = "before\n<!-- table: c.json road -->\nold\n<!-- end -->\nafter\n"
    filled = readme.filled(text, tmp_path)
    assert filled.startswith("before\n") and filled.endswith("<!-- end -->\nafter\n")
    assert "old" not in filled and "| a | gru | 1,234 | 1.500 |" in filled
    assert readme.filled(filled, tmp_path) == filled


def test_published_numbers_stand_beside_ours(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"datasets": [GROUP]}))
    text = "<!-- table: c.json road published -->\n<!-- end -->\n"
    assert "| 1.500 | 1.250 | Paper |" in readme.filled(text, tmp_path)


def test_a_benchmark_becomes_a_table_of_ratios(tmp_path):
    rows = [{"pair": "a against b", "ratio": ratio} for ratio in (1.0, 4.0)]
    content = {"rows": rows, "geomeans": {"a against b": 2.0}}
    (tmp_path / "b.json").write_text(json.dumps(content))
    text = "<!-- table: b.json speed -->\n<!-- end -->\n"
    assert "| a against b | 2.00 | 1.00 | 4.00 | 2 |" in readme.filled(text, tmp_path)


def test_a_benchmark_becomes_a_table_of_times(tmp_path):
    one = {"backend": "JAX", "layer": "a", "cudnn": True, "steps": 12, "width": 128}
    content = {
        "times": [
            {**one, "kind": "inference", "ms": 0.12345},
            {**one, "kind": "training", "ms": 12.345},
            {**one, "kind": "training", "steps": 100, "ms": 1234.5},
            {**one, "kind": "training", "layer": "b", "cudnn": False, "ms": 2.0},
        ]
    }
    (tmp_path / "b.json").write_text(json.dumps(content))
    text = "<!-- table: b.json times -->\n<!-- end -->\n"
    filled = readme.filled(text, tmp_path)
    head = "cuDNN | Inference, 12 x 128 | Training, 12 x 128 | Training, 100 x 128 |"
    assert f"| Backend | Layer | {head}" in filled
    assert "| JAX | a | yes | 0.123 | 12.3 | 1234 |" in filled
    assert "| JAX | b | no | – | 2 | – |" in filled
