"""Copy memory: ten symbols are shown, and asked for after a long silence.

    step      0 ... 9      10 ... D+8    D+9    D+10 ... D+19       D: the delay
    input     symbols      blanks        go     blanks
    target    blanks       blanks        blank  the ten symbols

Who forgets the symbols can do no better than a cross-entropy of 10 ln 8 / (D + 20), the
mean over all steps. Sources: Hochreiter and Schmidhuber 1997, "Long short-term memory";
this form is that of Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural
networks", with 8 symbols.

The symbols are the same on every machine: they are raw bits of PCG64.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SEED = 2016
SHOWN = 10  # symbols to remember
BLANK, FIRST, LAST, GO = 0, 1, 8, 9  # classes of a step: 1 to 8 are symbols


def draw(bits: np.random.PCG64) -> np.ndarray:
    """Returns ten symbols uint8 `(10,)`, each from 1 to 8."""
    raw = bits.random_raw(SHOWN)
    return (FIRST + (raw >> np.uint64(61))).astype(np.uint8)  # three bits are 8 symbols


class CopyMemory(tfds.core.GeneratorBasedBuilder):
    """Symbols of the copy memory task, with the splits `train` and `test`.

    Args:
        delay: int, at least 1: steps from the last symbol to the sign to recall.
        train: int, number of sequences to learn from.
        test: int, number of sequences to test on.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        ValueError: if `delay` is not positive.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, object] = {}  # it downloads nothing

    def __init__(self, *, delay: int, train: int, test: int, **kwargs):
        if delay < 1:
            raise ValueError(f"`delay` must be at least 1. Received: {delay}")
        self.delay = delay
        self.counts = {"train": train, "test": test}
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        symbols = tfds.features.Tensor(shape=(SHOWN,), dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Ten symbols of eight kinds, to be recalled after a delay.",
            citation=(
                "M. Arjovsky, A. Shah, Y. Bengio. Unitary evolution recurrent neural"
                " networks. ICML 2016."
            ),
            features=tfds.features.FeaturesDict({"symbols": symbols}),
            metadata=tfds.core.MetadataDict(delay=self.delay),
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
            yield n, {"symbols": draw(bits)}
