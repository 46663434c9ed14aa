"""The card of a promoted model: what it is, of which data, how good, where it ends."""

from typing import Any

from engram import tables
from engram.serving.fields import TEXT, Field

Json = dict[str, Any]
OF_THE_RUN = ("git.commit", "git.dirty", "dvc.stage", "dvc.lock", "suite")


def card(
    name: str,
    alias: str,
    about: Json,
    spec: Json,
    metrics: Json,
    fields: tuple[list[Field], list[Field]],
    limits: str,
    run: tuple[str, dict[str, str]],
) -> str:
    """Returns a page of Markdown.

    Args:
        name: of the registered model.
        alias: that it is promoted to.
        about: `experiment`, its `block` of `params.yaml`, `seed`, and what `run.json` has
            of that seed.
        spec: contents of the dataset's `spec.json`.
        metrics: contents of `metrics/<experiment>.json`.
        fields: of a request and of an answer.
        limits: what the model is not for.
        run: id and tags of its run.
    """
    block, address = about["block"], f"models:/{name}@{alias}"
    lines = [
        f"# {name}: {about['experiment']}",
        f"A model `{block['model']}` of {metrics['parameters']:,} parameters for the task"
        f" `{block['task']}`, trained on `{block['dataset']}`.",
        "## Request and answer",
        _table([["", "Name", "Type", "Shape of a row", "What it is"], *_rows(*fields)]),
        _how(address),
        "## Data",
        _data(spec),
        "## Training",
        _training(about, metrics),
        "## Measured on the test part",
        _measured(about, metrics),
        "## Limits",
        " ".join(limits.split()),
        "## Where it comes from",
        _table(
            [
                ["", ""],
                ["MLflow run", f"`{run[0]}`"],
                *([key, f"`{run[1][key]}`"] for key in OF_THE_RUN if key in run[1]),
            ]
        ),
        f"`engram lineage {address}` verifies it, hash by hash.",
    ]
    return "\n\n".join(lines) + "\n"


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, [":--"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(given: list[Field], answered: list[Field]) -> list[list[str]]:
    found = []
    for side, fields in (("request", given), ("answer", answered)):
        for one in fields:
            sizes = " x ".join("any" if n < 0 else str(n) for n in one.shape)
            kind = "text" if one.dtype == TEXT else one.dtype
            found.append([side, f"`{one.name}`", kind, sizes or "one value", one.words])
    return found


def _how(address: str) -> str:
    return f"""```
export MLFLOW_TRACKING_URI=$(python -m engram.store)
mlflow models serve -m {address} --env-manager local --port 5001
curl 127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\
  -d @serving_input_example.json
```

The first line asks for the store in the repository's folder; a server of your own has
an address to put there. The example is in the model's folder. Without MLflow, where
Engram and TensorFlow are:

```python
from engram import serving

served = serving.load("artifacts/served")  # of the model's folder
served.answer(served.example["request"])
```"""


def _data(spec: Json) -> str:
    parts = ", ".join(f"{name} {end - start:,}" for name, (start, end) in _parts(spec))
    rows = [
        ["", ""],
        ["dataset", f"`{spec['dataset']}`"],
        ["fingerprint", f"`{spec['fingerprint']}`"],
        *([["rows of the parts", parts]] if parts else []),
    ]
    return _table(rows)


def _parts(spec: Json) -> list[tuple[str, list[int]]]:
    parts = spec.get("parts", {})
    whole = all(isinstance(one, list) for one in parts.values())
    return list(parts.items()) if whole else []


def _training(about: Json, metrics: Json) -> str:
    block, rows = about["block"], [["", ""]]
    rows += [[f"`{key}`", f"`{value}`"] for key, value in block["args"].items()]
    rows += [["fitted on the", tables.PARTS[metrics["fitted"]]]]
    solved = metrics["learning_rate"] is None  # at once, without a rate or epochs
    for key, words in (("rate", "learning rate"), ("best_epoch", "epoch kept")):
        if about.get(key) is not None and not solved:
            rows.append([words, f"{about[key]:g}"])
    rows.append(["seconds", f"{about['seconds']:.0f}"])
    return _table(rows)


def _measured(about: Json, metrics: Json) -> str:
    seeds = metrics["seeds"]
    said = f"One seed, {seeds[0]}: nothing tells how much another would differ."
    if len(seeds) > 1:
        chosen = "whose loss on validation is the least"
        if about.get("held_loss") is None:
            chosen = "the first"
        said = (
            f"Mean and standard deviation of the seeds {', '.join(map(str, seeds))}; this"
            f" model is of seed {about['seed']}, {chosen}."
        )
    keys = dict.fromkeys([*metrics["headline"], *sorted(metrics["metrics"])])
    rows = [["Metric", "Value"]]
    rows += [[tables.label(key), tables.score(metrics, key)] for key in keys]
    first, unit = tables.label(metrics["sort_by"]), metrics["unit"]
    told = f"{first}{f', in {unit},' if unit else ''} is what models are ranked by:"
    told += f" {metrics['better']} is better."
    meant = {pattern for key in keys for pattern in tables.patterns(key)}
    lines = [words for pattern, words in tables.MEANINGS.items() if pattern in meant]
    more = f" {'; '.join(lines)}." if lines else ""
    return f"{said} {told}{more}\n\n{_table(rows)}"
