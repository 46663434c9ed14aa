"""The forms of `params.yaml`: the keys of each block and the kinds of their values."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0, strict=True)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Horizon = Annotated[float, Field(ge=1)]  # steps
Task = Literal[
    "forecasting", "sequences", "video", "classification", "density", "reconstruction"
]
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


class BarsAndStripes(Block):
    """How large images of bars and stripes are (`source: bars_and_stripes`)."""

    size: Annotated[int, Field(ge=2, le=10, strict=True)]


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
    """How many images choose, or keep their label (`prepare` of a classification)."""

    validation: Annotated[int, Field(ge=0, strict=True)]
    labelled: Positive | None


class Pictures(Block):
    """How many images are set aside (`prepare` of a reconstruction dataset)."""

    validation: Positive


class Ridge(Block):
    """Arguments of `models/ridge.py`."""

    alpha: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]


class Mlp(Block):
    """Arguments of `models/mlp.py`."""

    units: Positive


class Recurrent(Block):
    """Arguments of `models/{simple_rnn,gru,lstm}.py`."""

    units: Positive


class ChronoLstm(Block):
    """Arguments of `models/chrono_lstm.py`."""

    units: Positive
    horizon: Horizon


class Stlm(Block):
    """Arguments of `models/stlm.py`."""

    units: Positive
    combine: Literal["concat", "sum", "weighted"]
    short_horizon: Horizon
    long_horizon: Horizon


class ParallelStlm(Stlm):
    """Arguments of `models/parallel_stlm.py`."""

    depth: Positive


class ConvLstm(Block):
    """Arguments of `models/conv_lstm.py`."""

    filters: Positive
    kernel_size: Positive


class Rbm(Block):
    """Arguments of `models/rbm.py`."""

    units: Positive
    method: Literal["cd", "pcd", "exact"]
    k: Positive
    passes: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    centred: bool


class ConvStlm(ConvLstm):
    """Arguments of `models/conv_stlm.py`."""

    combine: Literal["concat", "sum", "weighted"]
    short_horizon: Horizon
    long_horizon: Horizon


class DeepNet(Block):
    """Arguments of `models/deep_net.py`."""

    units: Annotated[list[Positive], Field(min_length=1)]
    activation: Literal["sigmoid", "tanh", "relu"]
    optimizer: Literal["sgd", "adam"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    hidden_rate: Annotated[float, Field(gt=0, le=1)]
    logits: Literal["glorot_uniform", "zeros"]


class Pca(Block):
    """Arguments of `models/pca.py`."""

    units: Positive


class DeepAutoencoder(Block):
    """Arguments of `models/deep_autoencoder.py`."""

    units: Annotated[list[Positive], Field(min_length=1)]
    code: Positive
    optimizer: Literal["sgd", "adam"]


SOURCES: dict[str, type[Block]] = {
    "ring_road": NoArguments,
    "los_loop": NoArguments,
    "nyc_taxi": NoArguments,
    "montevideo_bus": NoArguments,
    "detector_csv": CsvFile,
    "adding": Adding,
    "copy_memory": CopyMemory,
    "mnist": NoArguments,
    "digits": Digits,
    "moving_digits": MovingDigits,
    "bars_and_stripes": BarsAndStripes,
}
PREPARE: dict[str, type[Block]] = {
    "forecasting": Windows,
    "sequences": Sequences,
    "video": Clips,
    "classification": Images,
    "density": Rows,
    "reconstruction": Pictures,
}
MODELS: dict[str, type[Block]] = {
    "persistence": NoArguments,
    "historical_average": NoArguments,
    "ridge": Ridge,
    "mlp": Mlp,
    "simple_rnn": Recurrent,
    "gru": Recurrent,
    "lstm": Recurrent,
    "chrono_lstm": ChronoLstm,
    "stlm": Stlm,
    "parallel_stlm": ParallelStlm,
    "last_frame": NoArguments,
    "conv_lstm": ConvLstm,
    "conv_stlm": ConvStlm,
    "deep_net": DeepNet,
    "rbm": Rbm,
    "pca": Pca,
    "deep_autoencoder": DeepAutoencoder,
}


STACKED = ("deep_net", "deep_autoencoder")  # models that may start from a stack
REFITTED = ("dataset", "model", "layers", "args")  # the same as what a refit starts from


class Dataset(Block):
    """A dataset: where its file is, how it is fetched and prepared."""

    task: Task
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


class Stack(Block):
    """Which RBMs stand on one another, and whether a linear code stands on them."""

    units: Annotated[list[Positive], Field(min_length=1)]
    visible: Literal["bernoulli", "gaussian"]
    code: Positive | None = None

    @model_validator(mode="after")
    def _code_fits(self) -> "Stack":
        if self.code and self.code > self.units[-1]:
            raise ValueError(
                f"code must be at most {self.units[-1]}, the units of the highest RBM."
                f" Received: {self.code}"
            )
        return self


class Contrastive(Block):
    """How each RBM of a stack learns (`pretraining/contrastive_divergence.py`)."""

    method: Literal["cd", "pcd"]
    k: Positive
    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    last_rate: Annotated[float, Field(ge=0, le=1)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    sample_visible: bool
    centred: bool
    look_every: Positive
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    jit_compile: bool


class Pretraining(Block):
    """A stack of RBMs, one for each seed, that experiments may start from."""

    task: Literal["classification", "density", "reconstruction"]
    dataset: Word
    stack: Stack
    train: Contrastive


class Experiment(Block):
    """An experiment: one model on one dataset."""

    task: Task
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
    """Which model the others are compared with, and published numbers beside ours.

    Of several models, each dataset takes the first that it has.
    """

    reference: Annotated[list[Word], Field(min_length=1), BeforeValidator(_listed)]
    published: list[Published]


class Params(Block):
    """The whole file."""

    datasets: dict[Word, Dataset]
    pretraining: dict[Word, Pretraining]
    experiments: dict[Word, Experiment]
    compare: Compare
