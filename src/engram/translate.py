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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SHADES = " ▁▂▃▄▅▆▇█"
TOKENS = 4096  # in a batch, padding included, as in `tasks.translation.evaluate`


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
    try:
        check(sentences)
    except ValueError as error:
        parser.error(str(error))
    run = trained(given.run)
    from engram import models  # after the checks: TensorFlow

    model = models.load(run.experiment["model"], "translation", run.file)
    translator = TextTranslator(model, *read(run.prepared))
    for found in translator.translated(sentences):
        print(found.text)
        if given.attention:
            source, target, alpha = translator.attention(found)
            alone = "(the model has no attention)"
            print(alone if alpha is None else "\n".join(drawn(source, target, alpha)))


def check(sentences: list[Any]) -> None:
    """Raises a ValueError unless all are sentences, and there is one."""
    if not sentences:
        raise ValueError("a sentence is needed, and there is none")
    for number, one in enumerate(sentences, 1):
        if not isinstance(one, str):
            raise ValueError(f"sentence {number} must be text. Received: {one!r}")
        if not one.strip():
            raise ValueError(f"sentence {number} is empty")
        try:
            one.encode()
        except UnicodeEncodeError:  # half of a character, or bytes of another encoding
            raise ValueError(
                f"sentence {number} is no UTF-8. Received: {one!r}"
            ) from None


class Trained(NamedTuple):
    """A trained experiment that translates, by its first seed."""

    name: str
    experiment: dict[str, Any]  # its block of `params.yaml`
    seed: str
    about: dict[str, Any]  # what its stage wrote of that seed
    file: Path  # the model
    prepared: Path


def trained(run: Path) -> Trained:
    """Returns what is known of the experiment in a suite's folder `runs/<experiment>`.

    Exits with a message if it does not translate, or something is not there yet.
    """
    from engram import params

    suite = run.parent.parent
    try:
        experiments = params.load(suite / "params.yaml")["experiments"]
    except params.ParamsError as error:
        sys.exit(str(error))
    if run.name not in experiments or experiments[run.name]["task"] != "translation":
        known = [n for n, one in experiments.items() if one["task"] == "translation"]
        sys.exit(f"{run}: no experiment that translates. Known: {', '.join(known)}")
    if not (run / "run.json").is_file():
        sys.exit(f"{run}: not trained yet. Train it with: dvc repro train@{run.name}")
    block = experiments[run.name]
    prepared = suite / "data/prepared" / block["dataset"]
    if not (prepared / "spec.json").is_file():
        stage = f"prepare@{block['dataset']}"
        sys.exit(f"{prepared}: not there. Prepare it with: dvc repro {stage}")
    seed, about = next(iter(json.loads((run / "run.json").read_text()).items()))
    file = run / "models" / f"seed-{seed}.keras"
    return Trained(run.name, block, seed, about, file, prepared)


def read(prepared: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns a prepared folder's spec and SentencePiece's model of each side."""
    sides = ("source", "target")
    models = {side: (prepared / f"{side}.model").read_bytes() for side in sides}
    return json.loads((prepared / "spec.json").read_text()), models


class Translation(NamedTuple):
    """A sentence and its translation."""

    text: str
    source: np.ndarray  # tokens (S,), with an end
    target: np.ndarray  # tokens (T,), without an end


class TextTranslator:
    """A model of tokens that reads and writes text.

    Args:
        model: a `models.translation.Translator`.
        spec: contents of the dataset's `spec.json`.
        vocabularies: SentencePiece's models of `source` and `target`.
    """

    def __init__(self, model, spec: dict[str, Any], vocabularies: dict[str, bytes]):
        from engram.tasks import translation, translation_metrics

        self._model, self._spec, self._vocabularies = model, spec, vocabularies
        self._read = translation.normaliser(spec["source_language"], spec["tokens"])
        self._names = {k: translation.names(one) for k, one in vocabularies.items()}
        self._spoken = translation_metrics.detokeniser(spec)

    def translated(self, sentences: list[str]) -> list[Translation]:
        """Returns the translation of each sentence; equally wide ones go together."""
        from engram.tasks import translation
        from engram.tasks.translation import sentence
        from engram.tasks.translation_metrics import ended

        read = [self._read(one) for one in sentences]
        rows = translation.encoded(read, self._vocabularies["source"])
        found: dict[int, Translation] = {}
        for places, source in _batches(rows, translation.WIDTH):
            length = translation.longest(source, self._spec)
            for place, told in zip(
                places, self._model.translate(source, length), strict=True
            ):
                told = ended(told)
                text = self._spoken(sentence(told, self._names["target"]))
                found[place] = Translation(text, rows[place], told)
        return [found[place] for place in range(len(rows))]

    def attention(
        self, found: Translation
    ) -> tuple[list[str], list[str], np.ndarray | None]:
        """Returns source pieces, target pieces and alpha `(T, S)`, the mean of all heads.

        An end is among the pieces. Alpha is None if the model has no attention.
        """
        shifted = np.array([[self._spec["start"], *found.target]], np.int32)
        alphas = self._model.alignments(found.source[None], shifted).values()
        heads = [np.asarray(alpha)[0] for alpha in alphas]  # (H, T, S) each
        return (
            [self._names["source"][token] for token in found.source],
            [self._names["target"][n] for n in (*found.target, self._spec["end"])],
            np.concatenate(heads).mean(0) if heads else None,
        )


def _batches(
    rows: list[np.ndarray], width: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields places in `rows` and what stands there, tokens int32 `(B, S)`, 0 behind.

    All sentences of a batch need the same `S`, a multiple of `width`: the longest that a
    translation may be depends on it.
    """
    wide = -(-np.array([len(row) for row in rows]) // width) * width
    for size in np.unique(wide):
        (alike,) = np.nonzero(wide == size)
        most = max(1, TOKENS // size)
        for places in np.split(alike, range(most, len(alike), most)):
            padded = [np.pad(rows[n], (0, size - len(rows[n]))) for n in places]
            yield places, np.stack(padded)


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
