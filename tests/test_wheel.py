"""The package as a user of the layers gets it: a wheel, Keras and JAX, nothing else."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ONE_STEP = """
import importlib.util, keras, numpy as np
from engram.layers import STLM, STLMCell

assert keras.backend.backend() == "jax"
assert importlib.util.find_spec("tensorflow") is None
for layer in (STLM(4), keras.layers.RNN(STLMCell(4))):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([layer, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x, y = np.random.rand(8, 5, 3), np.random.rand(8, 1)
    before = model.evaluate(x, y, verbose=0)
    old = [np.array(w) for w in model.weights]
    model.fit(x, y, epochs=20, verbose=0)
    assert any(np.any(a != np.array(b)) for a, b in zip(old, model.weights))
    assert model.evaluate(x, y, verbose=0) < before
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run([*build, "--outdir", folder, ROOT], check=True, capture_output=True)
    (file,) = folder.glob("engram-*.whl")
    return file


def test_the_wheel_holds_the_package_its_tables_and_its_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "engram/py.typed",
        "engram/layers/stlm/stlm_cell.py",
        "engram/datasets/checksums.tsv",
        "engram/datasets/mirror.tsv",
        "engram/tasks/judges/digits.keras",
    ):
        assert needed in names
    outside = [name for name in names if not name.startswith(("engram/", "engram-"))]
    assert not outside


@pytest.mark.network
def test_with_keras_and_jax_alone_an_stlm_trains(wheel, tmp_path):
    room = tmp_path / "venv"
    venv.create(room, with_pip=True)
    python = room / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    lock = ["--require-hashes", "-r", ROOT / "requirements-jax.lock"]
    subprocess.run([*install, *lock], check=True)
    subprocess.run([*install, "--no-deps", wheel], check=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run(
        [python, "-c", ONE_STEP],
        check=True,
        cwd=tmp_path,
        env={**clean, "KERAS_BACKEND": "jax"},
    )
