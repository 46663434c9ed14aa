"""Bars and stripes: images of whole rows or of whole columns, all that there are.

Of size D there are 2^D images whose rows are each empty or full, and 2^D whose columns
are. The empty and the full image are both, and occur twice (the "multiset" of Fischer and
Igel; others count each image once). No density gives them more than

    mean log p = (4 log(2 / M) + (M - 4) log(1 / M)) / M,     M = 2^(D + 1) images

nats an image: -2.599302 for D = 3, -41.589 for all 16 together.

Source: MacKay 2003, Information Theory, Inference and Learning Algorithms, exercise 43.3;
Fischer & Igel 2014, Training restricted Boltzmann machines: an introduction.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds


def images(size: int) -> np.ndarray:
    """Returns all images, uint8 `(M, size, size)`: stripes, then bars."""
    lines = np.array(list(itertools.product([0, 1], repeat=size)), np.uint8)
    stripes = np.repeat(lines[:, :, None], size, axis=2)  # each row empty or full
    return np.concatenate([stripes, stripes.swapaxes(1, 2)])


def bound(size: int) -> float:
    """Returns the highest mean log p of an image, in nats."""
    count = 2 ** (size + 1)
    twice = 4 * np.log(2 / count) + (count - 4) * np.log(1 / count)
    return float(twice / count)


class BarsAndStripes(tfds.core.GeneratorBasedBuilder):
    """All images of bars and of stripes; the split is `images`.

        image    uint8 (size, size, 1)   0 is empty, 1 full

    Args:
        size: int, from 2 to 10, pixels of a side.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        ValueError: if `size` is no such number.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, object] = {}  # it downloads nothing

    def __init__(self, *, size: int = 3, **kwargs):
        if not 2 <= size <= 10:
            raise ValueError(f"`size` must be from 2 to 10. Received: {size}")
        self.size = size
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images of whole rows or of whole columns.",
            citation=(
                "D. J. C. MacKay. Information Theory, Inference and Learning Algorithms."
                " Cambridge University Press, 2003."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=(self.size, self.size, 1), dtype=np.uint8, encoding="bytes"
                    )
                }
            ),
            metadata=tfds.core.MetadataDict(white=1, bound=bound(self.size)),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {"images": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for n, image in enumerate(images(self.size)):
            yield n, {"image": image[..., None]}
