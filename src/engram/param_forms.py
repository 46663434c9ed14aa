"""The forms of `params.yaml`: the keys of each block and the kinds of their values."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0, strict=True)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
# no dot: DVC takes it for a level, as in experiments.<name>
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class Block(BaseModel):
    """A block of `params.yaml`: unknown keys and values of another kind are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class NoArguments(Block):
    """A block that must be empty: `{}`."""


class CsvFile(Block):
    """How to read a CSV of one's own (`source: detector_csv`)."""

    interval_minutes: Positive
    unit: str
    missing: list[float]
    first_reading: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


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


class Ridge(Block):
    """Arguments of `models/ridge.py`."""

    alpha: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]


class Mlp(Block):
    """Arguments of `models/mlp.py`."""

    units: Positive


class Recurrent(Block):
    """Arguments of `models/{simple_rnn,gru,lstm}.py`."""

    units: Positive


class Stlm(Block):
    """Arguments of `models/stlm.py`."""

    units: Positive
    combine: Literal["concat", "sum", "weighted"]
    long_horizon: Annotated[float, Field(gt=2)]


SOURCES: dict[str, type[Block]] = {
    "ring_road": NoArguments,
    "los_loop": NoArguments,
    "detector_csv": CsvFile,
}
PREPARE: dict[str, type[Block]] = {"forecasting": Windows}
MODELS: dict[str, type[Block]] = {
    "persistence": NoArguments,
    "historical_average": NoArguments,
    "ridge": Ridge,
    "mlp": Mlp,
    "simple_rnn": Recurrent,
    "gru": Recurrent,
    "lstm": Recurrent,
    "stlm": Stlm,
}


REFITTED = ("dataset", "model", "layers", "args")  # the same as what a refit starts from


class Dataset(Block):
    """A dataset: where its file is, how it is fetched and prepared."""

    task: Literal["forecasting"]
    source: Word
    file: str
    fetch: dict[str, Any]
    prepare: dict[str, Any]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Training(Block):
    """How an experiment trains; a list of rates is tried in turn on validation."""

    epochs: Positive
    batch_size: Positive
    learning_rate: Annotated[list[Rate], Field(min_length=1), BeforeValidator(_listed)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    strategy: Literal["auto", "one_device", "mirrored"]
    jit_compile: bool


class Refit(Block):
    """How an experiment trains again on more rows, with settings chosen before."""

    batch_size: Positive
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    strategy: Literal["auto", "one_device", "mirrored"]
    jit_compile: bool


class Experiment(Block):
    """An experiment: one model on one dataset."""

    task: Literal["forecasting"]
    dataset: Word
    model: Word
    layers: str
    start: str
    args: dict[str, Any]
    train: dict[str, Any]


class Published(Block):
    """A published number that stands beside one of ours."""

    experiment: Word
    metric: Word
    published: float
    source: str
    difference: str


class Compare(Block):
    """Which model the others are compared with, and published numbers beside ours."""

    reference: Word
    published: list[Published]


class Params(Block):
    """The whole file."""

    datasets: dict[Word, Dataset]
    experiments: dict[Word, Experiment]
    compare: Compare
