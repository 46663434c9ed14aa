"""The layers compute the same under another backend of Keras than TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CHECKS = Path(__file__).parents[1] / "backend_checks.py"


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_has_the_outputs_and_gradients_of_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = [str(CHECKS.parent), os.environ.get("PYTHONPATH")]
    done = subprocess.run(
        [sys.executable, str(CHECKS), str(tmp_path)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    import backend_checks

    wanted = backend_checks.outputs_and_gradients()
    found = np.load(tmp_path / "found.npz")
    assert set(found) == set(wanted)
    for name, one in wanted.items():
        np.testing.assert_allclose(found[name], one, rtol=0, atol=1e-5, err_msg=name)
