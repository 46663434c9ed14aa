"""Translations of sentences, text to text."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engram.serving.fields import TEXT, Field, Refused

SIDES = ("source", "target")
FILES = tuple(f"{side}.model" for side in SIDES)
PACKAGES = ("sentencepiece", "sacremoses", "sacrebleu")
LIMITS = """It translates sentences like those it was trained on: a word that was not
among them comes out as another one, and a long text is no sentence. Nobody read its
answers."""


def given(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of a request."""
    return [Field("sentence", TEXT, (), f"one in {spec['source_language']}")]


def answered(spec: dict[str, Any]) -> list[Field]:
    """Returns the field of an answer."""
    return [Field("translation", TEXT, (), f"in {spec['target_language']}")]


def example(prepared: Path, spec: dict[str, Any]) -> dict[str, list[str]]:
    """Returns a request of the first sentence of the validation part."""
    text = json.loads((prepared / "text.json").read_text(encoding="utf-8"))
    return {"sentence": [text["validation"][0]["source"]]}


def predictor(model, spec: dict[str, Any], settled, folder: Path) -> Callable:
    """Returns the function from a request's sentences to their translations.

    It needs the packages of Engram's extra `text`; loading the model does not.
    """

    @functools.cache
    def translator():
        from engram import translate

        sides = {side: (folder / f"{side}.model").read_bytes() for side in SIDES}
        return translate.TextTranslator(model, spec, sides)

    def predict(sentence):
        from engram import translate

        try:
            translate.check(sentence.tolist())
        except ValueError as error:
            raise Refused(str(error)) from None
        try:
            found = translator().translated(sentence.tolist())
        except ModuleNotFoundError as error:
            package = str(error.name).split(".")[0]
            raise ModuleNotFoundError(
                f"reading and writing text needs {package}, of Engram's extra `text`"
            ) from None
        return {"translation": [one.text for one in found]}

    return predict
