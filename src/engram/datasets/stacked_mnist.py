"""Stacked MNIST: three of MNIST's digits as the three channels of an image.

The digits a, b and c make one of 1,000 modes, 100 a + 10 b + c. A classifier of digits
tells which, so the modes that a generator leaves out can be counted.

Source: Metz et al. 2017, Unrolled generative adversarial networks, arXiv:1611.02163; how
many images is from PacGAN (Lin et al. 2018, arXiv:1712.04086). Its code trains on 128,000
drawn from all 70,000 digits, and 26,000 are those that it generates to count modes; here
training sees no digit of validation or of MNIST's test split.
"""

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from engram.datasets.mirror import FetchError

SIDE, CHANNELS, MODES = 28, 3, 1000
SEED = 2017  # of which digits are drawn
PARTS = ("train", "test", "validation")  # the seed goes on with the place
HELD = 12  # of so many digits to train on, the last one is for validation
FOLDER = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FILES = {  # images and labels
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
BYTES = 0x0800  # begins an IDX file of bytes; the number of axes is added


class StackedMnist(tfds.core.GeneratorBasedBuilder):
    """Images of three digits each, with the splits `train`, `validation` and `test`.

    Digits are drawn with replacement: for `train` from the first 55,000 of MNIST's
    training split, for `validation` from the other 5,000, for `test` from MNIST's test
    split. An example:

        image   uint8 (28, 28, 3)   a digit in each channel, 0 is empty, 255 all stroke
        label   int64               100 a + 10 b + c of the digits a, b and c

    Args:
        train: int, images to train on.
        test: int, images to test on, and as many of validation.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        FetchError: if a file is none of MNIST's.
        ValueError: if `train` or `test` is not positive.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, Any] = {}

    def __init__(self, *, train: int = 128_000, test: int = 26_000, **kwargs):
        self.sizes = {"train": train, "test": test, "validation": test}
        for part, count in self.sizes.items():
            if count < 1:
                raise ValueError(f"`{part}` must be positive. Received: {count}")
        self.url_infos = tfds.builder_cls("mnist").url_infos
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Three handwritten digits as the channels of an image.",
            homepage="http://yann.lecun.com/exdb/mnist/",
            citation=(
                "L. Metz, B. Poole, D. Pfau, J. Sohl-Dickstein. Unrolled generative"
                " adversarial networks. ICLR 2017."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=(SIDE, SIDE, CHANNELS), dtype=np.uint8, encoding="bytes"
                    ),
                    "label": tfds.features.ClassLabel(num_classes=MODES),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        urls = {part: [FOLDER + name for name in two] for part, two in FILES.items()}
        files = dl_manager.download(urls)
        of = {"validation": "train"}
        return {p: self._generate_examples(p, *files[of.get(p, p)]) for p in PARTS}

    def _generate_examples(
        self, part: str, images: Path, labels: Path
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        pixels, digits = read(images, axes=3), read(labels, axes=1)
        if pixels.shape != (len(digits), SIDE, SIDE):
            raise FetchError(
                f"{images}: expected {len(digits)} images of {SIDE} x {SIDE} pixels, one"
                f" for each label. Received: {pixels.shape}"
            )
        own = places(part, len(digits))
        pixels, digits = pixels[own], digits[own]
        for n, three in enumerate(draw(part, self.sizes[part], len(digits))):
            image = np.stack(pixels[three], axis=-1)  # (28, 28, 3)
            yield n, {"image": image, "label": mode(digits[three])}


def places(part: str, count: int) -> slice:
    """Returns which digits of MNIST's split, of `count`, images of a part are made of."""
    if part == "test":
        return slice(count)
    first = count - count // HELD
    return slice(first) if part == "train" else slice(first, count)


def draw(part: str, count: int, digits: int) -> np.ndarray:
    """Returns which of `digits` digits are drawn for each image, int64 `(count, 3)`."""
    # PCG64's raw bits stay as they are; what NumPy makes of them may change. Their
    # remainder favours none of 60,000 digits by more than 4e-15.
    bits = np.random.PCG64([SEED, PARTS.index(part)])
    raw = bits.random_raw(count * CHANNELS).reshape(count, CHANNELS)
    return (raw % np.uint64(digits)).astype(np.int64)


def mode(digits: np.ndarray) -> int:
    """Returns 100 a + 10 b + c."""
    a, b, c = digits.tolist()
    return 100 * a + 10 * b + c


def read(file: Path, axes: int) -> np.ndarray:
    """Returns what a gzipped IDX file of bytes holds, uint8 of so many axes.

    Raises:
        FetchError: if it is another kind of file, or holds less or more than it says.
    """
    content = gzip.decompress(file.read_bytes())
    header = np.frombuffer(content, ">u4", count=1 + axes)
    magic, *shape = header.tolist()
    values = np.frombuffer(content, np.uint8, offset=header.nbytes)
    if magic != BYTES + axes or values.size != math.prod(shape):
        raise FetchError(
            f"{file}: expected an IDX file that begins with {BYTES + axes} and the sizes"
            f" of {axes} axes. Received: {magic}, {shape} and {values.size} bytes"
        )
    return values.reshape(shape)
