"""Digits: 1,797 handwritten digits of 8 x 8 pixels, which come with scikit-learn.

Source: Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits", UCI
repository; scikit-learn has its test set.

The file is 14 runs: each is one form of 130 digits, a few of them missing, filled in by
one hand. Parts drawn at random share hands, as in most results published for this file;
parts of whole runs ask for hands that were never seen, and are harder.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SIDE = 8  # pixels
CLASSES = 10
SEED = 1797  # of the order in which digits are dealt to parts
WHITE = 16  # of a pixel that is all stroke
# Where each run begins in scikit-learn's list of images, and where the last one ends.
RUNS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
PARTS = {"train": (0, 1029), "validation": (1029, 1415), "test": (1415, 1797)}
CHECKSUM = "058a623cad7414ceedbdfc0df895f28f2b4734839770afa297b06e86af0d5646"


def images(part: str, unseen_hands: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns a part's images uint8 `(B, 8, 8, 1)` and labels int64 `(B,)`."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.arange(len(labels))
    if not unseen_hands:
        order = np.argsort(np.random.PCG64(SEED).random_raw(len(labels)), kind="stable")
    chosen = order[slice(*PARTS[part])]
    stored = pixels[chosen].astype(np.uint8).reshape(-1, SIDE, SIDE, 1)
    return stored, labels[chosen].astype(np.int64)


def checksum() -> str:
    """Returns the sha256 of the images and labels in the order of the file."""
    known = hashlib.sha256()
    for part in PARTS:
        pixels, labels = images(part, unseen_hands=True)
        known.update(pixels.tobytes())
        known.update(labels.astype("<i8").tobytes())
    return known.hexdigest()


class Digits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits of 8 x 8 pixels: 1,029 to train, 386 to choose, 382 to test.

    An example:

        image   uint8 (8, 8, 1)   0 is empty, 16 all stroke
        label   int64             which digit it is

    Args:
        unseen_hands: bool, whether the parts are whole runs, so that no hand wrote for
            two of them; else they are drawn at random.
        **kwargs: of the TFDS builder, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, object] = {}  # it downloads nothing

    def __init__(self, *, unseen_hands: bool = False, **kwargs):
        self.unseen_hands = unseen_hands
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8 x 8 pixels.",
            citation=(
                "E. Alpaydin, C. Kaynak. Optical recognition of handwritten digits. UCI"
                " Machine Learning Repository, 1998."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=(SIDE, SIDE, 1), dtype=np.uint8, encoding="bytes"
                    ),
                    "label": tfds.features.ClassLabel(num_classes=CLASSES),
                }
            ),
            metadata=tfds.core.MetadataDict(white=WHITE),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        found = checksum()
        if found != CHECKSUM:
            raise ValueError(
                "scikit-learn has other digits than those that we know. Expected sha256"
                f" {CHECKSUM}, received {found}"
            )
        return {part: self._generate_examples(part) for part in PARTS}

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for n, (image, label) in enumerate(
            zip(*images(part, self.unseen_hands), strict=True)
        ):
            yield n, {"image": image, "label": label}
