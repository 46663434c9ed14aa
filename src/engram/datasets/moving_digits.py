"""Moving digits: clips of two handwritten digits that bounce inside a small canvas.

The digits are the 1,797 images of 8 x 8 pixels that come with scikit-learn (Alpaydin and
Kaynak 1998, "Optical recognition of handwritten digits", UCI repository); the idea of the
clips is Moving MNIST (Srivastava, Mansimov and Salakhutdinov 2015, "Unsupervised learning
of video representations using LSTMs", ICML). A digit D moves straight on and is
reflected by the walls. In each direction, with room L between the walls,

    p(t) = fold(p_0 + v t),    fold(q) = L - |L - q mod 2 L|

and at (y, x) it is drawn as A(y) D A(x)', its pixels shared out by linear interpolation:

    A(p)[r, i] = max(0, 1 - |r - i - p|)

Where two digits overlap, the brighter one is seen.

The numbers are the same on every machine: all of this is done in integers, a pixel being
`GRID` units of length, and random numbers are the raw bits of PCG64.

Letters in shape comments: B clips, T frames, H, W height and width of the canvas.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Array = np.ndarray
Bits = np.random.PCG64

SEED = 1998
CANVAS = 24  # pixels
DIGIT = 8  # pixels
INK = 16  # of a pixel that is all stroke, as scikit-learn counts it
FRAMES = 20
TOGETHER = 2  # digits in a clip
WHITE = 255  # of a stored pixel that is all stroke
GRID = 16  # units of length in a pixel
WALL = (CANVAS - DIGIT) * GRID  # L, from wall to wall for a digit's corner
SPEED = (8, 24)  # units a frame: from half a pixel to one and a half, in each direction
# Neighbours in the file tend to be by one hand, so the parts are pieces of it.
IMAGES = {"train": (0, 1078), "validation": (1078, 1437), "test": (1437, 1797)}
SHARES = {"train": 3, "validation": 1, "test": 1}  # of 5 clips
CHECKED = 8  # clips of each part
CHECKSUM = "7bf293859fb99b4e68c6cf4edda98a91b209b0191518a70bf240fc26bc93b7ea"


def below(bits: Bits, limit: int | Array, *shape: int) -> Array:
    """Draws integers from 0 to `limit - 1` out of integer bits alone."""
    raw = bits.random_raw(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    half = np.uint64(32)
    return ((raw >> half) * np.asarray(limit, np.uint64) >> half).astype(np.int64)


def fold(position: Array) -> Array:
    """Returns where a straight line is once the walls have reflected it."""
    return WALL - np.abs(WALL - position % (2 * WALL))


def paths(bits: Bits, clips: int) -> Array:
    """Draws how the digits move: `(B, T, 2, 2)`, the last axis is y and x, in units."""
    slow, fast = SPEED
    limits = np.array([WALL + 1, fast - slow + 1, 2])
    drawn = below(bits, limits, clips, 1, TOGETHER, 2, 3)
    first, speed, sign = drawn[..., 0], slow + drawn[..., 1], 1 - 2 * drawn[..., 2]
    time = np.arange(FRAMES)[:, None, None]  # (T, 1, 1)
    return fold(first + sign * speed * time)


def interpolation(position: Array) -> Array:
    """Returns `GRID` times A of the positions: integers `(..., 24, 8)`."""
    row, pixel = np.arange(CANVAS)[:, None], np.arange(DIGIT)
    distance = (row - pixel) * GRID - position[..., None, None]
    return np.maximum(GRID - np.abs(distance), 0)


def draw(digits: Array, path: Array) -> Array:
    """Returns the frames of a clip, uint8 `(T, H, W)`.

    Args:
        digits: integers from 0 to `INK`, `(2, 8, 8)`.
        path: integers `(T, 2, 2)`, as of `paths`.
    """
    down, across = interpolation(path[..., 0]), interpolation(path[..., 1])
    seen = down @ digits @ across.swapaxes(-1, -2)  # (T, 2, H, W)
    return (seen.max(axis=1) * WHITE // (INK * GRID * GRID)).astype(np.uint8)


def film(part: str, clips: int) -> tuple[Array, Array, Array]:
    """Makes the clips of a part: the first ones do not depend on how many there are.

    Returns:
        Frames uint8 `(B, T, H, W)`, and of each clip's digits the labels and their
        places in scikit-learn's list of images, both int64 `(B, 2)`.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, DIGIT, DIGIT).astype(np.int64)
    start, end = IMAGES[part]
    number = list(IMAGES).index(part)
    which = start + below(Bits([SEED, number, 0]), end - start, clips, TOGETHER)
    path = paths(Bits([SEED, number, 1]), clips)
    frames = [draw(images[two], way) for two, way in zip(which, path, strict=True)]
    return np.stack(frames), labels[which].astype(np.int64), which


def checksum() -> str:
    """Returns the sha256 of the first clips of every part."""
    known = hashlib.sha256()
    for part in IMAGES:
        frames, labels, which = film(part, CHECKED)
        known.update(frames.tobytes())
        known.update(np.concatenate([labels, which]).astype("<i8").tobytes())
    return known.hexdigest()


class MovingDigits(tfds.core.GeneratorBasedBuilder):
    """Clips of 20 frames in which two handwritten digits bounce inside 24 x 24 pixels.

    The splits `train`, `validation` and `test` share no image of a digit. An example:

        frames   uint8 (20, 24, 24)   0 is empty, 255 all stroke
        labels   int64 (2,)           which digits they are
        images   int64 (2,)           their places in scikit-learn's list of images

    Args:
        clips: int, how many in all parts together, a multiple of 5: three fifths are for
            training, one each for validation and test.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        ValueError: if `clips` is no such multiple.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, object] = {}  # it downloads nothing

    def __init__(self, *, clips: int = 1200, **kwargs):
        if clips < 5 or clips % 5:
            raise ValueError(f"`clips` must be a multiple of 5. Received: {clips}")
        self.clips = clips
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        tensor = tfds.features.Tensor
        return tfds.core.DatasetInfo(
            builder=self,
            description="Two handwritten digits that bounce inside a small canvas.",
            citation=(
                "N. Srivastava, E. Mansimov, R. Salakhutdinov. Unsupervised learning of"
                " video representations using LSTMs. ICML 2015."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "frames": tensor(
                        shape=(FRAMES, CANVAS, CANVAS), dtype=np.uint8, encoding="bytes"
                    ),
                    "labels": tensor(shape=(TOGETHER,), dtype=np.int64),
                    "images": tensor(shape=(TOGETHER,), dtype=np.int64),
                }
            ),
            metadata=tfds.core.MetadataDict(white=WHITE),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        found = checksum()
        if found != CHECKSUM:
            raise ValueError(
                "this machine draws other clips than every machine before. Expected"
                f" sha256 {CHECKSUM}, received {found}; NumPy {np.__version__}"
            )
        return {part: self._generate_examples(part) for part in IMAGES}

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
        made = film(part, self.clips * SHARES[part] // 5)
        for n, (frames, labels, which) in enumerate(zip(*made, strict=True)):
            yield n, {"frames": frames, "labels": labels, "images": which}
