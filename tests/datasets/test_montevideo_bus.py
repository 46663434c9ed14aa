"""Montevideo bus: stops and roads out of a graph, or a refusal that names the file."""

import gzip
import hashlib
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from engram import datasets
from engram.datasets.montevideo_bus import MontevideoBus, parse_graph
from engram.datasets.readings import ReadingsError


def graph():
    """Returns three stops on one line, four hours."""
    return {
        "directed": True,
        "nodes": [
            {"bus_stop": 12, "y": [0, 1, 2, 0], "id": 12},
            {"bus_stop": 7, "y": [3, 0, 0, 0], "id": 7},
            {"bus_stop": 9, "y": [0, 0, 0, 101], "id": 9},
        ],
        "links": [
            {"weight": 172.5, "source": 12, "target": 9},
            {"weight": 280, "source": 9, "target": 7},
        ],
    }


@pytest.fixture
def file(tmp_path):
    """Returns a function that writes values as JSON, or text, and returns the path."""

    def write(values):
        path = tmp_path / "montevideo_bus.json"
        if isinstance(values, bytes):
            path.write_bytes(values)
        else:
            path.write_text(values if isinstance(values, str) else json.dumps(values))
        return path

    return write


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """What reads back the tiny graph, fetched from a mirror."""
    content = json.dumps(graph()).encode()
    place = tmp_path / "mirror/traffic_montevideo_bus"
    place.mkdir(parents=True)
    (place / "montevideo_bus.json.gz").write_bytes(gzip.compress(content))
    (place.parent / "tfds_cache.tsv").write_text(
        "url\tstaged_path\tprepare\n"
        f"{MontevideoBus.URLS['stops']}\ttraffic_montevideo_bus/montevideo_bus.json.gz"
        "\tgunzip\n"
    )
    digest = hashlib.sha256(content).hexdigest()
    size = tfds.core.utils.Size(len(content))
    info = checksums.UrlInfo(size, digest, "montevideo_bus.json")
    monkeypatch.setattr(MontevideoBus, "url_infos", {MontevideoBus.URLS["stops"]: info})
    monkeypatch.setenv("ENGRAM_MIRROR", str(place.parent))
    datasets.fetch("montevideo_bus", tmp_path / "raw", file="")
    return tfds.builder_from_directory(tmp_path / "raw")


def refusal(path):
    with pytest.raises(ReadingsError) as error:
        parse_graph(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_a_detector_is_a_stop_in_the_order_of_the_file(builder):
    found = list(builder.as_data_source(split="detectors"))
    assert [example["detector"] for example in found] == [b"12", b"7", b"9"]
    readings = np.stack([example["readings"] for example in found])
    assert readings.dtype == np.float32
    np.testing.assert_array_equal(readings, [one["y"] for one in graph()["nodes"]])


def test_a_weight_is_the_road_from_a_stop_to_the_next(builder):
    found = list(builder.as_data_source(split="detectors"))
    weights = np.stack([example["weights"] for example in found])
    np.testing.assert_array_equal(weights, [[0, 0, 172.5], [0, 0, 0], [0, 280, 0]])


def test_what_a_reading_means_travels_with_the_readings(builder):
    assert dict(builder.info.metadata) == {
        "unit": "passengers/h",
        "interval_minutes": 60,
        "first_slot": 0,
        "missing": [],  # a zero is a count
        "layout": "network",
    }


@pytest.mark.parametrize("hours", [1, 3, 5])
def test_ragged_counts_are_refused_with_their_stop(file, hours):
    values = graph()
    values["nodes"][1]["y"] = [1] * hours
    message = refusal(file(values))
    assert f"stop 7: expected 4 hours, as at the first stop. Received: {hours}" in message


@pytest.mark.parametrize("count", [-1, 1.5, "3", None, True, [2]])
def test_what_is_no_count_is_refused_with_its_place(file, count):
    values = graph()
    values["nodes"][2]["y"][1] = count
    message = refusal(file(values))
    assert "stop 9, hour 1: expected a whole number, 0 or more" in message
    assert f"Received: {count!r}" in message


@pytest.mark.parametrize("counts", [[], 4, "0123", None])
def test_counts_that_are_no_list_are_refused(file, counts):
    values = graph()
    values["nodes"][0]["y"] = counts
    assert f"stop 12: `y` must be a list of counts. Received: {counts!r}" in refusal(
        file(values)
    )


@pytest.mark.parametrize(("block", "key"), [("nodes", "id"), ("nodes", "y")])
def test_a_node_without_a_field_is_refused(file, block, key):
    values = graph()
    del values[block][1][key]
    assert f"a node or link must have `{key}`. Received: " in refusal(file(values))


@pytest.mark.parametrize("key", ["source", "target", "weight"])
def test_a_link_without_a_field_is_refused(file, key):
    values = graph()
    del values["links"][1][key]
    assert f"a node or link must have `{key}`. Received: " in refusal(file(values))


def test_a_node_that_is_no_object_is_refused(file):
    assert "must have `id`. Received: 12" in refusal(file(graph() | {"nodes": [12]}))


@pytest.mark.parametrize("stop", [12, "7", None, 7.0, [7]])
def test_a_stop_has_a_number_of_its_own(file, stop):
    values = graph()
    values["nodes"][1]["id"] = stop
    message = refusal(file(values))
    assert f"`id` must be a whole number of its own. Received: {stop!r}" in message


@pytest.mark.parametrize("key", ["source", "target"])
@pytest.mark.parametrize("stop", [8, "7", None, [7]])
def test_a_link_joins_stops_of_the_file(file, key, stop):
    values = graph()
    values["links"][0][key] = stop
    message = refusal(file(values))
    assert f"the `{key}` of a link must be a node's `id`. Received: {stop!r}" in message


@pytest.mark.parametrize("weight", [0, -3.5, "far", None, float("nan"), float("inf")])
def test_a_road_has_a_length(file, weight):
    values = graph()
    values["links"][1]["weight"] = weight
    message = refusal(file(values))
    assert "link from 9 to 7: `weight` must be a number above 0" in message
    assert f"Received: {weight!r}" in message


@pytest.mark.parametrize(
    ("values", "received"),
    [
        ([], "list"),
        ({"nodes": []}, "['nodes']"),
        ({"nodes": {}, "links": []}, "['links', 'nodes']"),
        ("3", "int"),
    ],
)
def test_what_is_no_graph_is_refused(file, values, received):
    message = refusal(file(values))
    assert f"the lists nodes and links. Received: {received}" in message


def test_a_graph_without_nodes_is_refused(file):
    assert "expected nodes. Received: none" in refusal(file({"nodes": [], "links": []}))


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"nodes": [', b"\xff\xfe\x00"])
def test_what_is_no_json_is_refused(file, content):
    assert "expected JSON. Received: " in refusal(file(content))


def test_a_missing_file_is_named(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "nowhere.json")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    refusal(tmp_path)
