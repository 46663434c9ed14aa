r"""Errors of translated test sentences, and what attention looked at.

    bleu             BLEU of the words as prepared (`tokenize="none"`), 0 to 100
    sacrebleu        BLEU of detokenised and lowercased text against the text as given
                     (`tokenize="13a"`), 0 to 100; of words that are Moses' alone
    chrf             chrF2 of the words as prepared, 0 to 100
    exact            per cent of the sentences that equal the reference
    alignment_error  AER, per cent; of gold alignments and of models with attention alone

All are of a whole test part; the first three by sacreBLEU (Post 2018), `signatures` among
the details. BLEU is no mean over sentences, so experiments are compared block by block in
`exact`. In `BLEU by length` alone, short sentences count by the n-grams they have.

For AER, attention reads the reference (teacher forcing). Its alpha is that of the steps
which write a target word, mean over the word's pieces, all heads and all attentions; it
is summed over the pieces of each source word, the end left out. The source word with most
of it is linked to the target word. With the links $A$ of all target words that have gold
links $G$ (Och and Ney 2003, all of theirs sure),

$$AER = 100 \Bigl(1 - \frac{2 |A \cap G|}{|A| + |G|}\Bigr).$$

Of each head of the first model, `heads` among the details holds, as means over the target
tokens of the test part (references):

    entropy      $-\sum_s \alpha_{ts} \log \alpha_{ts}$, nats; 0 looks at one token
    diagonality  $1 - \sum_s \alpha_{ts} |(t + 1/2)/T - (s + 1/2)/S|$; 1 looks straight on
"""

from collections.abc import Callable, Iterable
from operator import eq
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from engram.tasks.translation import (
    END,
    MARK,
    PADDING,
    START,
    Pair,
    diagonality,
    entropy,
    longest,
    sentence,
)

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

BLOCK = 10  # test sentences that `compare` draws together
GROUPS = 6  # of sentences by their length
SHOWN = 4  # sentences whose attention is drawn


class Answer(NamedTuple):
    """What a model makes of one sentence."""

    source: np.ndarray  # tokens (S,)
    target: np.ndarray  # tokens (T,) of the reference
    told: np.ndarray  # tokens of the model's translation, without an end
    alpha: np.ndarray | None  # (T, S) as it reads the reference, mean over all heads
    heads: dict[str, np.ndarray]  # of each attention `sums`, (2, H)


def ask(
    model: "keras.Model", data: "tf.data.Dataset", order: np.ndarray, spec: dict[str, Any]
) -> list[Answer]:
    """Returns a model's answer to each sentence of a part.

    The batches are not shuffled; `order` tells which sentence comes after which in them.
    """
    found = []
    for (x, shifted), y, _ in data.as_numpy_iterator():
        told = np.asarray(model.translate(x, longest(x, spec)))  # (B, L)
        if told.ndim != 2 or len(told) != len(x):
            raise ValueError(
                f"`translate` must return tokens (B, L) of {len(x)} sentences."
                f" Received: shape {told.shape}"
            )
        alphas = attention(model, x, shifted)
        for n, tokens in enumerate(told):
            source, target = x[n][x[n] != PADDING], y[n][y[n] != PADDING]
            own = {k: a[n, :, : len(target), : len(source)] for k, a in alphas.items()}
            mean = np.concatenate(list(own.values())).mean(0) if own else None
            heads = {name: sums(alpha) for name, alpha in own.items()}
            found.append(Answer(source, target, ended(tokens), mean, heads))
    return [found[place] for place in np.argsort(order)]


def ended(tokens: np.ndarray) -> np.ndarray:
    """Returns the tokens before the first end or padding."""
    (last,) = np.nonzero(np.isin(tokens, (END, PADDING)))
    return tokens[: last[0]] if len(last) else tokens


def attention(
    model: "keras.Model", source: np.ndarray, shifted: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns alpha `(B, H, T, S)` of each attention; row `t` is that of token `t`."""
    found = model.alignments(source, shifted)
    alphas = {name: np.asarray(alpha) for name, alpha in found.items()}
    for name, alpha in alphas.items():
        expected = (len(source), *alpha.shape[1:2], shifted.shape[1], source.shape[1])
        if alpha.shape != expected:
            raise ValueError(
                f"alpha of {name!r} must be (B, H, T, S) for shapes {source.shape} of"
                f" source and {shifted.shape} of target. Received: shape {alpha.shape}"
            )
        if not np.isfinite(alpha).all():
            raise ValueError(f"alpha of {name!r} has numbers that are NaN or infinite")
    return alphas


def measure(
    answers: list[list[Answer]],
    test: list[Pair],
    pieces: dict[str, list[str]],
    spec: dict[str, Any],
) -> dict[str, Any]:
    """Returns `metrics`, `std` and `details` of each seed's answers to the test part."""
    told = [[sentence(a.told, pieces["target"]) for a in one] for one in answers]
    references = [pair["target"] for pair in test]
    exact = np.array([[*map(eq, one, references)] for one in told], float)  # (seeds, B)
    scores, signatures = zip(*(texts(one, test, spec) for one in told), strict=True)
    rows = [
        {**score, "exact": 100 * float(share), **alignment_error(one, test, pieces)}
        for score, share, one in zip(scores, exact.mean(1), answers, strict=True)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    gold = ["alignment_error"] if spec["gold_alignments"] else []
    published = ["sacrebleu"] if spec["tokens"] == "moses" else []
    return {
        "per_seed": rows,
        "headline": ["bleu", *published, "chrf", "exact", *gold],
        "sort_by": "bleu",
        "better": "higher",
        "unit": "",
        "metrics": {name: float(np.mean(of)) for name, of in columns.items()},
        "std": {name: deviation(of) for name, of in columns.items()},
        "details": {
            "curves": by_length(told, exact, test),
            "paired": paired(exact),
            "signatures": signatures[0],
            "heads": heads(answers[0]),
        },
    }


def deviation(values: list[float]) -> float | None:
    """Returns the standard deviation over seeds, if there are several."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def detokeniser(spec: dict[str, Any]) -> Callable[[str], str]:
    """Returns a function from words as prepared to text as people write it."""
    if spec["tokens"] == "plain":
        return str
    import sacremoses

    moses = sacremoses.MosesDetokenizer(spec["target_language"])
    return lambda text: moses.detokenize(text.split(), unescape=False)


def texts(
    told: list[str], test: list[Pair], spec: dict[str, Any]
) -> tuple[dict[str, float], dict[str, str]]:
    """Returns BLEU and chrF of one seed's sentences, and sacreBLEU's signatures."""
    references = [pair["target"] for pair in test]
    pairs = {
        "bleu": (BLEU(tokenize="none", force=True), told, references),
        "chrf": (CHRF(), told, references),
    }
    if spec["tokens"] == "moses":
        plain = list(map(detokeniser(spec), told))
        given = [pair["given"] for pair in test]
        pairs["sacrebleu"] = (BLEU(tokenize="13a", lowercase=True), plain, given)
    scores = {
        name: float(metric.corpus_score(ours, [theirs]).score)
        for name, (metric, ours, theirs) in pairs.items()
    }
    said = {name: str(metric.get_signature()) for name, (metric, *_) in pairs.items()}
    return scores, said


def by_length(
    told: list[list[str]], exact: np.ndarray, test: list[Pair]
) -> list[dict[str, Any]]:
    """Returns BLEU and exact sentences by the length of the source, mean over seeds."""
    words = np.array([len(pair["source"].split()) for pair in test])
    edges = np.unique(np.quantile(words, np.linspace(0, 1, GROUPS + 1)[1:-1]))
    group = np.digitize(words, edges)
    members = [np.flatnonzero(group == one) for one in np.unique(group)]
    bleu = BLEU(tokenize="none", force=True, effective_order=True)

    def score(one: list[str], rows: np.ndarray) -> float:
        references = [test[n]["target"] for n in rows]
        return float(bleu.corpus_score([one[n] for n in rows], [references]).score)

    axes = {
        "x_label": "words of the source, mean of a group",
        "x": [float(words[rows].mean()) for rows in members],
    }
    means = [float(np.mean([score(one, rows) for one in told])) for rows in members]
    shares = [100 * float(exact[:, rows].mean()) for rows in members]
    return [
        {"title": "BLEU by length", "y_label": "BLEU", "y": means, **axes},
        {"title": "Exact sentences by length", "y_label": "% exact", "y": shares, **axes},
    ]


def paired(exact: np.ndarray) -> dict[str, Any]:
    """Returns exact sentences `(seeds, B)`, in per cent, summed over blocks of them."""
    starts = np.arange(0, exact.shape[1], BLOCK)
    return {
        "metric": "exact",
        "kind": "mean",
        "unit_of_resampling": f"{BLOCK} test sentences",
        "count": np.add.reduceat(np.ones_like(exact[0], int), starts).tolist(),
        "sum": np.add.reduceat(100 * exact, starts, axis=1).tolist(),
    }


def alignment_error(
    answers: Iterable[Answer], test: list[Pair], pieces: dict[str, list[str]]
) -> dict[str, float]:
    """Returns AER in per cent, or nothing without gold alignments or attention."""
    common = links = 0
    for answer, pair in zip(answers, test, strict=True):
        gold = {(source, target) for source, target in pair["alignment"]}
        if answer.alpha is not None and gold:
            source = words(answer.source, pieces["source"])
            target = words(answer.target, pieces["target"])
            chosen = by_words(answer.alpha, source, target).argmax(1)
            ours = {(int(chosen[t]), t) for t in {t for _, t in gold}}
            common, links = common + len(ours & gold), links + len(ours) + len(gold)
    return {"alignment_error": 100 * (1 - 2 * common / links)} if links else {}


def words(tokens: np.ndarray, pieces: list[str]) -> np.ndarray:
    """Returns the word, counted from 0, of each token but the end."""
    return np.cumsum([pieces[token].startswith(MARK) for token in tokens[:-1]]) - 1


def by_words(alpha: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns alpha of words `(target words, source words)` from that of tokens `(T, S)`.

    `source` and `target` are the `words` of the tokens.
    """
    of_source = np.eye(source[-1] + 1)[source]  # (S - 1, source words)
    of_target = np.eye(target[-1] + 1)[target]  # (T - 1, target words)
    summed = alpha[:-1, :-1].astype(np.float64) @ of_source
    return (of_target / of_target.sum(0)).T @ summed


def sums(alpha: np.ndarray) -> np.ndarray:
    """Returns entropy and diagonality of heads, summed over their steps, `(2, H)`."""
    return np.stack([entropy(alpha).sum(1), diagonality(alpha).sum(1)])


def heads(answers: list[Answer]) -> list[dict[str, Any]]:
    """Returns entropy and diagonality of each head, means over all target tokens."""
    steps = sum(len(answer.target) for answer in answers)
    found = []
    for name in answers[0].heads:
        means = np.sum([answer.heads[name] for answer in answers], axis=0) / steps
        for head, (spread, straight) in enumerate(means.T.tolist(), start=1):
            about = {"entropy": spread, "diagonality": straight}
            found.append({"attention": name, "head": head, **about})
    return found


def shown(
    model: "keras.Model",
    answers: list[Answer],
    test: list[Pair],
    pieces: dict[str, list[str]],
) -> list[dict[str, Any]]:
    """Returns where a model looks as it translates a few sentences of middling length."""
    lengths = np.array([len(answer.source) for answer in answers])
    low, high = np.quantile(lengths, [0.25, 0.75], method="nearest")
    (middling,) = np.nonzero((lengths >= low) & (lengths <= high))
    spread = np.unique(np.linspace(0, len(middling) - 1, SHOWN).astype(int))
    found = []
    for n in middling[spread].tolist():
        source, told = answers[n].source, answers[n].told
        shifted = np.array([START, *told], np.int32)
        alphas = attention(model, source[None], shifted[None])
        one: dict[str, Any] = {
            "alpha": {name: alpha[0] for name, alpha in alphas.items()}
        }
        one["source"] = [pieces["source"][token] for token in source]
        one["target"] = [pieces["target"][token] for token in (*told, END)]
        one["given"], one["reference"] = test[n]["source"], test[n]["target"]
        found.append({**one, "told": sentence(told, pieces["target"])})
    return found
