"""`python -m engram.translate` tells what a trained experiment makes of a sentence."""

import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
from translator_suite import PAIRS

from engram import models, translate

LONGER = "the cat sleeps " * 3  # as wide as another batch


@pytest.fixture
def suite(translator_suite):
    return translator_suite


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


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (["the cat sleeps", "  "], "sentence 2 is empty"),
        (["the cat \udcff"], "sentence 1 is no UTF-8"),
        ([], "a sentence is needed, and there is none"),
    ],
)
def test_what_is_no_sentence_is_refused(suite, sentences, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(SystemExit):
        translate.main([str(suite / "runs/trained"), *sentences])
    assert message in capsys.readouterr().err


def test_many_sentences_are_translated_as_each_alone_in_few_batches(suite, monkeypatch):
    run = translate.trained(suite / "runs/trained")
    model = models.load("seq2seq", "translation", run.file)
    translator = translate.TextTranslator(model, *translate.read(run.prepared))
    sentences = [*PAIRS, LONGER, "sleeps", "the zebra sleeps"] * 3
    alone = [translator.translated([one])[0].text for one in sentences]
    asked = []
    search = model.translate
    monkeypatch.setattr(translate, "TOKENS", 80)  # 10 sentences of 8 tokens
    monkeypatch.setattr(
        model, "translate", lambda x, n: asked.append(x.shape) or search(x, n)
    )
    assert [one.text for one in translator.translated(sentences)] == alone
    assert asked == [(10, 8), (2, 8), (3, 16)]
    assert alone[:2] == list(PAIRS.values())


def test_the_first_seed_is_that_of_run_json(suite):
    run = translate.trained(suite / "runs/trained")
    assert (run.seed, run.file.name) == ("10", "seed-10.keras")


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
