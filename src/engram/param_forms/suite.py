"""Forms of `pretraining`, `experiments`, `compare`, and of the whole file."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engram.param_forms.blocks import Block, Positive, Rate, Word
from engram.param_forms.datasets import Dataset, Task
from engram.param_forms.models import Remedies

STACKED = ("deep_net", "deep_autoencoder")  # models that may start from a stack
NetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")]  # MLflow's
REFITTED = ("dataset", "model", "layers", "args")  # the same as what a refit starts from


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Means(Block):
    """By what means an experiment trains: devices, and how they compute.

    Without `precision` numbers are float32, without `accumulate` each batch makes a step,
    and without `steps_per_execution` the model says how many steps are one call.
    """

    batch_size: Positive
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"]
    jit_compile: bool
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    accumulate: Positive = 1  # batches, whose gradients make one step
    steps_per_execution: Positive | None = None
    require: Literal["gpu"] | None = None


class Training(Means):
    """How an experiment trains; a list of rates is tried in turn on validation.

    Without `decay` the rate falls as a cosine, without `warmup` it begins at its highest,
    and without `average` the weights of the best epoch are kept.
    """

    epochs: Positive
    learning_rate: Annotated[list[Rate], Field(min_length=1), BeforeValidator(_listed)]
    decay: Literal["cosine", "inverse_sqrt"] = "cosine"
    warmup: Positive | None = None  # steps
    average: Annotated[int, Field(ge=2)] | None = None  # epochs, the last ones

    @model_validator(mode="after")
    def _fits(self) -> "Training":
        if self.decay == "inverse_sqrt" and not self.warmup:
            raise ValueError("decay inverse_sqrt needs `warmup`. Received: none")
        if self.average and self.average > self.epochs:
            raise ValueError(
                f"average must be at most {self.epochs}, the epochs."
                f" Received: {self.average}"
            )
        return self


class Refit(Means):
    """How an experiment trains again on more rows, with settings chosen before."""


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


class CliffNet(Remedies):
    """A net of a depth cliff; validation chooses among its rates at each depth."""

    pretrained: bool
    learning_rate: Annotated[list[Rate], Field(min_length=1)]


class CliffTraining(Block):
    """How each net of a depth cliff trains, beside its own learning rates."""

    epochs: Positive
    looks: Positive
    batch_size: Positive
    optimizer: Literal["sgd", "adam"]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _looks_are_as_far_apart(self) -> "CliffTraining":
        if self.epochs % self.looks:
            raise ValueError(
                f"looks must divide epochs, {self.epochs}. Received: {self.looks}"
            )
        return self


class DepthCliff(Block):
    """Nets that are trained at several depths (`depth_cliff.py`)."""

    dataset: Word
    start: str
    depths: Annotated[list[Positive], Field(min_length=1)]
    width: Positive
    nets: Annotated[dict[NetName, CliffNet], Field(min_length=1, max_length=8)]
    train: CliffTraining


class MapTraining(Block):
    """How each net of a trainability map trains."""

    steps: Positive
    batch_size: Positive
    learning_rate: Rate
    seed: Annotated[int, Field(ge=0)]


class TrainabilityMap(Block):
    """Random nets of several depths and scales of weights (`trainability_map.py`)."""

    dataset: Word
    activation: Literal["tanh", "sigmoid"]
    width: Positive
    depths: Annotated[list[Positive], Field(min_length=2)]
    sigma_w2: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)]
    sigma_b2: Annotated[float, Field(ge=0)]
    train: MapTraining


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
    depth_cliffs: dict[Word, DepthCliff]
    trainability_maps: dict[Word, TrainabilityMap]
    compare: Compare
