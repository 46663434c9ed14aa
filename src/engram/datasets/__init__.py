"""Datasets: from a word in `params.yaml` to a prepared TFDS folder under `data/raw`."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.datasets import mirror

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def fetch(source: str, target: Path, file: str, **arguments) -> None:
    """Generates or downloads the dataset `source` into the folder `target`.

    The folder appears whole or not at all: TFDS works in a folder beside it, which
    takes its place at the end. The files are ArrayRecord, which later stages read
    without TensorFlow.

    Args:
        source: a word of `builder`.
        target: folder to write, such as `data/raw/ring_road`.
        file: what is read, for the sources `detector_csv` and `picture_folder`.
        **arguments: of the builder, from the dataset's `fetch` block.

    Raises:
        mirror.FetchError: if a file is missing, unreachable or not the one expected.
        ValueError: if a file or folder of one's own is malformed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made = builder(source, data_dir=work, file=file, **arguments)
        mirror.download_and_prepare(made, work / "downloads")
        if target.exists():
            shutil.rmtree(target)
        Path(made.data_dir).rename(target)
    finally:
        _remove(work)


def _remove(folder: Path, seconds: float = 10) -> None:
    """Removes a folder into which TFDS may still write: other downloads go on."""
    until = time.monotonic() + seconds
    while folder.exists() and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(0.05)


def builder(
    source: str, data_dir: Path, file: str, **arguments
) -> "tfds.core.DatasetBuilder":
    """Returns the TFDS builder of the word `source`; loads only its module."""
    kind: dict[str, Any] = {"data_dir": data_dir, "file_format": "array_record"}
    if source == "ring_road":
        from engram.datasets.ring_road import RingRoad

        return RingRoad(**kind)
    if source == "los_loop":
        from engram.datasets.los_loop import LosLoop

        return LosLoop(**kind)
    if source == "nyc_taxi":
        from engram.datasets.nyc_taxi import NycTaxi

        return NycTaxi(**kind)
    if source == "montevideo_bus":
        from engram.datasets.montevideo_bus import MontevideoBus

        return MontevideoBus(**kind)
    if source == "detector_csv":
        from engram.datasets.detector_csv import DetectorCsv

        return DetectorCsv(file=file, **arguments, **kind)
    if source == "adding":
        from engram.datasets.adding import Adding

        return Adding(**arguments, **kind)
    if source == "copy_memory":
        from engram.datasets.copy_memory import CopyMemory

        return CopyMemory(**arguments, **kind)
    if source == "mnist":
        from engram.datasets import mnist

        return mnist.build(**kind)
    if source == "fashion_mnist":
        from engram.datasets import fashion_mnist

        return fashion_mnist.build(**kind)
    if source == "stacked_mnist":
        from engram.datasets.stacked_mnist import StackedMnist

        return StackedMnist(**arguments, **kind)
    if source == "cat_or_not":
        from engram.datasets.cat_or_not import CatOrNot

        return CatOrNot(**arguments, **kind)
    if source == "picture_folder":
        from engram.datasets.picture_folder import PictureFolder

        return PictureFolder(file=file, **arguments, **kind)
    if source == "moving_digits":
        from engram.datasets.moving_digits import MovingDigits

        return MovingDigits(**arguments, **kind)
    if source == "bars_and_stripes":
        from engram.datasets.bars_and_stripes import BarsAndStripes

        return BarsAndStripes(**arguments, **kind)
    if source == "gaussian_mixture":
        from engram.datasets.gaussian_mixture import GaussianMixture

        return GaussianMixture(**arguments, **kind)
    if source == "digits":
        from engram.datasets.digits import Digits

        return Digits(**arguments, **kind)
    if source == "tiny_french":
        from engram.datasets.tiny_french import TinyFrench

        return TinyFrench(**kind)
    if source == "multi30k":
        from engram.datasets.multi30k import Multi30k

        return Multi30k(**arguments, **kind)
    if source == "fra_eng":
        from engram.datasets.fra_eng import FraEng

        return FraEng(**kind)
    raise ValueError(f"`source` must be a dataset's word. Received: {source!r}")
