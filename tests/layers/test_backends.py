"""The layers compute the same under another backend of Keras than TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import backend_checks
import numpy as np
import pytest

CHECKS = Path(__file__).parents[1] / "backend_checks.py"


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_has_the_outputs_and_gradients_of_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = [str(CHECKS.parent), os.environ.get("PYTHONPATH")]
    run = subprocess.Popen(
        [sys.executable, str(CHECKS), str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        },
    )
    with run:
        # Meanwhile, with TensorFlow:
        wanted = backend_checks.outputs_and_gradients() | backend_checks.densities()
        wanted |= backend_checks.attentions()
        _, errors = run.communicate()
    assert run.returncode == 0, errors[-3000:]
    found = np.load(tmp_path / "found.npz")
    assert set(found) == set(wanted)
    for name, one in wanted.items():
        np.testing.assert_allclose(found[name], one, rtol=0, atol=1e-5, err_msg=name)
