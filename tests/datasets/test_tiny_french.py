"""Tiny French is French, its alignments are right, and what is held out is new."""

import itertools

import pytest
import tensorflow_datasets as tfds

from engram.datasets import mirror, tiny_french
from engram.datasets.french import lexicon
from engram.datasets.french.grammar import Clause, Phrase, translate
from engram.datasets.parallel_text import ParallelTextError
from engram.datasets.tiny_french import SIZES, TinyFrench

ADJECTIVES = [*lexicon.BEFORE, *lexicon.AFTER]
PRONOUNS = {pronoun.english: pronoun for pronoun in lexicon.PRONOUNS}
VOWELS = tuple("aeiouhâéêîœ")
FEMININE = """
    dame reine infirmière fille souris vache abeille chèvre pomme poire orange lettre
    balle fleur clé horloge table chaise boîte maison école île
""".split()
MASCULINE = """
    homme roi boulanger garçon enfant chat chien oiseau cheval âne œuf gâteau livre
    chapeau parapluie tapis lit jardin arbre bateau
""".split()


@pytest.fixture(scope="module")
def made():
    return tiny_french.sentences()


@pytest.fixture(scope="module")
def every(made):
    return [pair for pairs in made.values() for pair in pairs]


def phrase(text):
    """Reads a noun phrase in English: `the small mice`."""
    determiner, *adjectives, name = text.split()
    (noun,) = [n for n in lexicon.NOUNS if name in (n.english, n.englishes)]
    before, after = (
        next((one for one in some if one.english in adjectives), None)
        for some in (lexicon.BEFORE, lexicon.AFTER)
    )
    return Phrase(determiner, noun, name == noun.englishes, before, after)


def say(subject, verb, what="", where=""):
    """Returns the pair of a clause: `say("the cat", "not be", where="on / the mat")`."""
    negated = verb.startswith("not ")
    verb = verb.removeprefix("not ")
    preposition, _, place = where.partition(" / ")
    found = [one for one in lexicon.VERBS if one.english == verb] or [lexicon.BE]
    adjectives = [one for one in ADJECTIVES if one.english == what]
    return translate(
        Clause(
            PRONOUNS.get(subject) or phrase(subject),
            found[0],
            negated,
            adjectives[0] if adjectives else None,
            phrase(what) if what and not adjectives else None,
            preposition,
            phrase(place) if place else None,
        )
    )


TRUTHS = [
    (("the cat", "be", "", "on / the mat"), "le chat est sur le tapis"),
    (("the small cat", "sleep"), "le petit chat dort"),
    (("the small mice", "sleep"), "les petites souris dorment"),
    (("the house", "be", "red"), "la maison est rouge"),
    (("I", "see", "the red house"), "je vois la maison rouge"),
    (("the cat", "not eat", "the cake"), "le chat ne mange pas le gâteau"),
    (("a cat", "not eat", "a cake"), "un chat ne mange pas de gâteau"),
    (("she", "not eat", "a egg"), "elle ne mange pas d' œuf"),
    (("we", "eat", "a blue egg"), "nous mangeons un œuf bleu"),
    (("the bird", "not be", "black"), "l' oiseau n' est pas noir"),
    (("the bee", "be", "black"), "l' abeille est noire"),
    (("the birds", "be", "white"), "les oiseaux sont blancs"),
    (("the mice", "be", "white"), "les souris sont blanches"),
    (("he", "be", "old"), "il est vieux"),
    (("she", "be", "old"), "elle est vieille"),
    (("they", "not be", "happy"), "ils ne sont pas heureux"),
    (("the queens", "be", "happy"), "les reines sont heureuses"),
    (("I", "wait", "", "behind / the tree"), "j' attends derrière l' arbre"),
    (("I", "not wait"), "je n' attends pas"),
    (("I", "not be", "", "in / my school"), "je ne suis pas dans mon école"),
    (("you", "be", "", "in / my old school"), "vous êtes dans ma vieille école"),
    (("we", "be", "", "in front of / the school"), "nous sommes devant l' école"),
    (("the man", "run"), "l' homme court"),
    (("this man", "run"), "cet homme court"),
    (("this old man", "run"), "ce vieil homme court"),
    (("these old men", "run"), "ces vieux hommes courent"),
    (("this lady", "follow", "the beautiful child"), "cette dame suit le bel enfant"),
    (("my bee", "follow", "the beautiful horse"), "mon abeille suit le beau cheval"),
    (("my small bee", "hear", "two horses"), "ma petite abeille entend deux chevaux"),
    (("the boys", "push", "a large tree"), "les garçons poussent un grand arbre"),
    (("the girl", "not want", "a big ball"), "la fille ne veut pas de grosse balle"),
    (("you", "buy", "a pretty blue hat"), "vous achetez un joli chapeau bleu"),
    (("they", "buy", "a pretty blue clock"), "ils achètent une jolie horloge bleue"),
    (("we", "call", "the good dogs"), "nous appelons les bons chiens"),
    (("he", "not call", "the tired goat"), "il n' appelle pas la chèvre fatiguée"),
    (("two kings", "laugh"), "deux rois rient"),
    (("a nurse", "sell", "my grey umbrella"), "une infirmière vend mon parapluie gris"),
    (("the beautiful eggs", "be", "clean"), "les beaux œufs sont propres"),
    (("a green island", "be", "strange"), "une île verte est étrange"),
]


@pytest.mark.parametrize("clause, french", TRUTHS)
def test_the_french_is_what_a_speaker_would_say(clause, french):
    assert say(*clause).target == french


@pytest.mark.parametrize(
    "clause, english",
    [
        (("the cat", "be", "", "on / the mat"), "the cat is on the mat"),
        (("the cats", "not be", "", "in / a bed"), "the cats are not in a bed"),
        (("I", "not be", "", "in front of / a tree"), "I am not in front of a tree"),
        (("a old man", "not see", "a egg"), "an old man does not see an egg"),
        (("these mice", "not eat", "my pear"), "these mice do not eat my pear"),
        (("she", "watch", "a small red apple"), "she watches a small red apple"),
        (("they", "wash", "a orange"), "they wash an orange"),
    ],
)
def test_the_english_is_what_a_speaker_would_say(clause, english):
    assert say(*clause).source == english


def test_every_form_of_a_verb_ends_as_french_verbs_do():
    for verb in lexicon.VERBS:
        assert verb.je.endswith(("e", "s", "x"))
        assert verb.il.endswith(("e", "t", "d"))
        assert verb.nous.endswith("ons") and verb.vous.endswith("ez")
        assert verb.ils.endswith("ent")
        if verb.il.endswith("e"):  # the first group
            assert verb.je == verb.il and verb.ils == f"{verb.il}nt"
    assert lexicon.BE[-5:] == ("suis", "est", "sommes", "êtes", "sont")


def test_the_genders_are_those_of_a_dictionary():
    genders = dict.fromkeys(FEMININE, "f") | dict.fromkeys(MASCULINE, "m")
    assert {noun.french: noun.gender for noun in lexicon.NOUNS} == genders


def roles(words, role):
    """Returns the words of a role and where they are."""
    return [(n, word) for n, (word, other) in enumerate(words) if other == role]


def noun_phrases(pair):
    """Yields each noun, whether it is plural, its role and its phrase in French."""
    nouns = {}
    for noun in lexicon.NOUNS:
        nouns[noun.english] = noun, False
        nouns[noun.englishes] = noun, True
    for role in ("subject", "object", "place"):
        for _, name in roles(pair.english, f"{role} noun"):
            noun, plural = nouns[name]
            yield noun, plural, role, [w for w, r in pair.french if r.startswith(role)]


def test_every_article_agrees_with_its_noun(every):
    articles = {"m": {"un", "mon"}, "f": {"une"}, "plural": {"les", "mes", "ces", "deux"}}
    before = {"m": {"l'", "cet", "d'"}, "f": {"l'", "cette", "mon", "d'"}}
    other = {"m": {"le", "ce", "de"}, "f": {"la", "cette", "ma", "de"}}
    seen = set()
    for pair in every:
        for noun, plural, _, (article, following, *_) in noun_phrases(pair):
            allowed = before if following.startswith(VOWELS) else other
            gender = "plural" if plural else noun.gender
            assert article in articles[gender] | allowed.get(gender, set()), pair.target
            seen.add((article, gender))
    assert len(seen) == 4 + 8 + 8  # every article there is


def test_every_adjective_agrees_with_its_noun(every):
    forms = {one.english: one for one in ADJECTIVES}
    special = {"bel": "beau", "vieil": "vieux"}  # of a single masculine
    for pair in every:
        for noun, plural, role, words in noun_phrases(pair):
            name = words.index(noun.frenches if plural else noun.french)
            described = [(f"{role} first adjective", -1), (f"{role} second adjective", 1)]
            if role == "subject":
                described.append(("adjective", None))
            for place, offset in described:
                for _, english in roles(pair.english, place):
                    one = forms[english]
                    right = {"m": one.m, "f": one.f, "ms": one.ms, "fs": one.fs}
                    ((_, found),) = roles(pair.french, place)
                    if found in special:
                        assert offset == -1 and noun.french.startswith(VOWELS)
                        assert not plural and noun.gender == "m"
                    agreed = right[noun.gender + "s" * plural]
                    assert special.get(found, found) == agreed, pair.target
                    if offset:
                        assert words[name + offset] == found


def test_words_change_before_a_vowel_and_only_there(every):
    short = {"l'", "j'", "n'", "d'", "cet", "bel", "vieil"}
    long = {"le", "la", "je", "ne", "de", "ce", "ma", "beau"}
    for pair in every:
        words = pair.target.split()
        for word, following in itertools.pairwise(words):
            assert word not in short or following.startswith(VOWELS), pair.target
            assert word not in long or not following.startswith(VOWELS), pair.target
        assert words[-1] not in short
        for word, following in itertools.pairwise(pair.source.split()):
            assert (word == "an") == (word in ("a", "an") and following[0] in "aeiou")


def test_the_verb_agrees_with_its_subject_in_both_languages(every):
    be = {"I": "am", "he": "is", "she": "is"}
    third = {verb.english: verb.third for verb in lexicon.VERBS}
    for pair in every:
        ((_, english),) = roles(pair.english, "verb")
        ((_, french),) = roles(pair.french, "verb")
        pronoun = [word for _, word in roles(pair.english, "subject pronoun")]
        plural = not pronoun and next(noun_phrases(pair))[1]
        person = PRONOUNS[pronoun[0]].person if pronoun else [1, 4][plural]
        one = person == lexicon.IL
        if english in ("am", "is", "are"):
            assert english == be.get(pronoun[0] if pronoun else "", ["are", "is"][one])
            assert french == ("suis", "est", "sommes", "êtes", "sont")[person]
            continue
        helped = [word for _, word in roles(pair.english, "auxiliary")]
        assert helped in ([], ["does" if one else "do"])
        base = {v: k for k, v in third.items()} if one and not helped else {}
        (verb,) = [v for v in lexicon.VERBS if v.english == base.get(english, english)]
        assert english == (verb.third if one and not helped else verb.english)
        assert french == verb[-5:][person]


def test_what_is_not_done_is_done_to_nothing_at_all(every):
    for pair in every:
        words = pair.target.split()
        negated = "not" in pair.source.split()
        assert negated == ("pas" in words) == bool({"ne", "n'"} & set(words))
        objects = roles(pair.english, "object determiner")
        if objects and objects[0][1] in ("a", "an"):
            ((_, article),) = roles(pair.french, "object determiner")
            assert article in (("de", "d'") if negated else ("un", "une"))


@pytest.mark.parametrize(
    "clause, alignment",
    [
        (
            # the cat is on the mat | le chat est sur le tapis
            ("the cat", "be", "", "on / the mat"),
            [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)],
        ),
        (
            # the cat does not eat a red apple | le chat ne mange pas de pomme rouge
            ("the cat", "not eat", "a red apple"),
            [(0, 0), (1, 1), (3, 2), (3, 4), (4, 3), (5, 5), (6, 7), (7, 6)],
        ),
        (
            # the small black birds are not in front of my house
            # les petits oiseaux noirs ne sont pas devant ma maison
            ("the small black birds", "not be", "", "in front of / my house"),
            [(0, 0), (1, 1), (2, 3), (3, 2), (4, 5), (5, 4), (5, 6)]
            + [(6, 7), (7, 7), (8, 7), (9, 8), (10, 9)],
        ),
        (
            # I do not wait | je n' attends pas
            ("I", "not wait"),
            [(0, 0), (2, 1), (2, 3), (3, 2)],
        ),
    ],
)
def test_words_that_mean_the_same_are_aligned(clause, alignment):
    assert say(*clause).alignment == alignment


def dictionary():
    """Returns what each English form may be in French, out of the lexicon."""
    known = {name: {*forms, "de", "d'"} for name, forms in lexicon.DETERMINERS.items()}
    known["the"] |= {"l'"}
    known["this"] |= {"cet"}
    known |= {"an": {"un", "une", "de", "d'"}, "not": {"ne", "n'", "pas"}}
    for noun in lexicon.NOUNS:
        known[noun.english] = {noun.french}
        known[noun.englishes] = {noun.frenches}
    for one in ADJECTIVES:
        known[one.english] = {one.m, one.f, one.ms, one.fs}
    known["beautiful"] |= {"bel"}
    known["old"] |= {"vieil"}
    for verb in lexicon.VERBS:
        known[verb.english] = set(verb[-5:])
        known[verb.third] = {verb.il}
    known |= {"am": {"suis"}, "is": {"est"}, "are": {"sommes", "êtes", "sont"}}
    known |= {pronoun.english: {pronoun.french} for pronoun in lexicon.PRONOUNS}
    known["I"] |= {"j'"}
    for english, (french, _) in lexicon.PREPOSITIONS.items():
        known |= {word: known.get(word, set()) | {french} for word in english.split()}
    return known


def test_aligned_words_translate_each_other_and_no_other_word_is_left_out(every):
    known = dictionary()
    for pair in every:
        english, french = pair.source.split(), pair.target.split()
        assert len(english) == len(pair.english) and len(french) == len(pair.french)
        for i, j in pair.alignment:
            assert french[j] in known[english[i]], (pair.source, pair.target)
        left = {
            english[i] for i in set(range(len(english))) - {i for i, _ in pair.alignment}
        }
        assert left <= {"do", "does"}
        assert {j for _, j in pair.alignment} == set(range(len(french)))


def test_the_order_of_words_differs_in_many_sentences(every):
    crossed = [
        pair
        for pair in every
        if any(b > d for (a, b), (c, d) in itertools.pairwise(pair.alignment) if a < c)
    ]
    assert 0.3 < len(crossed) / len(every) < 0.8


def test_the_sentences_are_those_of_every_other_machine(made):
    assert tiny_french.checksum(made) == tiny_french.CHECKSUM


def test_the_parts_are_as_large_as_told_and_share_no_sentence(made, every):
    assert {part: len(pairs) for part, pairs in made.items()} == SIZES
    assert len({pair.source for pair in every}) == sum(SIZES.values())
    assert len({pair.target for pair in every}) == sum(SIZES.values())
    assert max(len(pair.english) for pair in every) == tiny_french.LONGEST
    assert made["train"][0].source == "the cat is on the mat"


def combined(pair):
    """Returns adjective and noun, verb and subject of an English sentence."""
    one = {noun.englishes: noun.english for noun in lexicon.NOUNS}
    one |= {verb.third: verb.english for verb in lexicon.VERBS}
    word = {role: one.get(text, text) for text, role in pair.english}
    said = [("adjective", "subject noun"), ("verb", "subject noun")]
    for role in ("subject", "object", "place"):
        said.append((f"{role} first adjective", f"{role} noun"))
        said.append((f"{role} second adjective", f"{role} noun"))
    found = {(word[a], word[b]) for a, b in said if a in word and b in word}
    return {(a, b) for a, b in found if a not in ("is", "are")}


def test_what_is_held_out_is_a_combination_that_was_never_trained(made):
    trained = set().union(*(combined(pair) for pair in made["train"]))
    new = {
        part: [combined(pair) - trained for pair in made[part]]
        for part in ("validation", "test")
    }
    assert all(some for part in new.values() for some in part)
    validation, test = (set().union(*part) for part in new.values())
    assert not validation & test
    for held in (validation, test):  # of both sorts
        verbs = {verb.english for verb in lexicon.VERBS}
        assert any(a in verbs for a, _ in held) and any(a not in verbs for a, _ in held)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_all_words_and_constructions_of_what_is_held_out_were_trained(made, part):
    def words(pairs, side):
        return {word for pair in pairs for word, _ in pair[side]}

    def orders(pairs, side):  # determiner noun verb ...
        return {tuple(role.split()[-1] for _, role in pair[side]) for pair in pairs}

    for side in (0, 1):
        assert words(made[part], side) <= words(made["train"], side)
        assert orders(made[part], side) <= orders(made["train"], side)


def test_the_whole_lexicon_is_used(made):
    english = {word for pair in made["train"] for word, _ in pair.english}
    assert set(dictionary()) == english - {"do", "does"}


def test_fetched_sentences_come_back_aligned_and_without_a_download(
    made, tmp_path, monkeypatch
):
    monkeypatch.setenv("ENGRAM_MIRROR", str(tmp_path / "no-mirror"))
    builder = TinyFrench(data_dir=tmp_path / "built", file_format="array_record")
    mirror.download_and_prepare(builder, tmp_path / "downloads")
    builder = tfds.builder_from_directory(builder.data_dir)
    assert dict(builder.info.metadata) == {
        "source_language": "en",
        "target_language": "fr",
        "gold_alignments": True,
    }
    for part, pairs in made.items():
        found = list(builder.as_data_source(split=part))
        assert [row["source"].decode() for row in found] == [p.source for p in pairs]
        assert [row["target"].decode() for row in found] == [p.target for p in pairs]
        for row, pair in zip(found, pairs, strict=True):
            assert [tuple(one) for one in row["alignment"]] == pair.alignment


def test_other_sentences_stop_the_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_french, "CHECKSUM", "0" * 64)
    builder = TinyFrench(data_dir=tmp_path / "built", file_format="array_record")
    with pytest.raises(ParallelTextError, match="Expected sha256 0000.* received 05c4"):
        mirror.download_and_prepare(builder, tmp_path / "downloads")
