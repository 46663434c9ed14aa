"""Tiny French: English sentences of a small grammar, each with its French translation.

`french.grammar` tells what they are like. `you` is always `vous`, and `they` always
`ils`. All letters are small but that of `I`; there is no punctuation.

The gold alignment pairs the words of one role: each of `in front of` with `devant`, and
`not` with both `ne` and `pas`. `do` and `does` have no pair.

Of the combinations of an adjective with its noun, and of a verb with the noun that is its
subject, a tenth occur in `validation` alone and a tenth in `test` alone, where every
sentence has at least one. All words, and all orders of classes of words, are in `train`.

The sentences are the same on every machine: they are drawn by the raw bits of PCG64.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from engram.datasets import parallel_text
from engram.datasets.french import lexicon
from engram.datasets.french.grammar import Clause, Pair, Phrase, translate

Bits = np.random.PCG64
Option = TypeVar("Option")

SEED = 1789
SIZES = {"train": 8000, "validation": 500, "test": 500}
LONGEST = 10  # English words
CHECKSUM = "05c48e7fb4b69c5154de595568c675d42b4eb82ce1342c890d4fb218cd647066"

A_THIRD = (True, False, False)
OF_ONE = ("the", "the", "a", "this", "my")
OF_MANY = ("the", "the", "two", "these", "my")
SUBJECTS = {"does": "pca", "is": "pcaftl", "is at": "pcaft"}  # kinds of nouns
ADJECTIVES = [*lexicon.BEFORE, *lexicon.AFTER]
NOUNS = {noun.english: noun for noun in lexicon.NOUNS}
# What is said of nouns, and of which: every tenth diagonal of the table is of a part.
ROWS = [one.english for one in ADJECTIVES] + [one.english for one in lexicon.VERBS]
COLUMNS = list(NOUNS)
DIAGONALS = {0: "validation", 5: "test"}


def choose(bits: Bits, options: Sequence[Option]) -> Option:
    """Draws one of the options, each as likely as another."""
    return options[int(bits.random_raw()) * len(options) >> 64]


def draw(bits: Bits) -> Clause:
    """Draws what a sentence says: what someone does, how something is, or where."""
    frame = choose(bits, ("does", "does", "is", "is at"))
    negated, unnamed, placed = (choose(bits, A_THIRD) for _ in range(3))
    phrase = _draw_phrase(bits, _nouns(SUBJECTS[frame]))
    subject: Phrase | lexicon.Pronoun = phrase
    kind = phrase.noun.kind
    if unnamed:
        known = [one for one in lexicon.PRONOUNS if one.gender or frame != "is"]
        subject, kind = choose(bits, known), "p"
    clause = Clause(subject, lexicon.BE, negated)
    if frame == "is":
        fitting = [one for one in ADJECTIVES if kind in one.of]
        return clause._replace(adjective=choose(bits, fitting))
    if frame == "does":
        verb = choose(bits, lexicon.VERBS)
        what = None if verb.of == "-" else _draw_phrase(bits, _nouns(verb.of))
        clause = clause._replace(verb=verb, object=what)
    if frame == "is at" or placed:
        preposition = choose(bits, list(lexicon.PREPOSITIONS))
        _, places = lexicon.PREPOSITIONS[preposition]
        place = _draw_phrase(bits, [NOUNS[name] for name in places.split()])
        clause = clause._replace(preposition=preposition, place=place)
    return clause


def _nouns(kinds: str) -> list[lexicon.Noun]:
    return [noun for noun in lexicon.NOUNS if noun.kind in kinds]


def _draw_phrase(bits: Bits, nouns: list[lexicon.Noun]) -> Phrase:
    """Draws one of the nouns and what describes it."""
    noun, plural = choose(bits, nouns), choose(bits, A_THIRD)
    determiner = choose(bits, OF_MANY if plural else OF_ONE)
    before, after = (
        choose(bits, [one for one in adjectives if noun.kind in one.of])
        if choose(bits, A_THIRD)
        else None
        for adjectives in (lexicon.BEFORE, lexicon.AFTER)
    )
    return Phrase(determiner, noun, plural, before, after)


def combinations(clause: Clause) -> list[tuple[str, str]]:
    """Returns what is said of which noun: adjectives, and the verb of the subject."""
    found = [
        (adjective.english, phrase.noun.english)
        for phrase in clause
        if isinstance(phrase, Phrase)
        for adjective in (phrase.before, phrase.after)
        if adjective
    ]
    said = clause.adjective or clause.verb
    if isinstance(clause.subject, Phrase) and said is not lexicon.BE:
        found.append((said.english, clause.subject.noun.english))
    return found


def part(clause: Clause) -> str:
    """Returns where a clause belongs; to no part, if its combinations are of two."""
    places = [ROWS.index(a) + COLUMNS.index(b) for a, b in combinations(clause)]
    held = {DIAGONALS[k % 10] for k in places if k % 10 in DIAGONALS}
    return " and ".join(sorted(held)) or "train"


def sentences() -> dict[str, list[Pair]]:
    """Returns the pairs of every part; no English sentence occurs twice."""
    cat, mat = Phrase("the", NOUNS["cat"]), Phrase("the", NOUNS["mat"])
    first = translate(Clause(cat, lexicon.BE, preposition="on", place=mat))
    made: dict[str, list[Pair]] = {"train": [first], "validation": [], "test": []}
    seen, bits = {first.source}, Bits(SEED)
    while any(len(made[name]) < size for name, size in SIZES.items()):
        clause = draw(bits)
        pair, name = translate(clause), part(clause)
        full = name not in SIZES or len(made[name]) == SIZES[name]
        if not full and _is_plain(pair) and pair.source not in seen:
            seen.add(pair.source)
            made[name].append(pair)
    return made


def _is_plain(pair: Pair) -> bool:
    """Returns whether a sentence is short, and says no noun or adjective twice."""
    classes = [(word, role.split()[-1]) for word, role in pair.english]
    said = [word for word, kind in classes if kind in ("noun", "adjective")]
    return len(classes) <= LONGEST and len(said) == len(set(said))


def checksum(made: dict[str, list[Pair]]) -> str:
    """Returns the sha256 of the pairs and their alignments."""
    known = hashlib.sha256()
    for name, pairs in made.items():
        for pair in pairs:
            line = f"{name}\t{pair.source}\t{pair.target}\t{pair.alignment}\n"
            known.update(line.encode())
    return known.hexdigest()


class TinyFrench(parallel_text.ParallelTextBuilder):
    """8,000 pairs of tiny French to train, 500 to choose and 500 to test, aligned.

    Args:
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        ParallelTextError: if this machine draws other sentences than all before.
    """

    DESCRIPTION = "English sentences of a small grammar and their French translations."
    METADATA = {
        "source_language": "en",
        "target_language": "fr",
        "gold_alignments": True,
    }
    url_infos: dict[str, object] = {}  # it downloads nothing

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        made = sentences()
        found = checksum(made)
        if found != CHECKSUM:
            raise parallel_text.ParallelTextError(
                "this machine draws other sentences than every machine before. Expected"
                f" sha256 {CHECKSUM}, received {found}; NumPy {np.__version__}"
            )
        return {name: self._generate_examples(pairs) for name, pairs in made.items()}

    def _generate_examples(
        self, pairs: list[Pair]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from self._examples((p.source, p.target, p.alignment) for p in pairs)
