"""Data that the tests of RBMs share."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def digits():
    """Scikit-learn's 1797 digits of 8 x 8 pixels, black or white."""
    from sklearn.datasets import load_digits

    return (load_digits().data >= 8).astype(np.float32)


@pytest.fixture(scope="session")
def prototypes():
    """1001 rows of 30 units: four prototypes, each bit of a row flipped by chance 0.3."""
    draw = np.random.default_rng(0)
    kinds = draw.integers(0, 2, (4, 30))
    flipped = draw.random((1001, 30)) < 0.3
    return np.abs(kinds[draw.integers(0, 4, 1001)] - flipped).astype(np.float64)
