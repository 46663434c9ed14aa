"""`params.yaml`, checked: every key, type and word, before any stage starts.

`load` returns the file's own values, never a default of this module: the check can stop
a run, it cannot change a result. What an argument means stands beside the code it goes
to, in the docstring of the model's `build` or of the dataset's builder.
"""

import difflib
import re
import sys
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engram.param_forms.blocks import Block
from engram.param_forms.datasets import PREPARE, SOURCES
from engram.param_forms.models import MODELS
from engram.param_forms.suite import REFITTED, STACKED, Params, Refit, Training


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
        for name, block in values["pretraining"].items():
            faults += _pretraining_faults(name, block, values)
        for name, block in values["experiments"].items():
            faults += _experiment_faults(name, block, values)
        for name, block in values["depth_cliffs"].items():
            faults += _cliff_faults(name, block, values)
        for name, block in values["trainability_maps"].items():
            faults += _image_faults(("trainability_maps", name), block, values)
        faults += _compare_faults(values)
    if faults:
        raise ParamsError("\n".join(f"{path}: {fault}" for fault in faults))
    return values


def check_experiment(name: str, block: dict[str, Any]) -> None:
    """Checks an experiment that is not, or not so, in the file.

    Raises:
        ParamsError: as `load` does.
    """
    values = load()
    values["experiments"] = {**values["experiments"], name: block}
    if faults := _faults(Params, values, ()) or _experiment_faults(name, block, values):
        raise ParamsError("\n".join(faults))


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
        hint = ""
        if "duplicate anchor" in str(error):
            hint = "\nA copied block says `*name` where the first one says `&name {...}`."
        raise ParamsError(f"{path}: not readable as YAML: {error}{hint}") from None


def _dataset_faults(name: str, block: dict[str, Any]) -> list[str]:
    where = ("datasets", name)
    if block["source"] not in SOURCES:
        return [_unknown((*where, "source"), block["source"], SOURCES)]
    faults = _faults(SOURCES[block["source"]], block["fetch"], (*where, "fetch"))
    return faults + _faults(PREPARE[block["task"]], block["prepare"], (*where, "prepare"))


def _pretraining_faults(name: str, block: dict, values: dict) -> list[str]:
    where = ("pretraining", name)
    faults = _data_faults(where, block, values)
    if name in values["experiments"]:
        faults.append(
            f"{'.'.join(where)}: an experiment has this name, and both write runs/{name}."
        )
    return faults


def _image_faults(where: tuple[str, ...], block: dict, values: dict) -> list[str]:
    """Finds what of a measurement on labelled images has no place in this file."""
    if block["dataset"] not in values["datasets"]:
        return [_unknown((*where, "dataset"), block["dataset"], values["datasets"])]
    faults, (kind, name) = [], where
    if (task := values["datasets"][block["dataset"]]["task"]) != "classification":
        faults.append(
            f"{'.'.join(where)}.dataset: must be one of task 'classification'."
            f" Received: {block['dataset']!r} of task {task!r}"
        )
    if name in ("comparison", "summary"):
        faults.append(f"{'.'.join(where)}: `compare` writes a file of this name.")
    # Each writes runs/<name>, and the two kinds of measurement results/<name>.
    for other in ("pretraining", "experiments", "depth_cliffs", "trainability_maps"):
        if other != kind and name in values[other]:
            faults.append(f"{'.'.join(where)}: {other} has a block of this name.")
    return faults


def _cliff_faults(name: str, block: dict, values: dict) -> list[str]:
    where = ("depth_cliffs", name)
    faults = _image_faults(where, block, values)
    if block["dataset"] not in values["datasets"]:
        return faults
    pretrained = any(net["pretrained"] for net in block["nets"].values())
    stacks = {f"runs/{stack}/pretrained": stack for stack in values["pretraining"]}
    prepared = f"data/prepared/{block['dataset']}"
    if block["start"] == prepared and not pretrained:
        return faults
    if block["start"] not in stacks:
        known = list(stacks) if pretrained else [*stacks, prepared]
        return [*faults, _unknown((*where, "start"), block["start"], known)]
    if not pretrained:
        return faults
    stack = values["pretraining"][stacks[block["start"]]]
    wanted = {
        "dataset": ({stack["dataset"]}, {block["dataset"]}),
        "width": (set(stack["stack"]["units"]), {block["width"]}),
    }
    faults += [
        f"{'.'.join(where)}.{key}: must be that of the stack, {sorted(theirs)}."
        f" Received: {block[key]!r}"
        for key, (theirs, ours) in wanted.items()
        if theirs != ours
    ]
    if stack["stack"].get("code"):
        faults.append(
            f"{'.'.join(where)}.start: must be a stack without a `code`."
            f" Received: {block['start']!r}"
        )
    return faults + _seed_faults(where, block["train"], stacks[block["start"]], stack)


def _seed_faults(where: tuple[str, ...], train: dict, name: str, stack: dict) -> list:
    missing = sorted(set(train["seeds"]) - set(stack["train"]["seeds"]))
    if not missing:
        return []
    return [
        f"{'.'.join(where)}.train.seeds: {name!r} has a stack for each of the seeds"
        f" {stack['train']['seeds']}. Received: {missing} besides"
    ]


def _data_faults(where: tuple[str, ...], block: dict, values: dict) -> list[str]:
    """Finds a dataset that is not there, or is for another task."""
    if block["dataset"] not in values["datasets"]:
        return [_unknown((*where, "dataset"), block["dataset"], values["datasets"])]
    task = values["datasets"][block["dataset"]]["task"]
    if block["task"] == task:
        return []
    return [
        f"{'.'.join(where)}.task: dataset {block['dataset']!r} is for task {task!r}."
        f" Received: {block['task']!r}"
    ]


def _experiment_faults(name: str, block: dict, values: dict) -> list[str]:
    where = ("experiments", name)
    faults = _data_faults(where, block, values)
    if block["model"] not in MODELS:
        faults.append(_unknown((*where, "model"), block["model"], MODELS))
    else:
        faults += _faults(MODELS[block["model"]], block["args"], (*where, "args"))
    return faults + _start_faults(where, block, values)


def _start_faults(where: tuple[str, ...], block: dict, values: dict) -> list[str]:
    """Finds a start that is not there, and a `train` block that does not fit it."""
    start, prepared = block["start"], f"data/prepared/{block['dataset']}"
    named = re.fullmatch(r"runs/([^/]+)/(chosen\.json|pretrained)", start)
    if not named and start != prepared:
        return [
            f"{'.'.join(where)}.start: expected {prepared!r}, the file"
            " 'runs/<experiment>/chosen.json' of another experiment, or"
            f" 'runs/<stack>/pretrained' of `pretraining`. Received: {start!r}"
        ]
    refit = start.endswith("chosen.json")
    if named:
        others = values["experiments"].keys() - {where[1]}
        known = others if refit else values["pretraining"]
        if named[1] not in known:
            return [_unknown((*where, "start"), named[1], known)]
    form = Refit if refit else Training
    faults = _faults(form, block["train"], (*where, "train"))
    if named and refit:
        return faults + _refit_faults(where, block, values["experiments"][named[1]])
    if named and not faults:
        return _stack_faults(where, block, named[1], values["pretraining"][named[1]])
    return faults


def _stack_faults(
    where: tuple[str, ...], block: dict, name: str, stack: dict
) -> list[str]:
    """Finds what of an experiment does not fit the stack of RBMs that it starts from."""
    if block["model"] not in STACKED:
        return [
            f"{'.'.join(where)}.model: {' or '.join(STACKED)} may start from a stack."
            f" Received: {block['model']!r}"
        ]
    faults, units, code = [], stack["stack"]["units"], stack["stack"].get("code")
    ours = block["args"].get("units", [])
    if ours[: len(units)] != units or (code and ours != units):
        word = "be" if code else "begin with"
        faults.append(
            f"{'.'.join(where)}.args.units: must {word} those of {name!r}, {units}."
            f" Received: {block['args'].get('units')}"
        )
    if code and stack["stack"]["visible"] != "bernoulli":
        faults.append(
            f"{'.'.join(where)}.start: the visible units of {name!r} must be bernoulli,"
            f" since pixels are drawn by sigmoids. Received: {stack['stack']['visible']}"
        )
    if block["args"].get("code") != code:
        faults.append(
            f"{'.'.join(where)}.args.code: must be that of {name!r}, {code or 'none'}."
            f" Received: {block['args'].get('code', 'none')}"
        )
    return faults + _seed_faults(where, block["train"], name, stack)


def _refit_faults(where: tuple[str, ...], block: dict, origin: dict) -> list[str]:
    """Finds what a refit does not share with the experiment whose choice it takes."""
    pairs = {key: (block[key], origin[key]) for key in REFITTED}
    sizes = block["train"].get("batch_size"), origin["train"].get("batch_size")
    pairs["train.batch_size"] = sizes
    return [
        f"{'.'.join(where)}.{key}: a refit takes over what it starts from,"
        f" {theirs!r}. Received: {ours!r}"
        for key, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def _compare_faults(values: dict) -> list[str]:
    block, experiments = values["compare"], values["experiments"]
    models = {one["model"] for one in experiments.values()}
    faults = []
    wanted = block["reference"]
    for word in [wanted] if isinstance(wanted, str) else wanted:
        if experiments and word not in models:
            faults.append(_unknown(("compare", "reference"), word, models))
    for n, one in enumerate(block["published"]):
        if one["experiment"] not in experiments:
            where = ("compare", "published", str(n), "experiment")
            faults.append(_unknown(where, one["experiment"], experiments))
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
    return f"{name}: {message}. Received: {fault['input']!r}{_exponent(fault['input'])}"


def _exponent(received: Any) -> str:
    """Returns a hint, if it is a number that YAML reads as text."""
    form = r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)"
    if not isinstance(received, str) or not (found := re.fullmatch(form, received)):
        return ""
    whole, part, sign, power = found.groups()
    number = f"{whole}{part if part and part != '.' else '.0'}e{sign or '+'}{power}"
    return f". YAML reads that as text: write {number}"


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
    for file in sys.argv[1:] or ["params.yaml"]:
        load_or_exit(file)
