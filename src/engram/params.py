"""`params.yaml`, checked: every key, type and word, before any stage starts.

`load` returns the file's own values, never a default of this module: the check can stop
a run, it cannot change a result. What an argument means stands beside the code it goes
to, in the docstring of the model's `build` or of the dataset's `generate`.
"""

import difflib
import re
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

Positive = Annotated[int, Field(gt=0, strict=True)]
Rate = Annotated[float, Field(gt=0, le=1)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


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
    split: Annotated[list[Rate], Field(min_length=3, max_length=3)]

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


class Dataset(Block):
    """A dataset: where its file is, how it is fetched and prepared."""

    task: Literal["forecasting"]
    source: Literal["ring_road", "los_loop", "detector_csv"]
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


class ParamsError(ValueError):
    """A fault of `params.yaml`, told to the person who wrote it."""


def load(path: str | Path = "params.yaml") -> dict[str, Any]:
    """Returns the checked contents of `path`.

    Raises:
        ParamsError: naming the key, what was expected, what was received and, for a
            key or word that does not exist, the nearest one that does.
    """
    values = _read(Path(path))
    faults = _faults(Params, values, where=())
    if isinstance(values, dict) and not faults:
        for name, block in values["datasets"].items():
            faults += _dataset_faults(name, block)
        for name, block in values["experiments"].items():
            faults += _experiment_faults(name, block, values)
    if faults:
        raise ParamsError("\n".join(f"{path}: {fault}" for fault in faults))
    return values


def load_or_exit(path: str | Path = "params.yaml") -> dict[str, Any]:
    """Returns `load(path)`, or ends the program with its message and no traceback."""
    try:
        return load(path)
    except ParamsError as error:
        sys.exit(str(error))


class _OnceLoader(yaml.SafeLoader):
    """YAML's safe loader, but two equal keys are an error."""


def _mapping_without_repeats(loader: _OnceLoader, node: yaml.MappingNode) -> dict:
    keys = [key.value for key, _ in node.value]
    repeated = {key for key in keys if keys.count(key) > 1}
    if repeated:
        line = node.start_mark.line + 1
        raise ParamsError(
            f"the block at line {line} has two keys {sorted(repeated)[0]!r}"
        )
    return loader.construct_mapping(node, deep=True)


_OnceLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)  # noqa: S506
    except FileNotFoundError:
        raise ParamsError(f"{path}: there is no such file in {Path.cwd()}") from None
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 text: {error.reason}") from None
    except (yaml.YAMLError, ParamsError) as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None


def _dataset_faults(name: str, block: dict[str, Any]) -> list[str]:
    where = ("datasets", name)
    faults = _faults(SOURCES[block["source"]], block["fetch"], (*where, "fetch"))
    return faults + _faults(PREPARE[block["task"]], block["prepare"], (*where, "prepare"))


def _experiment_faults(name: str, block: dict, values: dict) -> list[str]:
    where = ("experiments", name)
    faults = []
    if block["dataset"] not in values["datasets"]:
        faults.append(_unknown((*where, "dataset"), block["dataset"], values["datasets"]))
    elif block["task"] != (task := values["datasets"][block["dataset"]]["task"]):
        faults.append(
            f"{'.'.join(where)}.task: dataset {block['dataset']!r} is for task {task!r}."
            f" Received: {block['task']!r}"
        )
    if block["model"] not in MODELS:
        faults.append(_unknown((*where, "model"), block["model"], MODELS))
    else:
        faults += _faults(MODELS[block["model"]], block["args"], (*where, "args"))
    prepared = f"data/prepared/{block['dataset']}"
    form = Training if block["start"] == prepared else Refit
    chosen = re.fullmatch(r"runs/([^/]+)/chosen\.json", block["start"])
    others = values["experiments"].keys() - {name}
    if form is Refit and chosen and chosen[1] not in others:
        faults.append(_unknown((*where, "start"), chosen[1], others))
    elif form is Refit and not chosen:
        faults.append(
            f"{'.'.join(where)}.start: expected {prepared!r}, or the file"
            f" 'runs/<experiment>/chosen.json' of another experiment."
            f" Received: {block['start']!r}"
        )
    else:
        faults += _faults(form, block["train"], (*where, "train"))
    return faults


def _faults(form: type[Block], values: Any, where: tuple[str, ...]) -> list[str]:
    try:
        form.model_validate(values)
    except ValidationError as error:
        return [_sentence(form, where, fault) for fault in error.errors()]
    return []


def _sentence(form: type[Block], where: tuple[str, ...], fault: ErrorDetails) -> str:
    place = tuple(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return _unknown(where + place[:-1], place[-1], _fields(form, fault["loc"][:-1]))
    message = fault["msg"].removeprefix("Value error, ")
    name = ".".join(where + place) or "the file"
    if fault["type"] == "missing":
        return f"{name}: is missing"
    if fault["type"] == "value_error":
        return f"{name}: {message}"
    return f"{name}: {message}. Received: {fault['input']!r}"


def _fields(form: type[Block], place: tuple[int | str, ...]) -> list[str]:
    """Returns the keys that the block at `place` below `form` may have."""
    kind: Any = form
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:  # dict[Word, Block] or list[Block]: the block is the last argument
            kind = typing.get_args(kind)[-1]
    return list(kind.model_fields)


def _unknown(where: tuple[str, ...], word: str, known: typing.Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(known) if known else "nothing (write {})"
    return f"{'.'.join(where) or 'the file'}: unknown {word!r}.{hint} Known: {listed}"


if __name__ == "__main__":
    load_or_exit(*sys.argv[1:2])
