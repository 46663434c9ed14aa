"""Scores of translations are those of their definitions, computed by hand."""

import collections
import math

import numpy as np
import pytest

from engram import bootstrap
from engram.tasks.translation import diagonality, entropy, sentence
from engram.tasks.translation_metrics import (
    BLOCK,
    Answer,
    alignment_error,
    ask,
    attention,
    by_words,
    ended,
    measure,
    shown,
    texts,
    words,
)

PIECES = ["<pad>", "<s>", "</s>", "<unk>", "▁a", "▁b", "▁c", "▁d", "▁e", "x", "y"]
SIDES = {"source": PIECES, "target": PIECES}
SPEC = {"gold_alignments": False, "tokens": "plain", "target_language": "fr"}
GOLD = {**SPEC, "gold_alignments": True}


def tokens(text):
    return np.array([PIECES.index(f"▁{word}") for word in text.split()], np.int32)


def answer(source, target, told, alpha=None, heads=None):
    source, target = (np.append(tokens(text), 2) for text in (source, target))
    return Answer(source, target, tokens(told), alpha, heads or {})


def pairs(sources, targets, alignments=None):
    alignments = alignments or [[]] * len(sources)
    return [
        {"source": s, "target": t, "given": t, "alignment": a}
        for s, t, a in zip(sources, targets, alignments, strict=True)
    ]


def ngrams(text, n):
    found = text.split()
    return collections.Counter(tuple(found[k : k + n]) for k in range(len(found) - n + 1))


def bleu(told, references):
    """BLEU of Papineni et al. 2002, equation 3, for a corpus with matches of each n."""
    logs = []
    for n in range(1, 5):
        ours = [ngrams(text, n) for text in told]
        theirs = [ngrams(text, n) for text in references]
        common = sum((a & b).total() for a, b in zip(ours, theirs, strict=True))
        logs.append(math.log(common / sum(a.total() for a in ours)))
    c, r = (sum(len(text.split()) for text in of) for of in (told, references))
    return 100 * min(1, math.exp(1 - r / c)) * math.exp(sum(logs) / 4)


def chrf(told, references):
    """chrF2 of Popović 2015, mean of six orders of characters without spaces."""

    def characters(text):
        return " ".join(text.replace(" ", ""))

    scores = []
    for n in range(1, 7):
        ours = [ngrams(characters(text), n) for text in told]
        theirs = [ngrams(characters(text), n) for text in references]
        common = sum((a & b).total() for a, b in zip(ours, theirs, strict=True))
        a, b = (sum(one.total() for one in of) for of in (ours, theirs))
        scores.append((common / a, common / b) if a and b else None)
    precision, recall = np.mean([one for one in scores if one], axis=0)
    return 100 * 5 * precision * recall / (4 * precision + recall)


def test_bleu_and_chrf_are_their_equations():
    draw = np.random.default_rng(1)
    references = [" ".join(draw.choice(list("abcde"), 9)) for _ in range(40)]
    told = [" ".join(text.split()[: 5 + n % 4]) for n, text in enumerate(references)]
    told[3] = "e d c b a"
    found, signatures = texts(told, pairs(told, references), SPEC)
    assert found["bleu"] == pytest.approx(bleu(told, references), rel=1e-9)
    assert found["chrf"] == pytest.approx(chrf(told, references), rel=1e-9)
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:none|smooth:exp|")
    assert "nc:6|nw:0" in signatures["chrf"]


def test_exact_is_the_share_of_sentences_that_equal_the_reference():
    test = pairs(["a", "b", "c", "d"], ["a b", "b c", "c", "d"])
    one = [answer("a", "a b", "a b"), answer("b", "b c", "b"), answer("c", "c", "c c")]
    other = [*one, answer("d", "d", "")]
    one = [*one, answer("d", "d", "d")]
    found = measure([one, other], test, SIDES, SPEC)
    assert [row["exact"] for row in found["per_seed"]] == [50, 25]
    assert found["metrics"]["exact"] == 37.5
    assert found["std"]["exact"] == pytest.approx(np.std([50, 25], ddof=1))
    assert found["headline"] == ["bleu", "chrf", "exact"]
    assert measure([one], test, SIDES, SPEC)["std"]["bleu"] is None


def test_a_translation_ends_before_its_end_or_padding_and_speaks_no_special_token():
    for behind in ([2, 0, 0], [0, 4, 4], [2, 4, 2]):
        np.testing.assert_array_equal(ended(np.array([4, 5, *behind])), [4, 5])
    np.testing.assert_array_equal(ended(np.array([4, 5])), [4, 5])
    assert ended(np.array([2, 0])).size == 0
    assert sentence([4, 9, 1, 5, 3, 10], PIECES) == "ax b<unk>y"
    assert sentence([], PIECES) == ""


def test_scores_by_length_are_those_of_the_sentences_of_each_group():
    sources = ["a b c d e"] * 30 + ["a b"] * 20 + ["a b c"] * 10
    told = [["a b c d e"] * 30 + ["a b"] * 5 + ["b"] * 15 + ["c"] * 10]
    test = pairs(sources, sources)
    answers = [answer(s, s, t) for s, t in zip(sources, told[0], strict=True)]
    curves = measure([answers], test, SIDES, SPEC)["details"]["curves"]
    bleus, exact = curves
    assert bleus["x"] == exact["x"] == [2, 3, 5]
    assert exact["y"] == [25, 0, 100]
    assert bleus["y"][2] == pytest.approx(100)
    # Two words have no 3-grams; 25 of 25 words and 5 of 5 pairs match, 15 are missing.
    assert bleus["y"][0] == pytest.approx(100 * math.exp(1 - 40 / 25))


def test_blocks_add_up_to_the_metric_and_give_intervals():
    draw, count = np.random.default_rng(1), 20 * BLOCK + 7
    test = pairs(["a"] * count, ["b"] * count)

    def found(share):
        told = np.where(draw.random(count) < share, "b", "c")
        return measure([[answer("a", "b", one) for one in told]], test, SIDES, SPEC)

    one, other = found(0.5), found(0.8)
    paired = other["details"]["paired"]
    assert (paired["metric"], paired["kind"]) == ("exact", "mean")
    assert sum(paired["count"]) == count and paired["count"][-1] == 7
    assert sum(paired["sum"][0]) / count == pytest.approx(other["metrics"]["exact"])
    interval = bootstrap.interval(paired, one["details"]["paired"])
    assert 0 < interval.low < interval.difference < interval.high


# attention


def test_alpha_of_words_is_summed_over_source_pieces_and_averaged_over_target_pieces():
    source = words([4, 9, 10, 5, 2], PIECES)  # axy b
    target = words([6, 7, 9, 2], PIECES)  # c dx
    np.testing.assert_array_equal(source, [0, 0, 0, 1])
    np.testing.assert_array_equal(target, [0, 1, 1])
    alpha = np.random.default_rng(1).dirichlet(np.ones(5), size=4)
    expected = [
        [alpha[0, :3].sum(), alpha[0, 3]],
        [alpha[1:3, :3].sum() / 2, alpha[1:3, 3].sum() / 2],
    ]
    np.testing.assert_allclose(by_words(alpha, source, target), expected)


def looking(places, columns):
    """Alpha of steps that look at these columns, and of the end's step."""
    return np.eye(columns)[[*places, columns - 1]]


def test_aer_is_that_of_och_and_ney_on_links_by_hand():
    # Links 0-0 and 1-2; of a target word without gold links none is counted.
    test = pairs(["a b c", "a"], ["c d e", "a"], [[[0, 0], [1, 1], [2, 1]], []])
    found = alignment_error(
        [
            answer("a b c", "c d e", "", looking([0, 2, 1], 4)),
            answer("a", "a", "", looking([0], 2)),
        ],
        test,
        SIDES,
    )
    assert found["alignment_error"] == pytest.approx(100 * (1 - 2 * 2 / (2 + 3)))
    wrong = [answer("a b c", "c d e", "", looking([1, 0, 1], 4)), answer("a", "a", "")]
    assert alignment_error(wrong, test, SIDES) == {"alignment_error": 100}


def test_aer_looks_at_words_alone_never_at_the_end():
    alpha = looking([0, 1], 3) * 0.1
    alpha[:, -1] = 0.9
    test = pairs(["a b"], ["c d"], [[[0, 0], [1, 1]]])
    found = alignment_error([answer("a b", "c d", "", alpha)], test, SIDES)
    assert found == {"alignment_error": 0}


def test_without_gold_alignments_or_attention_there_is_no_alignment_error():
    test = pairs(["a"], ["b"])
    assert alignment_error([answer("a", "b", "b", looking([0], 2))], test, SIDES) == {}
    test = pairs(["a"], ["b"], [[[0, 0]]])
    found = measure([[answer("a", "b", "b")]], test, SIDES, GOLD)
    assert "alignment_error" not in found["metrics"]
    assert found["headline"][-1] == "alignment_error"  # one headline for a whole dataset


def test_entropy_is_0_at_one_place_and_log_s_everywhere_alike():
    np.testing.assert_allclose(entropy(np.eye(7)), 0)
    np.testing.assert_allclose(entropy(np.full((3, 5), 0.2)), np.log(5))


def test_diagonality_is_1_on_the_diagonal_and_two_thirds_everywhere_alike():
    np.testing.assert_allclose(diagonality(np.eye(7)), 1)
    spread = diagonality(np.full((200, 100), 0.01)).mean()
    assert spread == pytest.approx(2 / 3, abs=0.001)
    assert diagonality(np.eye(50)[::-1]).mean() == pytest.approx(0.5)


class Looks:
    """A model of two attentions with two heads each, of given alphas; tells `told`."""

    def __init__(self, told, alphas):
        self.told, self.alphas = np.array(told), alphas

    def translate(self, source, length):
        self.length = length
        return self.told

    def alignments(self, source, shifted):
        self.shifted = shifted
        return self.alphas


class Data:
    """Batches of one part, one after the other."""

    def __init__(self, *batches):
        self.batches = batches

    def as_numpy_iterator(self):
        return iter(self.batches)


SOURCE = np.array([[4, 2, 0, 0], [4, 5, 6, 2]], np.int32)
TARGET = np.array([[5, 4, 2], [6, 2, 0]], np.int32)
SHIFTED = np.array([[1, 5, 4], [1, 6, 0]], np.int32)


def test_heads_are_means_over_target_tokens_without_padding():
    alpha = np.random.default_rng(1).dirichlet(np.ones(2), size=(2, 3, 3, 2))[..., 0, :]
    alpha = np.concatenate([alpha, np.zeros((2, 3, 3, 2))], -1)  # (B, H, T, S)
    alpha[1] = np.random.default_rng(2).dirichlet(np.ones(4), size=(3, 3))
    model = Looks([[5, 2], [6, 2]], {"one": alpha, "two": alpha[:, :1]})
    data = Data(((SOURCE, SHIFTED), TARGET, None))
    answers = ask(model, data, np.array([1, 0]), {"longest_target": 16})
    assert model.length == 16
    np.testing.assert_array_equal(answers[1].source, [4, 2])  # the order of the part
    np.testing.assert_array_equal(answers[0].target, [6, 2])
    np.testing.assert_array_equal(answers[0].told, [6])
    every = np.concatenate([alpha, alpha[:, :1]], 1).mean(1)
    np.testing.assert_allclose(answers[0].alpha, every[1, :2])
    np.testing.assert_allclose(answers[1].alpha, every[0, :, :2])
    test = pairs(["a b c", "a"], ["c", "b a"])
    heads = measure([answers], test, SIDES, SPEC)["details"]["heads"]
    assert [(h["attention"], h["head"]) for h in heads] == [
        ("one", 1),
        ("one", 2),
        ("one", 3),
        ("two", 1),
    ]
    rows = [*alpha[0, 1, :, :2], *alpha[1, 1, :2]]
    means = [-(row * np.log(row)).sum() for row in rows]
    assert heads[1]["entropy"] == pytest.approx(np.mean(means))
    sums = diagonality(alpha[0, 1, :, :2]).sum() + diagonality(alpha[1, 1, :2]).sum()
    assert heads[1]["diagonality"] == pytest.approx(sums / 5)


def test_a_translation_may_be_half_as_long_again_and_ten_tokens_longer():
    model = Looks([[5, 2], [6, 2]], {})
    ask(
        model,
        Data(((SOURCE, SHIFTED), TARGET, None)),
        np.arange(2),
        {"longest_target": 99},
    )
    assert model.length == 4 * 3 // 2 + 10


def test_what_is_shown_is_the_models_own_translation_as_it_writes_it():
    model = Looks([[5, 2]], {"one": np.full((1, 2, 2, 2), 0.5)})
    answers = [answer("a", "c d", "b")]
    (one,) = shown(model, answers, pairs(["a"], ["c d"]), SIDES)
    assert (one["source"], one["target"]) == (["▁a", "</s>"], ["▁b", "</s>"])
    assert (one["told"], one["reference"], one["given"]) == ("b", "c d", "a")
    np.testing.assert_array_equal(model.shifted, [[1, 5]])
    assert one["alpha"]["one"].shape == (2, 2, 2)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 1, 4, 3), (1, 1, 3, 4), ()])
def test_alpha_of_another_shape_is_refused(shape):
    model = Looks([], {"one": np.zeros(shape)})
    with pytest.raises(ValueError, match=r"'one' must be \(B, H, T, S\) .* Received: "):
        attention(model, SOURCE, SHIFTED)


def test_alpha_that_is_no_number_is_refused():
    model = Looks([], {"one": np.full((2, 1, 3, 4), np.nan)})
    with pytest.raises(ValueError, match="alpha of 'one' has .* NaN"):
        attention(model, SOURCE, SHIFTED)


@pytest.mark.parametrize("told", [[[5, 2]], [[[5], [2]]] * 2])
def test_tokens_of_other_sentences_than_asked_are_refused(told):
    data = Data(((SOURCE, SHIFTED), TARGET, None))
    with pytest.raises(ValueError, match=r"\(B, L\) of 2 sentences. Received: shape"):
        ask(Looks(told, {}), data, np.arange(2), {"longest_target": 9})
