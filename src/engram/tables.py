"""A comparison becomes tables of words, the same for Markdown and for HTML."""

from __future__ import annotations

import math
import re
from typing import Any

Json = dict[str, Any]
Table = list[list[str]]  # the header first

PARTS = {"train": "training part", "train+validation": "training and validation parts"}
DIFFERENCE = ("difference", "low", "high")
SPELT = {word: word.upper() for word in "mae rmse mape mse bce auc bleu kl kid".split()}
SPELT |= {
    "frechet": "Fréchet",
    "chrf": "chrF",
    "sacrebleu": "sacreBLEU",
}
MISSING = "–"
COSTS = {  # less is better
    "train_seconds": "Time of one fit",
    "peak_memory": "Peak memory",
    "parameters": "Parameters",
}
COST = (
    "Pareto-optimal, and on the line: no other is at least as cheap and as good, and "
    "better in one of the two; a few per cent of time are noise, of memory half as "
    "much again where models are small. A fit's "
    "time is that of the weights that are kept: trying learning rates, pretraining "
    "and the first fit of a model that is fitted again are not in it. Memory is the "
    "most that the process had on the host while it trained, TensorFlow included."
)
MEANINGS = {  # of a metric's key, or else of its parts; the first words are patterns
    "squared_error": "squared error is summed over the pixels of an image, from 0 to 1",
    "mape": "MAPE is in per cent",
    r"at_\d+": "“at 15” is the error 15 minutes ahead",
    r"to_\d+": "“to 60” is all steps up to 60 minutes pooled",
    "accuracy": "accuracy is in per cent, more is better",
    r"calibration_error(_before)?": "calibration error is from 0 to 1, less is better",
    "auc": "AUC is from 0 to 1, more is better",
    "f1": "F1 is in per cent, more is better",
    "temperature": "temperature divides the logits",
    "frechet": "Fréchet distance and KID are of features of our own classifier, hence not"
    " comparable with a published FID; “floor” is what held real images have",
    "precision": "precision and recall are in per cent, more is better",
    "outside": "“outside” is in per cent of the generated images, less is better",
    "modes": "modes are counted, more is better",
    "high_quality": "high quality is in per cent of the generated points, more is better",
    "reverse_kl": "reverse KL is in nats, less is better",
    "distance": "distance, less is better, is 0 between points of one kind",
    "error": "error is in per cent of images, less is better",
    "likelihood": "log likelihood is in nats an image, more is better",
    "backward": "“backward” is annealed from the model; equal where log Z is exact",
    "gap": "“gap to bound” is how far below the best possible",
    "alignment_error": "alignment error is in per cent of the links between words, less"
    " is better",
    "bleu": "BLEU and chrF, from 0 to 100, are of words as prepared",
    "sacrebleu": "sacreBLEU, from 0 to 100, is of detokenised text",
    "exact": "“exact” is the share of sentences equal to the reference, in per cent",
    "entropy": "cross entropy is in nats, less is better",
    "bce": "BCE is in nats per frame",
    "next": "“next” is predicted after true frames",
    "free": "“free” is predicted after a model's own predictions",
}


def heading(group: Json) -> str:
    """Name a group by its dataset, and say so where its models were fitted again."""
    name, fitted = str(group["dataset"]), group["fitted"]
    return name if fitted == "train" else f"{name}, fitted on {PARTS[fitted]}"


def facts(group: Json) -> str:
    """Say in one line what the numbers are."""
    unit, rows, fitted = group["unit"], group["rows"], PARTS[group["fitted"]]
    seeds = {", ".join(map(str, row["seeds"])) or "none" for row in rows}
    meant = {pattern for key in _keys(group) for pattern in patterns(key.lower())}
    said = [f"{group['better'].capitalize()} is better"]
    said += [f"numbers in {unit}"] if unit else []
    said += [f"fitted on the {fitted}", f"seeds: {' or '.join(sorted(seeds))}"]
    if any(len(row["seeds"]) > 1 for row in rows):
        said += ["± is the standard deviation over the seeds"]
    said += [v for k, v in MEANINGS.items() if k in meant]
    said += [f"{label(k)} by {v}" for k, v in group.get("signatures", {}).items()]
    return "; ".join(said) + "."


def patterns(key: str) -> list[str]:
    """Returns the patterns of `MEANINGS` that a metric's key, or parts of it, follow."""
    whole = [pattern for pattern in MEANINGS if re.fullmatch(pattern, key)]
    return whole or [p for p in MEANINGS if re.search(rf"(^|_){p}(_|$)", key)]


def better(key: str, group: Json) -> str:
    """Returns whether a metric is better `"lower"` or `"higher"`, as `facts` says it."""
    said = "; ".join(MEANINGS[pattern] for pattern in patterns(key.lower()))
    for words, direction in (("less is better", "lower"), ("more is better", "higher")):
        if words in said:
            return direction
    return str(group["better"])


def ranking(group: Json) -> Table:
    """Tabulate the experiments, best first, with their headline metrics."""
    keys = group["headline"]
    fit = ["Rate", "Best epoch", "Time of one fit"]
    table = [["Experiment", "Model", "Parameters", *map(label, keys), *fit]]
    for row in group["rows"]:
        about = [row["experiment"], row["model"], number(row["parameters"], "{:,.0f}")]
        chosen = [number(row["learning_rate"], "{:g}"), _epoch(row["best_epoch"])]
        scores = [score(row, key) for key in keys]
        table.append([*about, *scores, *chosen, _time(row["train_seconds"])])
    return table


def differences(group: Json) -> Table:
    """Tabulate the paired differences with their intervals."""
    found = group["differences"]
    unit = f" ({group['unit']})" if group["unit"] else ""
    what = f"Difference in {label(found[0]['metric']) if found else 'metric'}{unit}"
    table = [["Experiment", "Model", what, "95 % interval", "Verdict"]]
    for one in found:
        form = f"{{:+.{_decimals(*(one[k] for k in DIFFERENCE))}f}}"
        value, low, high = (number(one[k], form) for k in DIFFERENCE)
        ends = low if low == high == MISSING else f"{low} to {high}"
        table.append([one["experiment"], one["model"], value, ends, one["verdict"]])
    return table


def note(group: Json, paired: Json, reference: str, resamples: int) -> str:
    """Say what the intervals of a group mean, and how long its test part is."""
    blocks, unit = len(paired["count"]), paired["unit_of_resampling"]
    many = "one block" if blocks == 1 else f"{blocks} blocks"
    text = f"The test part is {many} long (block: {unit}). "
    if group["reference"] is None:
        return text + f"No intervals: no experiment has the model {reference}."
    found = group["differences"]
    lengths = sorted({one["block_length"] for one in found if math.isfinite(one["low"])})
    if not lengths:
        return text + "No intervals: too few blocks, or nothing that could be compared."
    span = " to ".join(map(str, dict.fromkeys([lengths[0], lengths[-1]])))
    text += (
        f"Difference = the experiment minus {group['reference']}, with a 95 % interval "
        f"from {resamples:,} resamples of stretches of {span} consecutive blocks, the "
        "same for both sides; the stretches are longer where the differences of "
        "neighbouring blocks correlate, and the interval wider where they are few. Each "
        "interval stands alone: none is widened for the number of comparisons. An "
        "interval says nothing about other data than these."
    )
    if all(len(row["seeds"]) < 2 for row in group["rows"]):
        text += " One seed each, so the spread between trainings is not included."
    return text


def cost(group: Json) -> Table:
    """Tabulate what a fit costs, and in which cost an experiment is on the frontier."""
    table = [
        ["Experiment", label(group["sort_by"]), *COSTS.values(), "Pareto-optimal in"]
    ]
    for row in group["rows"]:
        spent = [_time(row["train_seconds"]), _memory(row.get("peak_memory"))]
        spent += [number(row["parameters"], "{:,.0f}")]
        led = [k for k in COSTS if row["experiment"] in group["frontiers"][k]]
        words = ", ".join(COSTS[key].lower() for key in led) or MISSING
        table.append([row["experiment"], score(row, group["sort_by"]), *spent, words])
    return table


def published(group: Json) -> Table:
    """Tabulate our numbers beside published ones."""
    rows = {row["experiment"]: row for row in group["rows"]}
    table = [["Experiment", "Metric", "Ours", "Published", "Source"]]
    for one in group["published"]:
        ours = score(rows[one["experiment"]], one["metric"])
        theirs = number(one["published"], f"{{:.{_decimals(one['published'])}f}}")
        line = one["experiment"], label(one["metric"]), ours, theirs
        table.append([*line, one["source"]])
    return table


def protocols(group: Json) -> list[str]:
    """Say how our protocol differs from each source's, each difference once."""
    said = [f"{one['experiment']}: {one['difference']}." for one in group["published"]]
    return list(dict.fromkeys(said))


def metrics(group: Json) -> Table:
    """Tabulate every metric of every experiment, one line each metric."""
    table = [["Metric", *(row["experiment"] for row in group["rows"])]]
    for key in _keys(group):
        table.append([label(key), *(score(row, key) for row in group["rows"])])
    return table


def _keys(group: Json) -> list[str]:
    def natural(key: str) -> list[tuple[int, str]]:
        return [(int("0" + re.sub(r"\D", "", p)), p) for p in re.split(r"(\d+)", key)]

    return sorted({key for row in group["rows"] for key in row["metrics"]}, key=natural)


def label(key: str) -> str:
    """Write a metric's key for people: `rmse_to_60` becomes RMSE to 60."""
    first, *rest = key.split("_")
    others = [SPELT.get(word, word) for word in rest]
    return " ".join([SPELT.get(first, first.title()), *others])


def number(value: float | None, form: str = "{:.3f}") -> str:
    """Write a number with a true minus sign, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return form.format(value).replace("-", "−")


def score(row: Json, key: str) -> str:
    """Write a metric's mean over the seeds, with its deviation where there is one."""
    found = row["metrics"].get(key), (row["std"] or {}).get(key)
    form = f"{{:.{_decimals(found[0])}f}}"
    value, std = (number(one, form) for one in found)
    many = len(row["seeds"]) > 1 and MISSING not in (value, std)
    return f"{value} ± {std}" if many else value


def _decimals(*values: float | None) -> int:
    """Choose 3 decimals, or as many as show two digits of numbers all below 0.01."""
    known = [abs(one) for one in values if one is not None and math.isfinite(one)]
    largest = max(known, default=0.0)
    return 3 if largest >= 0.01 or largest < 1e-9 else 1 - math.floor(math.log10(largest))


def _epoch(epoch: float | None) -> str:
    return number(epoch, "{:.0f}" if epoch is None or epoch % 1 == 0 else "{:.1f}")


def _memory(mebibytes: float | None) -> str:
    return number(mebibytes, "{:,.0f} MiB")


def _time(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds) or seconds < 100:
        return number(seconds, "{:.1f} s")
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02}"
