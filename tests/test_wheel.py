"""The package as a user gets it: a wheel and a backend of Keras, nothing else."""

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import small_models

from engram import models, serving

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


def installed(wheel, room, *needed):
    """Makes an environment of the wheel and what `pip install` needs; returns Python."""
    venv.create(room, with_pip=True)
    python = room / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *needed], check=True)
    subprocess.run([*install, "--no-deps", wheel], check=True)
    return python


@pytest.mark.network
def test_with_keras_and_jax_alone_an_stlm_trains(wheel, tmp_path):
    lock = ["--require-hashes", "-r", ROOT / "requirements-jax.lock"]
    python = installed(wheel, tmp_path / "venv", *lock)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run(
        [python, "-c", ONE_STEP],
        check=True,
        cwd=tmp_path,
        env={**clean, "KERAS_BACKEND": "jax"},
    )


LOADS = """
import importlib, pkgutil, sys
import engram.models, engram.serving

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(name)

for name in {absent}:
    assert name not in sys.modules, name
sys.meta_path.insert(0, Absent())
for package in (engram.models, engram.serving):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
ABSENT = ("mlflow", "pandas", "sklearn", "sacrebleu", "sentencepiece", "pydantic", "yaml")


def test_to_load_a_model_takes_nothing_that_the_wheel_does_not_need():
    code = LOADS.format(absent=ABSENT)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


TOKENS = """
import json, sys
from pathlib import Path
import numpy as np
from engram import models

folder = Path(sys.argv[1])
model = models.load("seq2seq", "translation", folder / "model.keras")
print(json.dumps(np.asarray(model.translate(np.array([[5, 6, 2]]), 9)).tolist()))
"""


@pytest.mark.network
def test_with_tensorflow_alone_every_promoted_model_answers_as_here(wheel, tmp_path):
    pins = [
        f"{name}=={importlib.metadata.version(name)}"
        for name in ("tensorflow", "keras", "numpy")
    ]
    python = installed(wheel, tmp_path / "venv", *pins)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(*command):
        done = subprocess.run(
            [python, *command], env=clean, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for task in small_models.MODELS:
        file, prepared, about = small_models.write(tmp_path / task, task)
        folder = tmp_path / task / "served"
        serving.keep(folder, file, prepared, about)
        if task == "translation":  # text needs more, tokens do not
            here = models.load("seq2seq", "translation", file)
            expected = here.translate(np.array([[5, 6, 2]]), 9)
            found = json.loads(run("-c", TOKENS, folder).splitlines()[-1])
            np.testing.assert_array_equal(found, expected)
        else:
            assert run("-m", "engram.serving", folder)
    code = "import importlib.util as u; print([n for n in {!r} if u.find_spec(n)])"
    assert run("-c", code.format(ABSENT)) == "[]\n"
