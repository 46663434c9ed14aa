"""Gaussian mixture: points of the plane around modes on a ring or a grid.

    ring   8 modes on a circle of radius 1, sigma 0.01
    grid   25 modes at -4, -2, 0, 2, 4 on both axes, sigma 0.05

Who generates such points and leaves out modes is seen at once.

Source: Srivastava et al. 2017, VEEGAN, arXiv:1705.07761; with the sigmas that the code of
PacGAN has (Lin et al. 2018, arXiv:1712.04086).
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SEED = 25  # of the points
SIGMA = {"ring": 0.01, "grid": 0.05}
PARTS = ("train", "validation", "test")


def centres(layout: str) -> np.ndarray:
    """Returns the centres of the modes, float64 `(M, 2)`.

    Raises:
        ValueError: if the layout is neither `"ring"` nor `"grid"`.
    """
    if layout == "ring":
        angles = 2 * np.pi * np.arange(8) / 8
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if layout == "grid":
        return np.array(list(itertools.product(range(-4, 5, 2), repeat=2)), np.float64)
    raise ValueError(f"`layout` must be 'ring' or 'grid'. Received: {layout!r}")


def points(layout: str, part: str, count: int) -> np.ndarray:
    """Returns points of all modes alike, float32 `(count, 2)`."""
    draw = np.random.default_rng([SEED, PARTS.index(part)])
    modes = centres(layout)
    chosen = modes[draw.integers(0, len(modes), count)]
    return (chosen + SIGMA[layout] * draw.standard_normal((count, 2))).astype(np.float32)


class GaussianMixture(tfds.core.GeneratorBasedBuilder):
    """Points of the plane around modes; the modes are in the metadata.

        point   float32 (2,)

    Args:
        layout: `"ring"` or `"grid"`.
        train: int, points to train on.
        held: int, points of validation, and as many of test.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        ValueError: if the layout is another one.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, object] = {}  # it downloads nothing

    def __init__(
        self, *, layout: str = "grid", train: int = 100_000, held: int = 2500, **kwargs
    ):
        self.centres = centres(layout)
        self.layout = layout
        self.sizes = dict(zip(PARTS, (train, held, held), strict=True))
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Points of the plane around modes on a ring or a grid.",
            citation=(
                "A. Srivastava, L. Valkov, C. Russell, M. Gutmann, C. Sutton. VEEGAN:"
                " Reducing mode collapse in GANs using implicit variational learning,"
                " 2017."
            ),
            features=tfds.features.FeaturesDict(
                {"point": tfds.features.Tensor(shape=(2,), dtype=np.float32)}
            ),
            metadata=tfds.core.MetadataDict(
                centres=self.centres.tolist(), sigma=SIGMA[self.layout]
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {part: self._generate_examples(part) for part in PARTS}

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for n, point in enumerate(points(self.layout, part, self.sizes[part])):
            yield n, {"point": point}
