"""`python -m engram.translate` tells what a trained experiment makes of a sentence."""

import io
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import toy

from engram import models, translate
from engram.tasks import translation

PAIRS = {"the cat sleeps": "le chat dort", "the dogs sleep": "les chiens dorment"}
LONGER = "the cat sleeps " * 3  # as wide as another batch
SPEC = {
    "task": "translation",
    "source_language": "en",
    "target_language": "fr",
    "vocabulary": "separate",
    "tokens": "plain",
    "source_pieces": 9,  # with the four special ones
    "target_pieces": 10,
    "start": 1,
    "end": 2,
}
PLACE = {"dataset": "tiny_french", "task": "translation"}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A suite with two experiments, of which one knows two sentences by heart."""
    folder = tmp_path_factory.mktemp("suite")
    prepared = folder / "data/prepared/tiny_french"
    prepared.mkdir(parents=True)
    (prepared / "spec.json").write_text(json.dumps(SPEC))
    rows = {}
    for side, sentences in (("source", [*PAIRS]), ("target", [*PAIRS.values()])):
        model = translation._learned(sentences, "word", SPEC[f"{side}_pieces"], side)
        (prepared / f"{side}.model").write_bytes(model)
        rows[side] = np.stack(translation.encoded(sentences, model))
    experiments = {
        name: toy.experiment("seq2seq", **PLACE) for name in ("trained", "untrained")
    }
    toy.write_params(folder, experiments, {"tiny_french": toy.tiny_french()}, "seq2seq")
    (folder / "runs/trained/models").mkdir(parents=True)
    learned(**rows).save(folder / "runs/trained/models/seed-1.keras")
    return folder


def learned(source, target):
    arguments = toy.ARGUMENTS["seq2seq"] | {"units": 16, "dropout": 0.0, "own_words": 0.0}
    keras.utils.set_random_seed(1)
    model = models.build("seq2seq", SPEC, 0.02, **arguments)
    shifted = np.concatenate([np.ones_like(target[:, :1]), target[:, :-1]], axis=1)
    model.fit((source, shifted), target, epochs=60, verbose=0)
    return model


def told(suite, capsys, *arguments):
    translate.main([str(suite / "runs/trained"), *arguments])
    return capsys.readouterr().out.splitlines()


def test_each_sentence_is_translated(suite, capsys):
    *found, _ = told(suite, capsys, *PAIRS, LONGER)
    assert found == list(PAIRS.values())


def test_sentences_may_come_from_standard_input(suite, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the dogs sleep\n"))
    assert told(suite, capsys) == ["les chiens dorment"]


def test_unknown_words_and_emoji_are_read_as_unknown(suite, capsys):
    line, header, *_ = told(suite, capsys, "the zebra 🦓 sleeps", "--attention")
    unknown = "▁<unk>"
    assert header.split()[2:] == ["▁the", unknown, unknown, "▁sleeps", "</s>"]
    assert line


def test_attention_is_drawn_with_a_line_for_each_piece(suite, capsys):
    line, header, *rows = told(suite, capsys, "the cat sleeps", "--attention")
    assert line == "le chat dort"
    assert header.split() == ["looks", "at:", "▁the", "▁cat", "▁sleeps", "</s>"]
    assert [row.split()[0] for row in rows] == ["▁le", "▁chat", "▁dort", "</s>"]


def test_the_darkest_shade_is_where_most_attention_went():
    alpha = np.array([[0.0, 1.0, 0.0], [0.5, 0.25, 0.25]])
    _, first, second = translate.drawn(["a", "b", "c"], ["x", "yy"], alpha)
    assert first == " x | █ | b 1.00"
    assert second.startswith("yy |▄▂▂|") and second.endswith("a 0.50")


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("runs/untrained", "not trained yet. Train it with: dvc repro train@untrained"),
        ("runs/traned", "no experiment that translates. Known: trained, untrained"),
    ],
)
def test_a_run_that_cannot_translate_is_told_in_one_line(suite, run, message):
    with pytest.raises(SystemExit, match=message):
        translate.main([str(suite / run), "the cat sleeps"])


def test_a_suite_that_is_not_prepared_is_told_in_one_line(suite, tmp_path):
    shutil.copytree(suite, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved/data")
    with pytest.raises(SystemExit, match="with: dvc repro prepare@tiny_french"):
        translate.main([str(tmp_path / "moved/runs/trained"), "the cat sleeps"])


@pytest.mark.parametrize("sentences", [["the cat sleeps", "  "], []])
def test_an_empty_sentence_is_refused(suite, sentences, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SystemExit):
        translate.main([str(suite / "runs/trained"), *sentences])
    assert "is empty" in capsys.readouterr().err


def test_a_folder_without_params_is_told_before_tensorflow_is_loaded(tmp_path):
    code = (
        "import sys; from engram import translate\n"
        "try: translate.main(['runs/x', 'a'])\n"
        "except SystemExit as end: print(end, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "params.yaml: there is no such file" in done.stdout
    assert done.stdout.endswith("False\n")
