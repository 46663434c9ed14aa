"""A dataset arrives whole, checked, and without the network where a mirror has it."""

import contextlib
import gzip
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from engram import datasets
from engram.datasets import los_loop, mirror, ring_road
from engram.datasets.los_loop import LosLoop
from engram.datasets.mirror import FetchError
from engram.datasets.readings import ReadingsError

ROOT = Path(__file__).parents[2]
SPEED = b"773869,767541\n64.375,67.625\n62.5,0\n61,66.125\n"
GRAPH = b"1,0.25\n0.5,1\n"
CSV = {"interval_minutes": 15, "unit": "km/h", "missing": [0], "first_reading": "06:30"}


@pytest.fixture(scope="session")
def connect():
    """What `requests` does without this module's stand-ins."""
    return requests.Session.get


@pytest.fixture(autouse=True)
def no_network(monkeypatch, connect):
    """Without a mirror, and with every connection refused; counts the attempts."""
    attempts = []

    def refused(session, url, **kwargs):
        attempts.append(url)
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests.Session, "get", refused)
    monkeypatch.delenv("ENGRAM_MIRROR", raising=False)
    return attempts


@pytest.fixture
def target(tmp_path):
    return tmp_path / "raw" / "own"


@pytest.fixture
def own(tmp_path, target):
    """Returns a function that fetches a CSV with a given text into `target`."""

    def fetch(text, **changes):
        file = tmp_path / "own.csv"
        file.write_text(text)
        datasets.fetch("detector_csv", target, file=str(file), **CSV | changes)

    return fetch


@pytest.fixture
def pages(monkeypatch):
    """The addresses of two tiny files in place of Los-loop's, with their checksums."""
    urls = {}
    for name, content in (("los_speed.csv", SPEED), ("los_adj.csv", GRAPH)):
        digest = hashlib.sha256(content).hexdigest()
        size = tfds.core.utils.Size(len(content))
        urls[f"{los_loop._FOLDER}/{name}"] = checksums.UrlInfo(size, digest, name)
    monkeypatch.setattr(LosLoop, "url_infos", urls)
    return urls


@pytest.fixture
def folder(tmp_path, pages, monkeypatch):
    """A mirror of those two files, in place of the one that `mirror.tsv` knows."""
    place = tmp_path / "mirror"
    (place / "traffic_los").mkdir(parents=True)
    rows = ["url\tstaged_path\tprepare\tstaged_sha256"]
    for name, content in (("los_speed.csv", SPEED), ("los_adj.csv", GRAPH)):
        staged = gzip.compress(content)
        (place / f"traffic_los/{name}.gz").write_bytes(staged)
        digest = hashlib.sha256(staged).hexdigest()
        rows.append(f"{los_loop._FOLDER}/{name}\ttraffic_los/{name}.gz\tgunzip\t{digest}")
    own_table = tmp_path / "mirror.tsv"
    own_table.write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(mirror, "OWN_TABLE", own_table)
    monkeypatch.setenv("ENGRAM_MIRROR", str(place))
    return place


@pytest.fixture
def contents_alone(folder):
    """The same mirror, with a table that says nothing of the files as they lie there."""
    rows = ["url\tstaged_path\tprepare"]
    for name in ("los_speed.csv", "los_adj.csv"):
        rows.append(f"{los_loop._FOLDER}/{name}\ttraffic_los/{name}.gz\tgunzip")
    (folder / "tfds_cache.tsv").write_text("\n".join(rows) + "\n")
    return folder


def examples(target):
    builder = tfds.builder_from_directory(target)
    return list(builder.as_data_source(split="detectors"))


def files(target):
    return {file.name: file.read_bytes() for file in sorted(target.iterdir())}


def nothing_beside(target):
    return [file.name for file in target.parent.iterdir()] == [target.name]


def refusal(target, error=FetchError, source="los_loop"):
    """Returns the one line with which a fetch ends that leaves nothing behind."""
    with pytest.raises(error) as refused:
        datasets.fetch(source, target, file="")
    assert list(target.parent.iterdir()) == []
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_csv_reads_back_as_it_was_written(own, target):
    own("north,Zürich\n61.5,\n0,58\n60.25,57\n")
    north, zurich = examples(target)
    assert north["detector"] == b"north"
    assert zurich["detector"].decode() == "Zürich"
    assert north["readings"].dtype == np.float32
    np.testing.assert_array_equal(north["readings"], [61.5, 0, 60.25])
    np.testing.assert_array_equal(zurich["readings"], [np.nan, 58, 57])
    assert north["weights"].shape == (0,)
    assert nothing_beside(target)


def test_the_order_of_detectors_is_the_order_of_the_file(own, target):
    names = [f"d{n}" for n in np.random.default_rng(1).permutation(40)]
    own(",".join(names) + "\n" + ",".join(str(n) for n in range(40)) + "\n")
    found = examples(target)
    assert [example["detector"].decode() for example in found] == names
    assert [float(example["readings"][0]) for example in found] == list(range(40))


def test_what_a_reading_means_travels_with_the_readings(own, target):
    own("a\n1\n")
    assert dict(tfds.builder_from_directory(target).info.metadata) == {
        "unit": "km/h",
        "interval_minutes": 15,
        "first_slot": 26,  # 06:30 is 6.5 hours of 4 intervals after midnight
        "missing": [0],
        "layout": "network",
    }


def test_fetching_twice_writes_the_same_bytes(own, target):
    own("a,b\n1,2\n3,4\n")
    before = files(target)
    own("a,b\n1,2\n3,4\n")
    assert files(target) == before


def test_a_new_fetch_takes_the_place_of_the_old_one(own, target):
    own("a,b\n1,2\n")
    own("c\n3\n")
    (only,) = examples(target)
    assert only["detector"] == b"c"
    assert nothing_beside(target)


@pytest.mark.parametrize("interval", [7, 25, 1441, 0])
def test_an_interval_that_does_not_divide_a_day_is_refused(own, target, interval):
    with pytest.raises(
        ReadingsError, match=f"must divide a day of 1440. Received: {interval}"
    ):
        own("a\n1\n", interval_minutes=interval)
    assert list(target.parent.iterdir()) == []


def test_a_failed_fetch_leaves_the_one_before(own, target):
    own("a,b\n1,2\n")
    before = files(target)
    with pytest.raises(ReadingsError, match="line 3, column 'b'"):
        own("a,b\n1,2\n3,slow\n")
    with pytest.raises(ReadingsError, match="must divide a day"):
        own("a,b\n1,2\n", interval_minutes=7)
    assert files(target) == before
    assert nothing_beside(target)


def test_an_unknown_source_is_named(target):
    assert "Received: 'ringroad'" in refusal(target, ValueError, source="ringroad")


def test_the_ring_road_is_fetched_without_a_file_and_without_a_network(
    target, monkeypatch, no_network
):
    tenths = np.tile(np.arange(-1, 23, dtype=np.int16), (288, 1))  # -1: no reading
    monkeypatch.setattr(ring_road, "simulate", lambda: tenths)
    digest = hashlib.sha256(tenths.astype("<i2").tobytes()).hexdigest()
    monkeypatch.setattr(ring_road, "CHECKSUM", digest)
    datasets.fetch("ring_road", target, file="")
    found = examples(target)
    assert len(found) == 24
    assert np.isnan(found[0]["readings"]).all()
    np.testing.assert_array_equal(found[5]["readings"], np.full(288, 0.4, np.float32))
    weights = np.stack([example["weights"] for example in found])
    neighbours = [[(n - 1) % 24, (n + 1) % 24] for n in range(24)]
    assert [sorted(np.flatnonzero(row)) for row in weights] == [
        sorted(pair) for pair in neighbours
    ]
    assert no_network == []


def test_another_ring_road_than_the_known_one_is_refused(target, monkeypatch):
    tenths = np.zeros((288, 24), np.int16)
    monkeypatch.setattr(ring_road, "simulate", lambda: tenths)
    message = refusal(target, ReadingsError, source="ring_road")
    assert f"Expected sha256 {ring_road.CHECKSUM}" in message
    assert f"received {hashlib.sha256(tenths.tobytes()).hexdigest()}" in message


def test_a_mirror_stands_in_for_the_network(target, folder, no_network):
    datasets.fetch("los_loop", target, file="")
    first, second = examples(target)
    assert (first["detector"], second["detector"]) == (b"773869", b"767541")
    np.testing.assert_array_equal(first["readings"], [64.375, 62.5, 61])
    np.testing.assert_array_equal(second["readings"], [67.625, 0, 66.125])
    np.testing.assert_array_equal(first["weights"], [1, 0.25])
    np.testing.assert_array_equal(second["weights"], [0.5, 1])
    assert no_network == []
    assert nothing_beside(target)


def test_a_relative_mirror_counts_from_the_repository(target, folder, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(folder.parent))
    monkeypatch.setenv("ENGRAM_MIRROR", "mirror")
    datasets.fetch("los_loop", target, file="")
    assert len(examples(target)) == 2


def test_the_table_of_a_mirror_says_where_its_files_are(target, folder, no_network):
    rows = ["url\tstaged_path\tprepare"]
    for name, content in (("los_speed.csv", SPEED), ("los_adj.csv", GRAPH)):
        (folder / f"traffic_los/{name}.gz").unlink()
        (folder / name).write_bytes(content)
        rows.append(f"{los_loop._FOLDER}/{name}\t{name}\tas is")
    (folder / "tfds_cache.tsv").write_text("\n".join(rows) + "\n")
    datasets.fetch("los_loop", target, file="")
    assert len(examples(target)) == 2
    assert no_network == []


def test_a_flipped_byte_is_refused_and_the_readings_before_stay(target, folder):
    datasets.fetch("los_loop", target, file="")
    before = files(target)
    file = folder / "traffic_los/los_speed.csv.gz"
    content = file.read_bytes()
    wrong = bytearray(content)
    wrong[4] ^= 1  # the header's time: gunzip does not see it
    assert gzip.decompress(wrong) == SPEED
    file.write_bytes(wrong)
    with pytest.raises(FetchError) as refused:
        datasets.fetch("los_loop", target, file="")
    message = str(refused.value)
    assert str(file) in message
    assert f"Expected sha256 {hashlib.sha256(content).hexdigest()}" in message
    assert f"received {hashlib.sha256(wrong).hexdigest()}" in message
    assert files(target) == before
    assert nothing_beside(target)


def test_there_is_no_byte_of_a_mirrored_file_that_may_flip(folder, tmp_path):
    file = folder / "traffic_los/los_speed.csv.gz"
    content = file.read_bytes()
    builder = LosLoop(data_dir=tmp_path / "built")
    for place in range(len(content)):
        wrong = bytearray(content)
        wrong[place] ^= 1
        file.write_bytes(wrong)
        with pytest.raises(FetchError, match="Expected sha256"):
            mirror.seed(builder, folder, tmp_path / "downloads")
    file.write_bytes(content)
    mirror.seed(builder, folder, tmp_path / "downloads")


def test_every_file_of_our_mirror_is_checked_as_it_lies_there():
    rows = mirror._rows(mirror.OWN_TABLE).values()
    packed = [row for row in rows if row["prepare"] == "gunzip"]
    assert packed and all(len(row["staged_sha256"]) == 64 for row in packed)


def test_another_content_is_refused(target, contents_alone):
    wrong = bytearray(SPEED)
    wrong[-2] ^= 1
    file = contents_alone / "traffic_los/los_speed.csv.gz"
    file.write_bytes(gzip.compress(wrong))
    message = refusal(target)
    assert str(file) in message
    assert f"Expected sha256 {hashlib.sha256(SPEED).hexdigest()}" in message
    assert f"received {hashlib.sha256(wrong).hexdigest()}" in message


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip", "empty"])
def test_a_damaged_archive_is_refused_by_name(target, contents_alone, damage):
    file = contents_alone / "traffic_los/los_speed.csv.gz"
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    damaged = {"cut": content[:-9], "not gzip": b"<html>", "empty": b""}
    file.write_bytes(bytes(damaged.get(damage, content)))
    message = refusal(target)
    assert str(file) in message
    assert damage == "empty" or "damaged, cannot be decompressed" in message


def test_a_mirror_that_is_not_there_is_named(target, folder, monkeypatch):
    monkeypatch.setenv("ENGRAM_MIRROR", str(folder / "elsewhere"))
    assert refusal(target) == f"ENGRAM_MIRROR: there is no folder {folder / 'elsewhere'}"


def test_a_csv_of_ones_own_does_not_look_at_the_mirror(own, target, folder, monkeypatch):
    (folder / "traffic_los/los_speed.csv.gz").write_bytes(b"damaged")
    own("a\n1\n")
    monkeypatch.setenv("ENGRAM_MIRROR", str(folder / "elsewhere"))
    own("b\n2\n")
    assert [example["detector"] for example in examples(target)] == [b"b"]


def test_the_ring_road_does_not_look_at_the_mirror(target, folder, monkeypatch):
    tenths = np.zeros((288, 24), np.int16)
    monkeypatch.setattr(ring_road, "simulate", lambda: tenths)
    digest = hashlib.sha256(tenths.tobytes()).hexdigest()
    monkeypatch.setattr(ring_road, "CHECKSUM", digest)
    (folder / "traffic_los/los_speed.csv.gz").write_bytes(b"damaged")
    datasets.fetch("ring_road", target, file="")
    assert len(examples(target)) == 24


def test_a_mirror_without_a_file_is_told_which_one_it_lacks(target, folder, no_network):
    (folder / "traffic_los/los_speed.csv.gz").unlink()
    message = refusal(target)
    assert f"{los_loop._FOLDER}/los_speed.csv" in no_network
    assert str(folder) in message
    assert "los_speed.csv" in message


def test_without_a_mirror_and_a_network_one_line_names_the_way_out(target, pages):
    begin = time.perf_counter()
    message = refusal(target)
    assert time.perf_counter() - begin < 15
    assert message.startswith("los_loop: its files cannot be downloaded")
    assert "ENGRAM_MIRROR is not set" in message
    assert "ConnectionError: Name or service not known" in message


def test_an_error_without_words_still_becomes_that_line(target, pages, monkeypatch):
    def silent(session, url, **kwargs):
        raise requests.ConnectionError

    monkeypatch.setattr(requests.Session, "get", silent)
    assert "ENGRAM_MIRROR is not set" in refusal(target)


def test_a_failed_download_leaves_the_patience_of_others_as_it_was(target, pages):
    downloader = mirror.downloader
    before = downloader.MAX_RETRIES, socket.getdefaulttimeout()
    refusal(target)
    assert (downloader.MAX_RETRIES, socket.getdefaulttimeout()) == before


class Answer:
    """What a server answers."""

    def __init__(self, url, content, status):
        self.url, self.content, self.status_code = url, content, status
        self.headers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def iter_content(self, chunk_size):
        yield self.content


@pytest.fixture
def server(monkeypatch, pages):
    """Returns a function that makes the network answer."""

    def answers(speed=SPEED, graph=GRAPH, status=200):
        def get(session, url, **kwargs):
            return Answer(url, speed if url.endswith("speed.csv") else graph, status)

        monkeypatch.setattr(requests.Session, "get", get)

    return answers


def test_without_a_mirror_the_files_come_from_the_network(target, server):
    server()
    datasets.fetch("los_loop", target, file="")
    np.testing.assert_array_equal(examples(target)[0]["readings"], [64.375, 62.5, 61])
    assert nothing_beside(target)


def test_a_download_that_is_another_file_is_refused(target, server):
    server(graph=b"1,0\n0,1\n")
    message = refusal(target)
    assert message.startswith(
        "los_loop: a file was downloaded and is not the one expected"
    )
    assert f"{los_loop._FOLDER}/los_adj.csv" in message
    assert hashlib.sha256(GRAPH).hexdigest() in message
    assert hashlib.sha256(b"1,0\n0,1\n").hexdigest() in message


def test_a_folder_into_which_a_download_still_writes_is_removed(tmp_path):
    folder, ready, until = tmp_path / "work", threading.Event(), time.monotonic() + 0.5
    folder.mkdir()

    def write():
        number = 0
        while time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError):
                (folder / f"{number}.tmp").write_bytes(b"x")
                (folder / f"{number}.tmp").rename(folder / f"{number}.csv")
            number += 1
            ready.set()

    writer = threading.Thread(target=write)
    writer.start()
    ready.wait()
    datasets._remove(folder)
    writer.join()
    datasets._remove(folder)
    assert not folder.exists()


def test_a_page_that_is_gone_is_refused(target, server):
    server(status=404)
    assert "404" in refusal(target)


def test_a_name_that_is_looked_up_for_ever_is_given_up(
    target, pages, connect, monkeypatch
):
    assert mirror.SECONDS_TO_ANSWER < 15
    monkeypatch.setattr(mirror, "SECONDS_TO_ANSWER", 0.3)
    monkeypatch.setattr(requests.Session, "get", connect)
    over = threading.Event()

    def nothing(*args, **kwargs):  # as a resolver behind a wall does
        over.wait(30)
        raise OSError("the test is over")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    begin = time.perf_counter()
    message = refusal(target)
    over.set()
    assert time.perf_counter() - begin < 15
    assert "ConnectTimeout: no answer within 0.3 seconds" in message


def test_a_server_that_never_answers_is_given_up(target, pages, connect, monkeypatch):
    monkeypatch.setattr(mirror, "SECONDS_TO_CONNECT", 0.5)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    caught = []

    def fetch():
        try:
            datasets.fetch("los_loop", target, file="")
        except FetchError as error:
            caught.append(str(error))

    with socket.create_server(("127.0.0.1", 0)) as mute:
        page = f"http://127.0.0.1:{mute.getsockname()[1]}/"

        def get(session, url, **kwargs):
            return connect(session, page, **kwargs)

        monkeypatch.setattr(requests.Session, "get", get)
        thread = threading.Thread(target=fetch)
        thread.start()
        thread.join(timeout=5)
        given_up = not thread.is_alive()
    thread.join(timeout=10)  # the closed server ends the wait
    assert given_up
    assert "ENGRAM_MIRROR is not set" in caught[0]


PARAMS = """
datasets:
  own:
    task: forecasting
    source: detector_csv
    file: own.csv
    fetch: {interval_minutes: 5, unit: km/h, missing: [0], first_reading: "00:00"}
    prepare: {history: 1, horizon: 1, split: [0.6, 0.2, 0.2]}
pretraining: {}
depth_cliffs: {}
trainability_maps: {}
experiments: {}
compare: {reference: stlm, published: []}
"""


@pytest.fixture
def stage(tmp_path):
    """Returns a function that runs `pipeline/fetch.py own` in a folder of its own."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    code = (
        "import runpy, sys; sys.argv = ['fetch.py', 'own'];"
        f"runpy.run_path({str(ROOT / 'pipeline/fetch.py')!r}, run_name='__main__');"
        "print([m for m in ('tensorflow', 'keras', 'mlflow') if m in sys.modules])"
    )

    def run(text):
        (tmp_path / "own.csv").write_text(text)
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "DVC_ROOT": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_the_stage_fetches_a_csv_without_loading_tensorflow(stage, tmp_path):
    done = stage("a,b\n1,2\n3,4\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["data/raw/own is ready", "[]"]
    assert len(examples(tmp_path / "data/raw/own")) == 2


def test_another_process_fetches_the_same_bytes(tmp_path):
    """Examples of several features: protobuf writes them in an order of the process."""
    code = (
        "import sys; from pathlib import Path; from engram import datasets\n"
        "datasets.fetch('tiny_french', Path(sys.argv[1]), 'x')"
    )
    found = []
    for name in ("one", "other"):
        target = tmp_path / name / "tiny_french"
        run = [sys.executable, "-c", code, str(target)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found.append(files(target))
    assert found[0] == found[1]


def test_the_stage_ends_with_one_line_for_a_malformed_csv(stage, tmp_path):
    done = stage("a,b\n1,2\n3,slow\n")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        "own.csv, line 3, column 'b': expected a number or nothing. Received: 'slow'"
    )
    assert list((tmp_path / "data/raw").iterdir()) == []
