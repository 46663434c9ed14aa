"""Sentences become tokens and batches that lose nothing, and are scored and drawn."""

import itertools
import json
import types

import keras
import numpy as np
import pytest
import sentencepiece
import tensorflow_datasets as tfds
import toy

from engram import models
from engram.tasks import translation
from engram.tasks.translation import (
    END,
    START,
    UNKNOWN,
    DataError,
    batches,
    evaluate,
    figures,
    packed,
    prepare,
)

NOUNS = {"dog": "chien", "cat": "chat", "horse": "cheval", "bird": "oiseau"}
VERBS = {"sees": "voit", "hears": "entend", "likes": "aime"}
SIZES = {"train": 90, "validation": 12, "test": 60}
HOW = {"vocabulary": "separate", "kind": "bpe", "pieces": 40, "tokens": "plain"}
SIZE = {  # of a vocabulary of these words
    ("bpe", "separate"): 40,
    ("bpe", "shared"): 60,
    ("unigram", "separate"): 26,
    ("unigram", "shared"): 36,
    ("word", "separate"): 11,
    ("word", "shared"): 18,
}


def pair(source, target, alignment=()):
    links = np.array(alignment, np.int32).reshape(-1, 2)
    return {"source": source.encode(), "target": target.encode(), "alignment": links}


def drawn(draw):
    """Returns a sentence of one to four animals, and its French word for word."""
    animals = draw.choice(list(NOUNS), draw.integers(1, 5)).tolist()
    verb = draw.choice(list(VERBS))
    english = [animals[0], verb, *animals[1:]]
    french = [NOUNS[animals[0]], VERBS[verb], *(NOUNS[one] for one in animals[1:])]
    return pair(
        " ".join(english), " ".join(french), [[n, n] for n in range(len(english))]
    )


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Returns a function that prepares pairs of sentences; returns their folder."""
    count = itertools.count()

    def make(gold=True, splits=None, name=None, more=(), **how):
        draw = np.random.default_rng(1)
        examples = {
            part: [drawn(draw) for _ in range(size)] for part, size in SIZES.items()
        }
        examples |= splits or {}
        examples["train"] = [*examples["train"], *more]
        info = types.SimpleNamespace(
            features={"source": None, "target": None, "alignment": None},
            splits=examples,
            metadata={
                "source_language": "en",
                "target_language": "fr",
                "gold_alignments": gold,
            },
        )
        builder = types.SimpleNamespace(
            info=info, as_data_source=lambda split: examples[split]
        )
        monkeypatch.setattr(tfds, "builder_from_directory", lambda raw: builder)
        out = tmp_path / (name or f"out{next(count)}")
        prepare(tmp_path, out, **(HOW | how))
        return out

    return make


def spec_of(prepared):
    return json.loads((prepared / "spec.json").read_text())


def text_of(prepared):
    return json.loads((prepared / "text.json").read_text(encoding="utf-8"))


def vocabulary(prepared, side):
    return sentencepiece.SentencePieceProcessor(
        model_proto=(prepared / f"{side}.model").read_bytes()
    )


def spoken(prepared, side, tokens):
    """Returns the text of tokens, by SentencePiece's own hand."""
    return vocabulary(prepared, side).decode([int(token) for token in tokens])


def rows(data, side):
    """Returns the tokens of all sentences of batches, without what is behind them."""
    found = []
    for (source, _), target, _ in data.as_numpy_iterator():
        tokens = {"source": source, "target": target}[side]
        found += [tuple(row[row != 0].tolist()) for row in tokens]
    return found


class Knows:
    """A model that knows the test part by heart, and looks at the word it translates."""

    def __init__(self, prepared, wrong=(), heads=2):
        self.answers, self.heads = {}, heads
        data = batches(prepared, "test", 64)
        sources, targets = rows(data, "source"), rows(data, "target")
        for n, (x, y) in enumerate(zip(sources, targets, strict=True)):
            self.answers[x] = (END,) if n in wrong else y

    def translate(self, source, length):
        found = np.zeros((len(source), length), np.int32)
        for row, x in zip(found, source, strict=True):
            told = self.answers[tuple(x[x != 0].tolist())]
            row[: len(told)] = told
        return found

    def alignments(self, source, shifted):
        alpha = np.zeros((len(source), self.heads, shifted.shape[1], source.shape[1]))
        steps = range(min(alpha.shape[2:]))
        alpha[:, :, steps, steps] = 1
        return {"decoder_1": alpha.astype(np.float32), "decoder_2": alpha}


class Blind(Knows):
    def alignments(self, source, shifted):
        return {}


# prepare


def test_the_parts_are_those_of_the_dataset_and_the_spec_tells_what_later_stages_need(
    made,
):
    out = made(name="animals")
    spec = spec_of(out)
    assert spec["parts"] == {
        "train": [0, 90],
        "validation": [90, 102],
        "test": [102, 162],
    }
    assert (spec["task"], spec["dataset"]) == ("translation", "animals")
    assert (spec["source_language"], spec["target_language"]) == ("en", "fr")
    assert (spec["source_pieces"], spec["target_pieces"]) == (40, 40)
    assert (spec["start"], spec["end"], spec["gold_alignments"]) == (1, 2, True)
    assert spec["left_out"] == dict.fromkeys(SIZES, 0)
    assert len(spec["fingerprint"]) == 64
    text = text_of(out)
    assert {part: len(pairs) for part, pairs in text.items()} == {
        "validation": 12,
        "test": 60,
    }
    assert set(text["test"][0]) == {"source", "target", "given", "alignment"}


@pytest.mark.parametrize("kind, vocabularies", SIZE)
def test_tokens_spell_the_sentences_they_were_made_of(made, kind, vocabularies):
    pieces = SIZE[kind, vocabularies]
    out = made(kind=kind, vocabulary=vocabularies, pieces=pieces)
    same = (out / "source.model").read_bytes() == (out / "target.model").read_bytes()
    assert same == (vocabularies == "shared")
    test = text_of(out)["test"]
    order = packed(out, "test", 64)[0]
    for side in translation.SIDES:
        told = rows(batches(out, "test", 64), side)
        assert all(row[-1] == END and min(row[:-1]) > UNKNOWN for row in told)
        expected = [test[n][side] for n in order]
        assert [spoken(out, side, row[:-1]) for row in told] == expected
        assert vocabulary(out, side).get_piece_size() == pieces


def test_equal_sentences_make_equal_files_and_others_another_fingerprint(made):
    one, again = made(name="a"), made(name="a")
    other = made(name="b", splits={"test": [pair("dog sees cat", "chien voit chat")]})
    assert spec_of(one)["fingerprint"] == spec_of(again)["fingerprint"]
    assert spec_of(one)["fingerprint"] != spec_of(other)["fingerprint"]
    for name in ("source.model", "target.model"):  # of the training part alone
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_what_the_training_part_does_not_have_is_unknown(made):
    test = [pair("zebra yak sees dog", "chien 😀 ü"), pair("dog", "chien")]
    out = made(splits={"test": test}, kind="word", pieces=11)
    (source, *_), (target, *_) = (
        sorted(rows(batches(out, "test", 64), side), key=len, reverse=True)
        for side in translation.SIDES
    )
    # Two unknown words next to each other are two.
    assert [token == UNKNOWN for token in source] == [True, True, False, False, False]
    assert [token == UNKNOWN for token in target] == [False, True, True, False]
    out = made(splits={"test": test})
    (target, *_) = sorted(rows(batches(out, "test", 64), "target"), key=len, reverse=True)
    assert target.count(UNKNOWN) == 2


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word"])
def test_words_and_the_pieces_that_begin_with_the_mark_are_equally_many(made, kind):
    odd = pair("dog▁cat ▁ sees\u00a0 😀😀 <s>", "chien </s> <pad> ▁▁ voit")
    size = SIZE[kind, "separate"]
    out = made(splits={"test": [odd]}, gold=False, kind=kind, pieces=size)
    for side in translation.SIDES:
        pieces = [vocabulary(out, side).id_to_piece(t) for t in range(size)]
        (row,) = rows(batches(out, "test", 64), side)
        begun = sum(pieces[token].startswith("▁") for token in row)
        assert begun == len(text_of(out)["test"][0][side].split(" ")) == 5
        assert min(row[:-1]) >= UNKNOWN  # no special token, whatever the text says


def test_moses_lowercases_and_cuts_off_punctuation(made):
    test = [pair("A man's dog isn't here.", "L'homme n'est pas là; «oui» !")]
    out = made(splits={"test": test}, gold=False, tokens="moses")
    (found,) = text_of(out)["test"]
    assert found["source"] == "a man 's dog isn 't here ."
    assert found["target"] == "l' homme n' est pas là ; \" oui \" !"
    assert found["given"] == "L'homme n'est pas là; «oui» !"


def test_moses_is_refused_where_gold_alignments_count_words_between_spaces(made):
    with pytest.raises(DataError, match="`tokens` must be 'plain', .* Received: 'moses'"):
        made(tokens="moses")


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word"])
def test_more_pieces_than_there_are_is_refused_and_the_limit_is_told(made, kind):
    with pytest.raises(
        DataError, match=r"`pieces` must be at most \d+, all that the source has"
    ) as caught:
        made(kind=kind, pieces=5000)
    assert str(caught.value).endswith("Received: 5000")
    limit = int(str(caught.value).split("at most ")[1].split(",")[0])
    with pytest.raises(DataError, match="at most"):
        made(kind=kind, pieces=limit + 1)
    separate = SIZE[kind, "separate"]
    assert made(kind=kind, pieces=separate) and separate <= limit < 90


def test_fewer_pieces_than_characters_or_special_tokens_is_refused(made):
    with pytest.raises(DataError, match=r"`pieces` must be at least \d+: .* Received: 9"):
        made(pieces=9)
    with pytest.raises(DataError, match=r"`pieces` must be .* Received: 2"):
        made(pieces=2)


@pytest.mark.parametrize("name", ["vocabulary", "kind", "tokens"])
def test_an_unknown_word_for_an_argument_is_refused(made, name):
    with pytest.raises(DataError, match=f"`{name}` must be '.*' or .* Received: 'other'"):
        made(**{name: "other"})


def test_a_pair_with_an_empty_side_is_left_out_and_counted(made):
    empty = [pair("", "chien"), pair("dog", " \t\n"), pair("\u2003", "")]
    out = made(more=empty, splits={"test": [pair("dog", "chien"), empty[0]]})
    spec = spec_of(out)
    assert spec["left_out"] == {"train": 3, "validation": 0, "test": 1}
    assert spec["parts"] == {
        "train": [0, 90],
        "validation": [90, 102],
        "test": [102, 103],
    }
    assert len(text_of(out)["test"]) == 1


@pytest.mark.parametrize("nothing", [[], [pair("", "x")]])
@pytest.mark.parametrize("part", SIZES)
def test_an_empty_part_is_refused(made, tmp_path, part, nothing):
    with pytest.raises(DataError, match=f"not empty. Received: none in {part}"):
        made(splits={part: nothing}, name="out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("links", [[[0, 2]], [[1, 0]], [[-1, 0]]])
def test_an_alignment_with_a_word_that_is_not_there_is_refused(made, links):
    with pytest.raises(DataError, match=r"below \[1, 2\]"):
        made(splits={"test": [pair("dog", "le chien", links)]})


@pytest.mark.parametrize("missing", ["features", "splits"])
def test_examples_of_another_kind_are_refused(monkeypatch, tmp_path, missing):
    info = types.SimpleNamespace(
        features={"source": None, "target": None}, splits={"train": [], "test": []}
    )
    setattr(info, missing, {"image": None})
    builder = types.SimpleNamespace(info=info)
    monkeypatch.setattr(tfds, "builder_from_directory", lambda raw: builder)
    with pytest.raises(DataError, match="examples need .* Received: image"):
        prepare(tmp_path, tmp_path / "out", **HOW)


class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Sentences as a dataset of ours writes them."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {}

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "source": tfds.features.Text(),
                    "target": tfds.features.Text(),
                    "alignment": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
                }
            ),
            metadata=tfds.core.MetadataDict(
                source_language="en", target_language="fr", gold_alignments=True
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(size) for part, size in SIZES.items()}

    def _generate_examples(self, size):
        draw = np.random.default_rng(size)
        for n in range(size):
            one = drawn(draw)
            yield n, {k: v if k == "alignment" else v.decode() for k, v in one.items()}


def test_a_dataset_on_disk_is_read(tmp_path):
    builder = Written(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    spec = prepare(builder.data_dir, tmp_path / "out", **HOW)
    assert spec == spec_of(tmp_path / "out")
    draw = np.random.default_rng(SIZES["test"])
    for one in text_of(tmp_path / "out")["test"]:
        true = drawn(draw)
        assert one["source"] == true["source"].decode()
        assert one["alignment"] == true["alignment"].tolist()


# batches


@pytest.mark.parametrize("batch_size", [40, 64, 4096])
def test_a_batch_shifts_its_target_and_counts_its_tokens(made, batch_size):
    out = made()
    data = batches(out, "train", batch_size)
    (source, shifted), target, weight = data.element_spec
    for one in (source, shifted, target):
        assert (one.shape.as_list(), one.dtype) == ([None, None], "int32")
    assert (weight.shape.as_list(), weight.dtype) == ([None, None], "float32")
    for (x, shifted), y, weight in data.as_numpy_iterator():
        assert (shifted[:, 0] == START).all()
        np.testing.assert_array_equal(weight, y != 0)
        np.testing.assert_array_equal(shifted != 0, y != 0)
        counted = y[:, :-1] * (y[:, 1:] != 0)
        np.testing.assert_array_equal(shifted[:, 1:], counted)
        for tokens in (x, y):
            assert tokens.shape[1] % 8 == 0 and tokens[:, -8:].any()
            ends = (tokens != 0).sum(1) - 1
            np.testing.assert_array_equal(tokens[np.arange(len(x)), ends], END)
        assert len(x) * max(x.shape[1], y.shape[1]) <= batch_size
    spec = spec_of(out)
    assert spec["longest_source"] >= max(x.shape[1] for (x, _), *_ in data)
    assert spec["longest_target"] >= max(y.shape[1] for _, y, _ in data)


def test_batches_lose_no_sentence_and_both_sides_stay_together(made):
    out = made()
    words = {**NOUNS, **VERBS}
    for part, size in SIZES.items():
        data = batches(out, part, 64, seed=1)
        for side in translation.SIDES:
            assert len(rows(data, side)) == size
    for (x, _), y, _ in batches(out, "train", 64, seed=1).as_numpy_iterator():
        for one, other in zip(x, y, strict=True):
            english = spoken(out, "source", one[one > END]).split()
            french = spoken(out, "target", other[other > END])
            assert french == " ".join(words[word] for word in english)


def test_train_and_validation_together_are_the_sentences_of_both(made):
    out = made()
    parts = [rows(batches(out, part, 64), "target") for part in ("train", "validation")]
    whole = rows(batches(out, "train+validation", 64), "target")
    assert sorted(whole) == sorted([*parts[0], *parts[1]])


def test_a_sentence_of_5000_tokens_is_whole_and_makes_a_batch_of_its_own(made):
    long = pair("dog sees " + "cat " * 4997, "chien voit " + "chat " * 4997)
    out = made(more=[long], kind="word", pieces=11)
    shapes = [tuple(x.shape) for (x, _), *_ in batches(out, "train", 64, seed=1)]
    assert [shape for shape in shapes if shape[1] > 8] == [(1, 5000)]
    assert max(map(len, rows(batches(out, "train", 64), "target"))) == 5000
    assert spec_of(out)["longest_source"] == 5000
    assert len(shapes) == len(batches(out, "train", 64))


def test_every_epoch_has_other_batches_of_equal_number_and_shapes(made):
    out = made()

    def epochs(seed, count=3):
        data = batches(out, "train", 64, seed=seed)
        steps = int(data.cardinality())
        found = []
        for _ in range(count):
            batch = [y for _, y, _ in data.as_numpy_iterator()]
            assert len(batch) == steps
            found.append(batch)
        return found

    def told(batch):
        return [sorted(map(tuple, y.tolist())) for y in batch]

    one, again, other = epochs(1), epochs(1), epochs(2)
    for first, second in zip(one, again, strict=True):
        assert [y.tolist() for y in first] == [y.tolist() for y in second]
    plain = [y for _, y, _ in batches(out, "train", 64).as_numpy_iterator()]
    every = [*one, *other, plain]
    orders = [[y.shape for y in batch] for batch in every]
    assert all(sorted(shapes) == sorted(orders[0]) for shapes in orders)
    sentences = [sorted(sum(told(batch), [])) for batch in every]
    assert all(len(of) == 90 and len(of[0]) for of in sentences)
    assert len({tuple(map(str, told(batch))) for batch in every}) == len(every)
    # Not the order of the batches alone: other sentences meet.
    together = [sorted(map(str, told(batch))) for batch in every]
    assert all(a != b for a, b in itertools.combinations(together, 2))


# evaluate and figures


def test_evaluate_scores_the_test_part_and_reports_what_is_kept(made):
    out = made()
    found = evaluate([Knows(out), Knows(out, wrong=range(6))], out, "train")
    assert set(translation.REPORTED) <= set(found)
    assert found["headline"] == ["bleu", "chrf", "exact", "alignment_error"]
    assert (found["sort_by"], found["better"], found["unit"]) == ("bleu", "higher", "")
    first, second = found["per_seed"]
    assert first["bleu"] == pytest.approx(100) and first["exact"] == 100
    assert second["bleu"] < 100 and second["exact"] < 100
    assert found["metrics"]["exact"] == (first["exact"] + second["exact"]) / 2
    assert found["std"]["exact"] > 0
    assert found["fingerprint"] == spec_of(out)["fingerprint"]
    assert "sacrebleu" not in found["metrics"]
    json.dumps(found["details"])


def test_answers_are_in_the_order_of_the_test_part_whatever_the_batches(made):
    out = made()
    few, many = (evaluate([Knows(out)], out, "train", size) for size in (40, 4096))
    assert few["details"]["paired"] == many["details"]["paired"]
    assert few["metrics"] == pytest.approx(many["metrics"])


def test_who_looks_at_the_word_it_translates_makes_no_alignment_error(made):
    out = made(kind="word", pieces=11)  # a token each word
    assert evaluate([Knows(out)], out, "train")["metrics"]["alignment_error"] == 0


def test_words_of_moses_are_scored_as_detokenised_text_too(made):
    test = [pair("The dog's.", "L'homme voit le chien."), pair("A cat!", "C'est lui !")]
    how = {"tokens": "moses", "gold": False, "more": test, "pieces": 60}
    out = made(splits={"test": test}, **how)
    found = evaluate([Knows(out)], out, "train")
    assert found["headline"] == ["bleu", "sacrebleu", "chrf", "exact"]
    assert found["metrics"]["sacrebleu"] == pytest.approx(100)
    signatures = found["details"]["signatures"]
    assert "tok:13a" in signatures["sacrebleu"] and "case:lc" in signatures["sacrebleu"]
    assert "tok:none" in signatures["bleu"]


def test_a_model_that_does_not_attend_has_neither_error_nor_alignments(made, tmp_path):
    out = made()
    found = evaluate([Blind(out)], out, "train")
    assert "alignment_error" not in found["metrics"]
    assert found["details"]["heads"] == []
    names = [file.name for file in figures(found, tmp_path / "pictures")]
    assert names == ["scores_by_length.png"]


def test_watching_tells_where_each_head_looks_and_what_is_written(made):
    out = made(kind="word", pieces=11)  # a token each word

    class Looks(Knows):
        """Head 1 looks at the word it translates, head 2 at all words alike."""

        def translate(self, source, length):
            return np.pad(source, ((0, 0), (0, length - source.shape[1])))

        def alignments(self, source, shifted):
            alpha = super().alignments(source, shifted)["decoder_1"]
            seen = source != 0
            alpha[:, 1] = (seen / seen.sum(1, keepdims=True))[:, None]
            return {"decoder_1": alpha}

    seen, table = translation.watch(Looks(out), out)
    lengths = [len(row) for row in rows(batches(out, "validation", 8192), "target")]
    assert set(seen) == {
        f"{name}/decoder_1/head_{head}"
        for name in ("entropy", "diagonality")
        for head in (1, 2)
    }
    assert seen["entropy/decoder_1/head_1"] == pytest.approx(0, abs=1e-6)
    assert seen["diagonality/decoder_1/head_1"] == pytest.approx(1)
    wanted = np.average(np.log(lengths), weights=lengths)
    assert seen["entropy/decoder_1/head_2"] == pytest.approx(wanted, rel=1e-5)
    assert 1 <= len(table["told"]) <= translation.WATCHED[1]
    known = {pair["source"]: pair["target"] for pair in text_of(out)["validation"]}
    for source, target in zip(table["source"], table["target"], strict=True):
        assert known[source] == target
    numbers = [vocabulary(out, "source").encode(text) for text in table["source"]]
    assert table["told"] == [spoken(out, "target", row) for row in numbers]


def test_watching_draws_none_of_the_numbers_that_training_draws(made):
    out = made()
    (first,) = batches(out, "train", 8192, seed=1).take(1)

    def trained(watched):
        keras.utils.set_random_seed(1)
        args = {**toy.TRANSLATIONS["transformer"], "dropout": 0.3}
        model = models.build("transformer", spec_of(out), 0.01, **args)
        for _ in range(2):
            model.fit(*first[:2], sample_weight=first[2], verbose=0, shuffle=False)
            if watched:
                translation.watch(model, out)
        return model.get_weights()

    for one, other in zip(trained(True), trained(False), strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_findings_make_equal_files(made, tmp_path):
    out = made()
    found = evaluate([Knows(out)], out, "train")
    found["history"] = {"1": {"loss": [3.0, 1.0], "val_loss": [2.0, 1.5]}}
    first, second = (figures(found, tmp_path / name) for name in "ab")
    assert [file.name for file in first] == [
        "scores_by_length.png",
        "loss_curves.png",
        "attention.png",
        "heads.png",
        "alignments.npz",
        "tokens.json",
        "alignments.html",
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
