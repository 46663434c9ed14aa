"""What tests share. Nothing here loads TensorFlow until a test asks for it."""

import hashlib
import json
import random
import sys

import numpy as np
import pytest

LONG = {
    f"test_{name}.py"
    for name in (
        "dvc_yaml",
        "repro",
        "stages",
        "lineage",
        "sweep",
        "experiments",
        "outbox",
    )
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Puts tests of several devices first: TensorFlow fixes its devices as it starts.

    Then the files that take minutes, so that the last worker is not alone with one.
    """

    def place(item):
        devices = "two_devices" in getattr(item, "fixturenames", ())
        return not devices, item.path.name not in LONG

    items.sort(key=place)


@pytest.fixture(scope="session")
def two_devices():
    """Splits the CPU into two logical devices, for the rest of the session."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    half = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [half, half])
    return tf.config.list_logical_devices("CPU")


@pytest.fixture(autouse=True)
def seed():
    """Starts every test at the same random state."""
    random.seed(1)
    np.random.seed(1)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(1)
    return 1


@pytest.fixture(autouse=True)
def closed_figures():
    """Closes what a test drew: Matplotlib warns of more than twenty, in a later test."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def write_prepared():
    """Returns a function that writes what `tasks.forecasting.prepare` writes."""
    return _write_prepared


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A small prepared dataset: five noisy sines with gaps, five days of 48 readings."""
    draw = np.random.default_rng(1)
    readings = _sines(steps=240) + draw.normal(0, 4, (240, 5))
    readings[draw.random(readings.shape) < 0.02] = np.nan
    folder = tmp_path_factory.mktemp("prepared")
    _write_prepared(folder, readings)
    return folder


@pytest.fixture(scope="session")
def pure_sines(tmp_path_factory):
    """A prepared dataset that every trained model can predict: sines without noise."""
    folder = tmp_path_factory.mktemp("pure_sines")
    _write_prepared(folder, _sines(steps=240))
    return folder


@pytest.fixture(scope="session")
def translator_suite(tmp_path_factory):
    """The folder of a suite with a translator that knows two sentences by heart."""
    import translator_suite  # loads TensorFlow

    folder = tmp_path_factory.mktemp("suite")
    translator_suite.write(folder)
    return folder


@pytest.fixture
def one_batch(prepared):
    """Eight training windows with a missing target: inputs, target, weight as arrays."""
    from engram.tasks import forecasting

    data = forecasting.batches(prepared, "train", batch_size=8)
    return next(
        (given, target, weight)
        for given, target, weight in data.as_numpy_iterator()
        if not weight.all()
    )


def _sines(steps):
    """Returns five daily sines of other phases `(steps, 5)`, in km/h."""
    day = 2 * np.pi * np.arange(steps) / 48
    return 60 + 20 * np.sin(day[:, None] + np.arange(5))


def _write_prepared(folder, readings, parts=None, history=12, horizon=12, first_slot=7):
    """Writes readings `(steps, N)` of 48 intervals a day; returns the spec."""
    readings = np.asarray(readings, np.float32)
    steps, detectors = readings.shape
    ends = [0, round(0.6 * steps), round(0.8 * steps), steps]
    names = ("train", "validation", "test")
    parts = parts or {name: ends[k : k + 2] for k, name in enumerate(names)}
    train = readings[slice(*parts["train"])]
    spec = {
        "task": "forecasting",
        "dataset": "sines",
        "unit": "km/h",
        "interval_minutes": 30,
        "slots_per_day": 48,
        "first_slot": first_slot,
        "layout": "ring",
        "missing": [],
        "missing_share": float(np.isnan(readings).mean()),
        "history": history,
        "horizon": horizon,
        "detectors": [f"km {n}" for n in range(detectors)],
        "parts": parts,
        "mean": float(np.nanmean(train, dtype=np.float64)),
        "std": float(np.nanstd(train, dtype=np.float64)) or 1.0,
        "fingerprint": hashlib.sha256(readings.tobytes()).hexdigest(),
    }
    np.save(folder / "readings.npy", readings)
    np.save(folder / "graph.npy", np.empty((detectors, 0), np.float32))
    (folder / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec
