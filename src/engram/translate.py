"""Translates with a trained experiment.

    python -m engram.translate runs/french-transformer "the cat sits on the mat"
    python -m engram.translate runs/french-transformer --attention < sentences.txt

With `--attention` a line for each piece of the translation shows how much of its
attention went to each piece of the source, mean over heads and layers, and where most of
it went.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engram import params

SHADES = " ▁▂▃▄▅▆▇█"


def main(argv: list[str] | None = None) -> None:
    """Prints a translation for each sentence of the arguments, or of standard input."""
    parser = argparse.ArgumentParser("python -m engram.translate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, help="folder runs/<experiment> of a suite")
    parser.add_argument(
        "sentences", nargs="*", help="of standard input, if none is given"
    )
    parser.add_argument("--attention", action="store_true", help="draw where it looked")
    given = parser.parse_args(argv)
    sentences = given.sentences or sys.stdin.read().splitlines()
    empty = [n for n, one in enumerate(sentences, 1) if not one.strip()]
    if empty or not sentences:
        parser.error(f"sentence {empty[0] if empty else 1} is empty")
    model, prepared = _opened(given.run)
    for found in translated(model, prepared, sentences):
        print(found["translation"])
        if given.attention and found["alpha"] is None:
            print("(the model has no attention)")
        elif given.attention:
            print("\n".join(drawn(found["source"], found["target"], found["alpha"])))


def _opened(run: Path) -> tuple[Any, Path]:
    """Returns the model of a run's first seed, and the folder of its prepared data."""
    suite = run.parent.parent
    try:
        experiments = params.load(suite / "params.yaml")["experiments"]
    except params.ParamsError as error:
        sys.exit(str(error))
    if run.name not in experiments or experiments[run.name]["task"] != "translation":
        known = [n for n, one in experiments.items() if one["task"] == "translation"]
        sys.exit(f"{run}: no experiment that translates. Known: {', '.join(known)}")
    files = sorted((run / "models").glob("seed-*.keras"))
    if not files:
        sys.exit(f"{run}: not trained yet. Train it with: dvc repro train@{run.name}")
    block = experiments[run.name]
    prepared = suite / "data/prepared" / block["dataset"]
    if not (prepared / "spec.json").is_file():
        stage = f"prepare@{block['dataset']}"
        sys.exit(f"{prepared}: not there. Prepare it with: dvc repro {stage}")
    from engram import models  # after the checks: TensorFlow

    return models.load(block["model"], block["task"], files[0]), prepared


def translated(model, prepared: Path, sentences: list[str]) -> list[dict[str, Any]]:
    """Returns of each sentence its `translation`, pieces, and `alpha` `(T, S)` or None.

    Args:
        model: a `models.translation.Translator`.
        prepared: folder that the task's `prepare` wrote.
        sentences: as a person writes them.
    """
    from engram.tasks import translation
    from engram.tasks.translation_metrics import detokeniser, ended, sentence

    spec = json.loads((prepared / "spec.json").read_text())
    read = translation.normaliser(spec["source_language"], spec["tokens"])
    models = {
        side: (prepared / f"{side}.model").read_bytes() for side in translation.SIDES
    }
    names = {side: translation.names(model) for side, model in models.items()}
    spoken = detokeniser(spec)
    found = []
    for row in translation.encoded([read(one) for one in sentences], models["source"]):
        wide = -(-len(row) // translation.WIDTH) * translation.WIDTH
        (told,) = model.translate(row[None], 3 * wide // 2 + 10)  # as `evaluate` does
        told = ended(told)
        shifted = np.array([[spec["start"], *told]], np.int32)
        alphas = model.alignments(row[None], shifted).values()  # (1, H, T, S) each
        heads = [np.asarray(alpha)[0] for alpha in alphas]
        found.append(
            {
                "translation": spoken(sentence(told, names["target"])),
                "source": [names["source"][token] for token in row],
                "target": [names["target"][token] for token in (*told, spec["end"])],
                "alpha": np.concatenate(heads).mean(0) if heads else None,
            }
        )
    return found


def drawn(source: list[str], target: list[str], alpha: np.ndarray) -> list[str]:
    """Returns lines that show alpha `(T, S)`: a row of shades for each target piece."""
    width = max(map(len, target))
    lines = [" " * width + "  looks at: " + " ".join(source)]
    for piece, row in zip(target, alpha, strict=True):
        shades = "".join(SHADES[round(float(a) * (len(SHADES) - 1))] for a in row)
        most = int(row.argmax())
        lines.append(f"{piece:>{width}} |{shades}| {source[most]} {row[most]:.2f}")
    return lines


if __name__ == "__main__":
    main()
