"""Multi30k: captions of pictures in English, and in French or German."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from engram.datasets import parallel_text

_FOLDER = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
LANGUAGES = ("fr", "de")


class Multi30k(parallel_text.ParallelTextBuilder):
    """Multi30k, task 1: 29,000 captions to train, 1,014 to choose, 1,000 to test.

    The text is raw: with capitals and punctuation, not split into words. The test is
    that of 2016, on which most results are published. The captions come without a
    licence; their pictures, of Flickr30k, are for research and teaching only.

    Args:
        language: str, the language to translate into, `"fr"` or `"de"`.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        ValueError: if `language` is another word.
        ParallelTextError: if a file is malformed.
    """

    DESCRIPTION = "Captions of pictures in English, and in French or German."
    HOMEPAGE = "https://github.com/multi30k/dataset"
    CITATION = (
        "D. Elliott, S. Frank, K. Sima'an, L. Specia. Multi30K: Multilingual"
        " English-German Image Descriptions. 5th Workshop on Vision and Language, 2016."
        " French: D. Elliott, S. Frank, L. Barrault, F. Bougares, L. Specia. Findings of"
        " the Second Shared Task on Multimodal Machine Translation and Multilingual Image"
        " Description. WMT 2017."
    )

    def __init__(self, *, language: str = "fr", **kwargs):
        if language not in LANGUAGES:
            raise ValueError(
                f"`language` must be one of {LANGUAGES}. Received: {language!r}"
            )
        self.language = language
        self.METADATA = {
            "source_language": "en",
            "target_language": language,
            "gold_alignments": False,
        }
        names = [f"{file}.{of}" for file in FILES.values() for of in ("en", language)]
        self.URLS = {name: f"{_FOLDER}/{name}.gz" for name in names}
        super().__init__(**kwargs)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        at = dl_manager.download(self.URLS)
        into = self.language
        return {
            split: self._generate_examples(at[f"{file}.en"], at[f"{file}.{into}"])
            for split, file in FILES.items()
        }

    def _generate_examples(
        self, source: Path, target: Path
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        pairs = parallel_text.read_pairs(Path(source), Path(target))
        yield from self._examples((*pair, []) for pair in pairs)
