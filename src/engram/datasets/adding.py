"""The adding problem: remember two marked numbers of a long sequence, tell their sum.

    step       0     1     2     3   ...  T-1
    value     .71   .26   .93   .05       .48     uniform between 0 and 1
    marker     .     x     .     .         x      one in each half
    target                                        .26 + .48

Who always answers 1 has a mean squared error of 1/6. Sources: Hochreiter and Schmidhuber
1997, "Long short-term memory", experiment 4; the form with a marker in each half is that
of Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks".

The numbers are the same on every machine: they are raw bits of PCG64.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SEED = 1997
LARGEST = 65535  # of a stored value; it stands for 1


def draw(bits: np.random.PCG64, steps: int) -> dict[str, np.ndarray]:
    """Returns values uint16 `(T,)` in 65,535ths and the two marked steps `(2,)`."""
    raw = bits.random_raw(steps + 2)
    first, second = (int(one) for one in raw[steps:])
    half = steps // 2
    return {
        "values": (raw[:steps] >> np.uint64(48)).astype(np.uint16),
        "marked": np.array([first % half, half + second % (steps - half)], np.uint16),
    }


class Adding(tfds.core.GeneratorBasedBuilder):
    """Sequences of the adding problem, with the splits `train` and `test`.

    Args:
        steps: int, length `T` of a sequence, from 2 to 65,535.
        train: int, number of sequences to learn from.
        test: int, number of sequences to test on.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        ValueError: if `steps` is outside its range.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, object] = {}  # it downloads nothing

    def __init__(self, *, steps: int, train: int, test: int, **kwargs):
        if not 2 <= steps <= LARGEST:
            raise ValueError(f"`steps` must be from 2 to {LARGEST}. Received: {steps}")
        self.steps = steps
        self.counts = {"train": train, "test": test}
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        def numbers(size):
            return tfds.features.Tensor(shape=(size,), dtype=np.uint16, encoding="bytes")

        return tfds.core.DatasetInfo(
            builder=self,
            description="Sequences of numbers, two of them marked: what is their sum?",
            citation=(
                "S. Hochreiter, J. Schmidhuber. Long short-term memory."
                " Neural Computation 9(8), 1997."
            ),
            features=tfds.features.FeaturesDict(
                {"values": numbers(self.steps), "marked": numbers(2)}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {
            split: self._generate_examples(count, np.random.PCG64([SEED, part]))
            for part, (split, count) in enumerate(self.counts.items())
        }

    def _generate_examples(
        self, count: int, bits: np.random.PCG64
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for n in range(count):
            yield n, draw(bits, self.steps)
