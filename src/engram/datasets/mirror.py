"""Files without a network: a mirror folder, checked by sha256, in TFDS' download cache.

A mirror is a folder of files and a table `tfds_cache.tsv` with the columns `url`,
`staged_path` (the file, relative to the folder) and `prepare` (`as is` or `gunzip`).
`ENGRAM_MIRROR` names the folder. What a file must hash to is TFDS' own record (the
builder's `checksums.tsv`), not the mirror's word. A table may also say what a file
hashes to as it lies there (`staged_sha256`): the header of a gzip file has bytes that
leave its content as it is.
"""

import csv
import gzip
import hashlib
import os
import queue
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums, downloader, resource
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from engram import repository
from engram.datasets.parallel_text import ParallelTextBuilder
from engram.datasets.readings import ReadingsBuilder

OWN_TABLE = Path(__file__).with_name("mirror.tsv")  # the files of our datasets
SECONDS_TO_CONNECT = 10.0  # to each address of a name, and between two reads
SECONDS_TO_ANSWER = 12.0  # looking up the name and trying all its addresses


class FetchError(RuntimeError):
    """A file of a dataset is missing, unreachable or not the one expected."""


def download_and_prepare(builder: tfds.core.DatasetBuilder, downloads: Path) -> None:
    """Runs the builder, with its downloads taken from the mirror where there is one.

    Equal examples make equal files.

    Raises:
        FetchError: naming the file and what to do, within seconds.
    """
    mirror = os.environ.get("ENGRAM_MIRROR")
    if mirror:
        seed(builder, repository.resolve(mirror), downloads)
    retries, send = downloader.MAX_RETRIES, requests.adapters.HTTPAdapter.send

    def bounded(adapter, request, **options):  # TFDS sets no limit
        options["timeout"] = options.get("timeout") or SECONDS_TO_CONNECT
        return _within(SECONDS_TO_ANSWER, send, adapter, request, **options)

    serialized = ExampleSerializer.serialize_example

    def in_order(serializer, example):  # TFDS' order of features is that of a process
        return serializer.get_tf_example(example).SerializeToString(deterministic=True)

    downloader.MAX_RETRIES = 0  # TFDS would try for about 205 s
    requests.adapters.HTTPAdapter.send = bounded
    ExampleSerializer.serialize_example = in_order
    try:
        builder.download_and_prepare(
            download_dir=str(downloads),
            download_config=tfds.download.DownloadConfig(num_shards=1),
        )
    except (requests.RequestException, DownloadError, NonMatchingChecksumError) as error:
        raise FetchError(_advice(builder, mirror, error)) from error
    finally:
        downloader.MAX_RETRIES = retries
        requests.adapters.HTTPAdapter.send = send
        ExampleSerializer.serialize_example = serialized


def _within(seconds: float, function: Callable[..., Any], *args, **options) -> Any:
    """Returns what a function does, if it takes no longer; else leaves it behind."""
    done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def work():
        try:
            done.put((function(*args, **options), None))
        except Exception as error:
            done.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        found, error = done.get(timeout=seconds)
    except queue.Empty:
        told = f"no answer within {seconds:g} seconds"
        raise requests.ConnectTimeout(told) from None
    if error is not None:
        raise error
    return found


def seed(builder: tfds.core.DatasetBuilder, mirror: Path, downloads: Path) -> None:
    """Copies the builder's files from `mirror` to where TFDS looks for downloads.

    Raises:
        FetchError: if the folder is missing or a file has another sha256 or size.
    """
    wanted = _urls(builder)
    if wanted and not mirror.is_dir():
        raise FetchError(f"ENGRAM_MIRROR: there is no folder {mirror}")
    rows = _rows(OWN_TABLE) | _rows(mirror / "tfds_cache.tsv")
    for url, expected in (builder.url_infos or {}).items():
        if url not in rows or url not in wanted:
            continue
        file = mirror / rows[url]["staged_path"]
        if not file.is_file():
            continue
        staged = file.read_bytes()
        if rows[url].get("staged_sha256"):
            _check(builder.name, file, staged, rows[url]["staged_sha256"])
        content = _content(file, staged, rows[url]["prepare"])
        _check(builder.name, file, content, expected.checksum)
        _store(builder.name, url, expected, content, downloads)


def _check(name: str, file: Path, content: bytes, expected: str) -> None:
    received = hashlib.sha256(content).hexdigest()
    if received != expected:
        raise FetchError(
            f"{file}: not the file that {name} expects. Expected sha256"
            f" {expected}, received {received}. Nothing was changed."
        )


def _urls(builder: tfds.core.DatasetBuilder) -> set[str]:
    """Returns what the builder downloads; ours share one `checksums.tsv`."""
    if isinstance(builder, ReadingsBuilder | ParallelTextBuilder):
        return set(builder.URLS.values())
    return set(builder.url_infos or {})


def _store(
    name: str, url: str, info: checksums.UrlInfo, content: bytes, downloads: Path
) -> None:
    place = downloads / name / resource.get_dl_fname(url, info.checksum)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    # Without this neighbour TFDS ignores the file and downloads.
    resource.write_info_file(
        url, tfds.core.Path(place), name, url.rsplit("/", 1)[-1], info
    )


def _rows(table: Path) -> dict[str, dict[str, str]]:
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as lines:
        return {row["url"]: row for row in csv.DictReader(lines, delimiter="\t")}


def _content(file: Path, staged: bytes, prepare: str) -> bytes:
    if prepare != "gunzip":
        return staged
    try:
        return gzip.decompress(staged)
    except (OSError, EOFError, zlib.error) as error:
        raise FetchError(f"{file}: damaged, cannot be decompressed: {error}") from error


def _advice(builder: tfds.core.DatasetBuilder, mirror: str | None, error) -> str:
    rows = _rows(OWN_TABLE)
    files = [rows[url]["staged_path"] for url in sorted(_urls(builder)) if url in rows]
    wanted = " or ".join(files) or "its files"
    have = f"the mirror {mirror} lacks {wanted}" if mirror else "ENGRAM_MIRROR is not set"
    cause = " ".join(str(error).split())
    if isinstance(error, NonMatchingChecksumError):
        return (
            f"{builder.name}: a file was downloaded and is not the one expected; it may"
            f" have changed at its source. Nothing was changed here. {cause}"
        )
    return (
        f"{builder.name}: its files cannot be downloaded and {have}. Connect to the"
        f" internet, or set ENGRAM_MIRROR to a folder that holds them (README, 'Real data"
        f" and mirrors'). Cause: {type(error).__name__}: {cause[:300]}"
    )
