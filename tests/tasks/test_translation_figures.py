"""Pictures name every token, and the page needs neither a network nor a script."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from engram.tasks import translation_figures
from engram.tasks.translation_figures import attention, draw, heads, loss_curves, page

CURVE = {"x_label": "words", "y_label": "%", "x": [2.0, 4.0], "y": [90.0, 50.0]}
ODD = ["▁<b>&\"'", "$\\frac", "▁漢", "😀", "▁", "</s>"]


def one(
    source=("▁the", "▁c", "at", "</s>"), target=("▁le", "▁chat", "</s>"), sizes=(2, 1)
):
    draw_ = np.random.default_rng(1)
    shape = (len(target), len(source))
    alphas = {
        f"decoder_{n}": draw_.dirichlet(np.ones(shape[1]), (size, shape[0]))
        for n, size in enumerate(sizes, start=1)
    }
    about = {"given": "the cat", "told": "le chat", "reference": "le <chat>"}
    return {"source": list(source), "target": list(target), **about, "alpha": alphas}


def findings(*shown):
    curves = [{**CURVE, "title": title} for title in ("BLEU", "exact")]
    spec = {"dataset": "a$b_<i>"}
    return {"spec": spec, "details": {"curves": curves}, "shown": list(shown)}


class Reader(HTMLParser):
    """Collects the tags of a page, those left open, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def ticks(axis):
    return [
        [label.get_text() for label in labels]
        for labels in (axis.get_xticklabels(), axis.get_yticklabels())
    ]


def test_tokens_stand_at_the_axes_and_alpha_is_the_mean_over_heads():
    shown = one()
    figure = attention(findings(shown))
    axis = figure.axes[0]
    assert ticks(axis) == [["the", "c", "·at", "<end>"], ["le", "chat", "<end>"]]
    first, second = shown["alpha"].values()
    expected = (first.sum(0) + second[0]) / 3
    np.testing.assert_allclose(axis.images[0].get_array(), expected)
    assert (axis.images[0].norm.vmin, axis.images[0].norm.vmax) == (0, 1)


def test_every_head_of_every_attention_has_a_panel():
    figure = heads(findings(one(sizes=(2, 1, 3))))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [
        "decoder_1, head 1",
        "decoder_1, head 2",
        "decoder_2, head 1",
        "decoder_3, head 1",
        "decoder_3, head 2",
        "decoder_3, head 3",
    ]


def test_odd_characters_are_drawn_as_they_stand_or_as_a_box(tmp_path):
    # Warnings are errors: a sign that the font lacks, or a broken formula, would fail.
    files = draw(findings(one(source=ODD, target=ODD)), tmp_path)
    assert all(file.stat().st_size > 0 for file in files)
    axis = attention(findings(one(source=ODD))).axes[0]
    drawn = ["<b>&\"'", r"·\$\frac", "□", "·😀", "▁", "<end>"]
    assert ticks(axis)[0] == drawn


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_one_sentence_and_several_can_be_drawn(count):
    figure = attention(findings(*[one()] * count))
    assert sum(len(axis.images) for axis in figure.axes[:count]) == count


def test_an_empty_translation_and_a_long_sentence_are_drawn(tmp_path):
    long = [f"▁w{n}" for n in range(90)]
    files = draw(findings(one(target=["</s>"]), one(source=long, target=long)), tmp_path)
    assert len(files) == 6
    figure = attention(findings(one(source=long, target=long)))
    assert figure.axes[0].images[0].get_array().shape == (60, 60)


def test_the_loss_has_a_line_for_each_seed_and_part():
    history = {seed: {"loss": [3, 2, 1], "val_loss": [3, 2.5, 2]} for seed in "12"}
    axis = loss_curves({**findings(one()), "history": history}).axes[0]
    lines = [line.get_ydata().tolist() for line in axis.lines if len(line.get_ydata())]
    assert lines == [[3, 2, 1]] * 2 + [[3, 2.5, 2]] * 2
    named = [text.get_text() for text in axis.get_legend().get_texts()]
    assert named == ["training part", "validation part"]
    refit = {"1": {"loss": [3, 2, 1]}}
    loss_curves({**findings(one()), "history": refit})


def test_alpha_and_its_tokens_can_be_read_again(tmp_path):
    shown = [one(), one(source=ODD)]
    draw(findings(*shown), tmp_path)
    tokens = json.loads((tmp_path / "tokens.json").read_text(encoding="utf-8"))
    with np.load(tmp_path / "alignments.npz", allow_pickle=False) as saved:
        assert set(saved) == {f"{n}.decoder_{k}" for n in (0, 1) for k in (1, 2)}
        for n, expected in enumerate(shown):
            assert tokens[n]["source"] == expected["source"]
            for name, alpha in expected["alpha"].items():
                np.testing.assert_array_equal(saved[f"{n}.{name}"], alpha)


def test_the_page_stands_alone_and_every_text_in_it_is_text(tmp_path):
    text = page(findings(one(source=ODD), one()), tmp_path).read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.open == []  # every tag is closed, in order
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "img", "iframe", "b<", "chat", "i"}
    assert not re.search(r"https?:|url\(|@import|\bon\w+=", text)
    assert "prefers-color-scheme:dark" in text
    policy = dict(next(a for t, a in reader.tags if "http-equiv" in a))["content"]
    assert policy.startswith("default-src 'none'")
    assert "<b>&\"'" in reader.words and "Where attention looks: a$b_<i>" in reader.words
    assert "<end>" in reader.words


def test_the_page_has_a_map_for_each_head_and_tells_every_alpha(tmp_path):
    shown = one()
    text = page(findings(shown), tmp_path).read_text(encoding="utf-8")
    reader = Reader(text)
    assert sum(tag == "svg" for tag, _ in reader.tags) == 1 + 2 + 1
    every = [shown["alpha"]["decoder_1"], shown["alpha"]["decoder_2"]]
    mean = np.concatenate(every).mean(0)
    counted = sum((alpha >= translation_figures.LEAST).sum() for alpha in [mean, *every])
    squares = [about for tag, about in reader.tags if tag == "rect"]
    assert len(squares) == counted
    assert f"chat from c: {every[0][0, 1, 1]:.2f}" in reader.words
    opened = [about for tag, about in reader.tags if tag == "details" and "open" in about]
    assert len(opened) == 2  # the first sentence, and in it the mean
