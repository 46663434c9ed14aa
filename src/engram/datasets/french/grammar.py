"""From what a sentence says to the sentence in English and in French, word by word.

    the small  mouse  does not eat        a  green apple
    la  petite souris ne   mange  pas     de pomme verte

Article, adjective and verb agree with gender and number; an adjective stands before or
after its French noun; `not` is two words, and `a` is `de` in what is not done. Before a
vowel words change (`l' oiseau`, `le vieil arbre`, `mon école`, `j' attends`); what ends
in an apostrophe is a word of its own.

Every word has a role, such as `object noun`, whose last word is its class. Words of one
role translate each other: `in front of` is `devant`, `not` is both `ne` and `pas`. `do`
and `does` have no counterpart.
"""

from typing import NamedTuple

from engram.datasets.french import lexicon

Words = list[tuple[str, str]]  # of word and role


class Phrase(NamedTuple):
    """A noun and what describes it; `before` and `after` are the places in French."""

    determiner: str
    noun: lexicon.Noun
    plural: bool = False
    before: lexicon.Adjective | None = None
    after: lexicon.Adjective | None = None


class Clause(NamedTuple):
    """What a sentence says, in no language yet."""

    subject: Phrase | lexicon.Pronoun
    verb: lexicon.Verb
    negated: bool = False
    adjective: lexicon.Adjective | None = None  # of `be`
    object: Phrase | None = None
    preposition: str = ""
    place: Phrase | None = None


class Pair(NamedTuple):
    """A sentence in both languages: words and their roles."""

    english: Words
    french: Words

    @property
    def source(self) -> str:
        """The English sentence."""
        return " ".join(word for word, _ in self.english)

    @property
    def target(self) -> str:
        """The French sentence."""
        return " ".join(word for word, _ in self.french)

    @property
    def alignment(self) -> list[tuple[int, int]]:
        """Places of an English word and of a French one that mean the same."""
        return [
            (i, j)
            for i, (_, role) in enumerate(self.english)
            for j, (_, other) in enumerate(self.french)
            if role == other
        ]


def translate(clause: Clause) -> Pair:
    """Returns a clause in both languages."""
    parts = [_subject(clause.subject), _verb(clause)]
    if clause.adjective:
        french = clause.adjective.french(*_agreement(clause.subject))
        parts.append(_one("adjective", clause.adjective.english, french))
    if clause.object:
        parts.append(_phrase("object", clause.object, clause.negated))
    if clause.place:
        french, _ = lexicon.PREPOSITIONS[clause.preposition]
        parts.append(_one("preposition", clause.preposition, french))
        parts.append(_phrase("place", clause.place))
    english, french_words = _joined(parts, parts)
    return Pair(
        _before_vowels(english, {"a": "an"}, lexicon.ENGLISH_VOWELS),
        _before_vowels(french_words, lexicon.BEFORE_A_VOWEL, lexicon.VOWELS),
    )


def _one(role: str, english: str, french: str) -> Pair:
    """Returns the words of one role."""
    return Pair([(word, role) for word in english.split()], [(french, role)])


def _joined(english: list[Pair], french: list[Pair]) -> Pair:
    """Returns the same parts one after the other, in each language's own order."""
    return Pair(
        [word for part in english for word in part.english],
        [word for part in french for word in part.french],
    )


def _before_vowels(words: Words, forms: dict[str, str], vowels: tuple[str, ...]) -> Words:
    following = [word for word, _ in words[1:]] + ["."]
    return [
        (forms.get(word, word) if after.startswith(vowels) else word, role)
        for (word, role), after in zip(words, following, strict=True)
    ]


def _subject(subject: Phrase | lexicon.Pronoun) -> Pair:
    if isinstance(subject, Phrase):
        return _phrase("subject", subject)
    return _one("subject pronoun", subject.english, subject.french)


def _agreement(subject: Phrase | lexicon.Pronoun) -> tuple[str, bool]:
    """Returns the gender, and whether it is plural."""
    if isinstance(subject, Phrase):
        return subject.noun.gender, subject.plural
    return subject.gender, subject.person == lexicon.ILS


def _phrase(role: str, phrase: Phrase, undone: bool = False) -> Pair:
    """Returns a noun phrase; `undone` if it is the object of a negated verb."""
    determiner, noun, plural, before, after = phrase
    article = lexicon.agreeing(lexicon.DETERMINERS[determiner], noun.gender, plural)
    if undone and determiner == "a":
        article = "de"
    start = [_one(f"{role} determiner", determiner, article)]
    if before:
        french = before.french(noun.gender, plural)
        if not plural and noun.french.startswith(lexicon.VOWELS):
            french = lexicon.ONE_BEFORE_A_VOWEL.get(french, french)
        start.append(_one(f"{role} first adjective", before.english, french))
    names = (noun.englishes, noun.frenches) if plural else (noun.english, noun.french)
    name = _one(f"{role} noun", *names)
    if not after:
        return _joined([*start, name], [*start, name])
    french = after.french(noun.gender, plural)
    last = _one(f"{role} second adjective", after.english, french)
    return _joined([*start, last, name], [*start, name, last])


def _verb(clause: Clause) -> Pair:
    verb, subject = clause.verb, clause.subject
    if isinstance(subject, Phrase):
        person = lexicon.ILS if subject.plural else lexicon.IL
    else:
        person = subject.person
    third = person == lexicon.IL
    french = [(verb.french(person), "verb")]
    if clause.negated:
        french = [("ne", "negation"), *french, ("pas", "negation")]
    if clause.negated and verb is not lexicon.BE:
        auxiliary = ("does" if third else "do", "auxiliary")
        return Pair([auxiliary, ("not", "negation"), (verb.english, "verb")], french)
    form = verb.third if third else verb.english
    if verb is lexicon.BE and person == lexicon.JE:
        form = "am"
    negation = [("not", "negation")] if clause.negated else []
    return Pair([(form, "verb"), *negation], french)
