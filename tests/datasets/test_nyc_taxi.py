"""NYC taxi: pairs of zones out of a MATLAB array, or a refusal that names the file."""

import hashlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy.io import savemat
from tensorflow_datasets.core.download import checksums

from engram import datasets
from engram.datasets.nyc_taxi import NycTaxi, parse_tensor
from engram.datasets.readings import ReadingsError

HOURS = 5


def trips(dtype=np.uint16):
    """Returns an array whose every number tells its place."""
    return np.arange(30 * 30 * HOURS).reshape(30, 30, HOURS).astype(dtype)


@pytest.fixture
def file(tmp_path):
    """Returns a function that writes arrays as MATLAB does and returns the path."""

    def write(**arrays):
        path = tmp_path / "tensor.mat"
        savemat(path, arrays, do_compression=True)  # as the published file
        return path

    return write


@pytest.fixture
def mirrored(tmp_path, file, monkeypatch):
    """The tiny file in a mirror, with its own checksum."""
    place = tmp_path / "mirror/traffic_nyc_taxi"
    place.mkdir(parents=True)
    file(tensor=trips()).rename(place / "tensor.mat")
    content = (place / "tensor.mat").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    info = checksums.UrlInfo(tfds.core.utils.Size(len(content)), digest, "tensor.mat")
    monkeypatch.setattr(NycTaxi, "url_infos", {NycTaxi.URLS["trips"]: info})
    monkeypatch.setenv("ENGRAM_MIRROR", str(place.parent))


@pytest.fixture
def builder(mirrored, tmp_path):
    """What reads the fetched file back."""
    datasets.fetch("nyc_taxi", tmp_path / "raw", file="")
    return tfds.builder_from_directory(tmp_path / "raw")


def refusal(path):
    with pytest.raises(ReadingsError) as error:
        parse_tensor(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_a_detector_is_a_pair_of_zones_row_by_row(builder):
    found = list(builder.as_data_source(split="detectors"))
    names = [example["detector"].decode() for example in found]
    assert names[:2] == ["00>00", "00>01"] and names[-1] == "29>29"
    assert names[7 * 30 + 12] == "07>12" and len(set(names)) == 900
    for n in (0, 1, 7 * 30 + 12, 899):
        assert found[n]["readings"].dtype == np.float32
        np.testing.assert_array_equal(found[n]["readings"], trips()[n // 30, n % 30])
        assert found[n]["weights"].shape == (0,)


def test_what_a_reading_means_travels_with_the_readings(builder):
    assert dict(builder.info.metadata) == {
        "unit": "trips/h",
        "interval_minutes": 60,
        "first_slot": 0,
        "missing": [],  # a zero is a count
        "layout": "grid 30 x 30",
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_whole_numbers_of_any_kind_are_counts(file, dtype):
    given = trips(dtype)
    np.testing.assert_array_equal(parse_tensor(file(tensor=given)), given)


def test_another_variable_is_refused_with_its_name(file):
    message = refusal(file(matrix=trips(), dates=[1.0]))
    assert "expected an array `tensor`. Received: dates, matrix" in message


@pytest.mark.parametrize("shape", [(30, 30), (30, 29, 5), (5, 30, 30), (30, 30, 0)])
def test_another_shape_is_refused(file, shape):
    path = file(tensor=np.zeros(shape))
    assert f"the shape (30, 30, hours). Received: {shape}" in refusal(path)


@pytest.mark.parametrize("wrong", [np.array([["a"]], object), np.array([1j])])
def test_what_is_no_number_is_refused(file, wrong):
    tensor = np.broadcast_to(wrong.ravel()[0], (30, 30, 2)).astype(wrong.dtype)
    assert "`tensor` must hold numbers. Received: " in refusal(file(tensor=tensor))


@pytest.mark.parametrize("count", [-1, 0.5, np.nan, np.inf])
def test_what_is_no_count_is_refused_with_its_place(file, count):
    tensor = trips(np.float64)
    tensor[7, 12, 3] = count
    message = refusal(file(tensor=tensor))
    assert "whole numbers, 0 or more" in message
    assert f"Received: {float(count)} at 07>12, hour 3" in message


def test_a_negative_integer_is_refused(file):
    assert "Received: -2 at 00>00, hour 0" in refusal(file(tensor=trips(np.int16) - 2))


@pytest.mark.parametrize("content", [b"", b"<html>", b"MATLAB 5.0 MAT-file" + b" " * 200])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "tensor.mat"
    path.write_bytes(content)
    assert "expected a MATLAB file of version 4 to 7.2" in refusal(path)


@pytest.mark.parametrize("length", [130, 200, 600])
def test_a_file_that_ends_too_soon_is_refused(file, length):
    path = file(tensor=trips())
    content = path.read_bytes()
    assert len(content) > length
    path.write_bytes(content[:length])
    assert "expected a MATLAB file of version 4 to 7.2" in refusal(path)


def test_a_damaged_file_is_refused(file):
    path = file(tensor=trips())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "expected a MATLAB file of version 4 to 7.2" in refusal(path)


def test_a_missing_file_is_named(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "nowhere.mat")
