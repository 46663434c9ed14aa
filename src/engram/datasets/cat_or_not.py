"""Cat or not: pictures of 32 x 32 pixels from CIFAR-10, a cat or something else.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from engram import repository
from engram.datasets.mirror import FetchError

SIDE, COLOURS = 32, 3
NAMES = ("other", "cat")
PARTS = ("train", "test")
SEED = 2009  # of the order of the pictures
STAGED = "cifar10_cat_subset/cifar10_cat_subset.zip"  # <part>/<class>/<picture>.jpg
STAGED_SHA256 = "2cc8965a518d964b833296075fbefbb97f5d6ed5a789851c27b0ac293de57b8d"
CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
FILES = {  # of its archive
    "train": [f"data_batch_{n}.bin" for n in range(1, 6)],
    "test": ["test_batch.bin"],
}
CAT = 3  # among its classes


class CatOrNot(tfds.core.GeneratorBasedBuilder):
    """Pictures of cats, and of aeroplanes, birds, dogs, ships and five other things.

    An example:

        image   uint8 (32, 32, 3)   red, green and blue
        label   int64               1 for a cat, 0 for anything else

    Args:
        images: `"subset"`, of which half are cats: 10,000 to train and 2,000 to test, as
            JPEG, from the mirror alone; or `"cifar10"`, of which a tenth are: 50,000 and
            10,000, as they were published.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        FetchError: if the mirror lacks the subset, or has another file in its place.
        ValueError: if `images` is another word.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, Any] = {}

    def __init__(self, *, images: str = "subset", **kwargs):
        if images not in ("subset", "cifar10"):
            raise ValueError(
                f"`images` must be 'subset' or 'cifar10'. Received: {images!r}"
            )
        self.images = images
        if images == "cifar10":
            self.url_infos = tfds.builder_cls("cifar10").url_infos
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (SIDE, SIDE, COLOURS)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures of 32 x 32 pixels: a cat or something else.",
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            citation=(
                "A. Krizhevsky. Learning multiple layers of features from tiny images."
                " Technical report, University of Toronto, 2009."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=shape, dtype=np.uint8, encoding="bytes"
                    ),
                    "label": tfds.features.ClassLabel(names=NAMES),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        if self.images == "subset":
            pictures = subset(staged())
        else:
            folder = Path(dl_manager.download_and_extract(CIFAR10))
            pictures = {part: cifar10(folder, part) for part in PARTS}
        return {part: self._generate_examples(*pictures[part]) for part in PARTS}

    def _generate_examples(
        self, pixels: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        # The last ones of the training split choose: classes must not lie in blocks.
        order = np.argsort(np.random.PCG64(SEED).random_raw(len(labels)), kind="stable")
        for n, place in enumerate(order):
            yield n, {"image": pixels[place], "label": int(labels[place])}


def staged() -> bytes:
    """Returns the archive of the subset, from the mirror.

    Raises:
        FetchError: naming the file and what to do.
    """
    given = os.environ.get("ENGRAM_MIRROR")
    file = repository.resolve(given) / STAGED if given else Path(STAGED)
    if not given or not file.is_file():
        lack = f"there is no {file}" if given else "ENGRAM_MIRROR is not set"
        raise FetchError(
            f"cat_or_not: the subset lies in no place of the internet, and {lack}. Set"
            f" ENGRAM_MIRROR to a folder that holds {STAGED} (README, 'Real data and"
            " mirrors'), or take all pictures: `fetch: {images: cifar10}`."
        )
    content = file.read_bytes()
    received = hashlib.sha256(content).hexdigest()
    if received != STAGED_SHA256:
        raise FetchError(
            f"{file}: not the file that cat_or_not expects. Expected sha256"
            f" {STAGED_SHA256}, received {received}. Nothing was changed."
        )
    return content


def subset(archive: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns pixels uint8 `(B, 32, 32, 3)` and labels `(B,)` of `train` and `test`."""
    found: dict[str, list] = {part: [] for part in PARTS}
    with zipfile.ZipFile(io.BytesIO(archive)) as pictures:
        for name in sorted(pictures.namelist()):
            path = Path(name)
            if path.suffix != ".jpg":
                continue
            part, thing = path.parts[-3:-1]
            image = Image.open(io.BytesIO(pictures.read(name))).convert("RGB")
            found[part].append((np.asarray(image, np.uint8), thing == "cat"))
    return {
        part: (
            np.stack([pixels for pixels, _ in some]),
            np.array([cat for _, cat in some]),
        )
        for part, some in found.items()
    }


def cifar10(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels uint8 `(B, 32, 32, 3)` and labels `(B,)` of a part of CIFAR-10.

    Args:
        folder: where its archive was unpacked.
        part: `"train"` or `"test"`.
    """
    files = [folder / "cifar-10-batches-bin" / name for name in FILES[part]]
    every = np.concatenate([np.fromfile(file, np.uint8) for file in files])
    rows = every.reshape(-1, 1 + COLOURS * SIDE * SIDE)  # a label, then colour by colour
    pixels = rows[:, 1:].reshape(-1, COLOURS, SIDE, SIDE).transpose(0, 2, 3, 1)
    return pixels, rows[:, 0] == CAT
