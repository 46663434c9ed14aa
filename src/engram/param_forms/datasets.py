"""Forms of `datasets`: how each source is fetched, and how each task prepares it."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engram.param_forms.blocks import Block, NoArguments, Positive, Share, Word

Task = Literal[
    "forecasting",
    "sequences",
    "video",
    "classification",
    "density",
    "reconstruction",
    "translation",
    "generation",
    "image_generation",
]


class CsvFile(Block):
    """How to read a CSV of one's own (`source: detector_csv`)."""

    interval_minutes: Positive
    unit: str
    missing: list[float]
    first_reading: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class Adding(Block):
    """How many sequences of the adding problem, and how long (`source: adding`)."""

    steps: Annotated[int, Field(ge=2, le=65535, strict=True)]
    train: Positive
    test: Positive


class CopyMemory(Block):
    """How many sequences of copy memory, and how long a delay (`source: copy_memory`)."""

    delay: Positive
    train: Positive
    test: Positive


class MovingDigits(Block):
    """How many clips of moving digits (`source: moving_digits`)."""

    clips: Annotated[int, Field(ge=5, multiple_of=5, strict=True)]


class Digits(Block):
    """How the digits become parts (`source: digits`)."""

    unseen_hands: bool


class StackedMnist(Block):
    """How many images of three digits there are (`source: stacked_mnist`)."""

    train: Positive
    test: Positive


class CatOrNot(Block):
    """Which pictures are cats or not (`source: cat_or_not`)."""

    images: Literal["subset", "cifar10"]


class PictureFolder(Block):
    """What becomes of one's own pictures (`source: picture_folder`)."""

    side: Annotated[int, Field(ge=8, le=512, strict=True)]
    colour: bool
    test: Share


class GaussianMixture(Block):
    """Where the modes are, and how many points there are (`source: gaussian_mixture`)."""

    layout: Literal["ring", "grid"]
    train: Positive
    held: Annotated[int, Field(ge=2, strict=True)]


class BarsAndStripes(Block):
    """How large images of bars and stripes are (`source: bars_and_stripes`)."""

    size: Annotated[int, Field(ge=2, le=10, strict=True)]


class Multi30k(Block):
    """Into which language captions are translated (`source: multi30k`)."""

    language: Literal["fr", "de"]


class Windows(Block):
    """How a series becomes windows and parts (`prepare` of a forecasting dataset)."""

    history: Positive
    horizon: Positive
    split: Annotated[list[Share], Field(min_length=3, max_length=3)]

    @model_validator(mode="after")
    def _parts_sum_to_one(self) -> "Windows":
        if abs(sum(self.split) - 1) > 1e-9:
            raise ValueError(f"split must sum to 1. Received: {self.split}")
        return self


class Sequences(Block):
    """How examples become sequences (`prepare` of a sequences dataset)."""

    read: Literal["sum", "symbols", "rows", "pixels", "permuted_pixels"]
    validation: Positive


class Clips(Block):
    """How many frames a clip shows and hides (`prepare` of a video dataset)."""

    history: Positive
    horizon: Positive


class Rows(Block):
    """How images become rows of zeros and ones (`prepare` of a density dataset)."""

    validation: Annotated[int, Field(ge=0, strict=True)]
    flipped: bool


class Images(Block):
    """How many images choose or keep their label, and whether classes weigh the same."""

    validation: Annotated[int, Field(ge=0, strict=True)]
    labelled: Positive | None
    balanced: bool


class Pictures(Block):
    """How many images are set aside (`prepare` of a reconstruction dataset)."""

    validation: Positive


class Judged(Block):
    """How many images choose, and who judges (`prepare` of image_generation)."""

    validation: Annotated[int, Field(ge=0, strict=True)]
    judge: Literal["digits", "mnist"]


class Sentences(Block):
    """How sentences become pieces (`prepare` of a translation dataset)."""

    vocabulary: Literal["shared", "separate"]
    kind: Literal["bpe", "unigram", "word"]
    pieces: Annotated[int, Field(ge=5, strict=True)]
    tokens: Literal["plain", "moses"]


SOURCES: dict[str, type[Block]] = {
    "ring_road": NoArguments,
    "los_loop": NoArguments,
    "nyc_taxi": NoArguments,
    "montevideo_bus": NoArguments,
    "detector_csv": CsvFile,
    "adding": Adding,
    "copy_memory": CopyMemory,
    "mnist": NoArguments,
    "fashion_mnist": NoArguments,
    "stacked_mnist": StackedMnist,
    "cat_or_not": CatOrNot,
    "picture_folder": PictureFolder,
    "digits": Digits,
    "moving_digits": MovingDigits,
    "bars_and_stripes": BarsAndStripes,
    "gaussian_mixture": GaussianMixture,
    "tiny_french": NoArguments,
    "multi30k": Multi30k,
    "fra_eng": NoArguments,
}
PREPARE: dict[str, type[Block]] = {
    "forecasting": Windows,
    "sequences": Sequences,
    "video": Clips,
    "classification": Images,
    "density": Rows,
    "reconstruction": Pictures,
    "translation": Sentences,
    "generation": NoArguments,
    "image_generation": Judged,
}


class Dataset(Block):
    """A dataset: where its file is, how it is fetched and prepared."""

    task: Task
    source: Word
    file: str
    fetch: dict[str, Any]
    prepare: dict[str, Any]
