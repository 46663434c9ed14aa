"""Translation: read a sentence in one language, then write it in another.

    prepare   data/raw/<dataset>       -> tokens, vocabularies, text.json, spec.json
    batches   data/prepared/<dataset>  -> tf.data of one part's pairs of sentences
    watch     a model between epochs   -> where attention looks, sentences it writes
    evaluate  models + test part       -> BLEU, chrF, exact sentences, alignment error
    figures   what evaluate found      -> pictures, and alignments as page and numbers

Shapes: `B` sentences, `S` and `T` tokens of a source and a target, `H` heads. A token is
the number of a piece of a vocabulary: 0 is padding, 1 the start, 2 the end, 3 unknown.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# What of `evaluate`'s findings goes into metrics/<experiment>.json.
REPORTED = ("metrics", "std", "headline", "sort_by", "better", "unit", "fingerprint")
SIDES, PARTS = ("source", "target"), ("train", "validation", "test")
PADDING, START, END, UNKNOWN = range(4)
MARK = "▁"  # SentencePiece puts it before a word
WATCHED = (1024, 8)  # tokens that attention is watched at, and sentences that are written
WIDTH = 8  # batches are a multiple of it wide, so that few shapes are compiled
KNOWN = {
    "vocabulary": ("shared", "separate"),
    "kind": ("bpe", "unigram", "word"),
    "tokens": ("plain", "moses"),
}
Pair = dict[str, Any]  # normalised source and target, the target as given, alignment
Rows = list[np.ndarray]  # of each sentence its tokens int32, an end behind them


class DataError(ValueError):
    """Prepared data cannot be made of these sentences, told to their owner."""


def prepare(
    raw: Path, out: Path, vocabulary: str, kind: str, pieces: int, tokens: str
) -> dict[str, Any]:
    """Turns pairs of sentences into tokens; the vocabularies come of the training part.

    Writes `source.npy` and `target.npy`, int32 tokens of all sentences one after the
    other, an end behind each; `{source,target}_offsets.npy`, where each sentence begins;
    `{source,target}.model`, SentencePiece's vocabularies, equal if shared; `text.json`,
    the sentences of validation and test part and their gold alignments; and `spec.json`,
    which it returns. The parts are the dataset's own and follow each other.

    No sentence is cut, however long. A pair of which one side is empty is left out and
    counted in the spec's `left_out`. A character, or a word, that the training part does
    not have is unknown. The spec's `longest_source` and `longest_target` are the greatest
    widths of a batch, in any part.

    Args:
        raw: a TFDS folder with the splits `train`, `validation` and `test`; its examples
            with `source`, `target` and `alignment`, pairs `(source word, target word)`.
        out: folder to write.
        vocabulary: `"shared"` by the languages, or `"separate"`.
        kind: pieces of words, by `"bpe"` or `"unigram"`; or whole words, `"word"`.
        pieces: int, size of each vocabulary, the four special tokens among them.
        tokens: `"plain"`: words stand between spaces, as they are. `"moses"`: lowercased,
            punctuation normalised, cut by Moses' tokenizer without its escapes.

    Raises:
        DataError: if an argument is unknown, `tokens` or `pieces` does not fit the
            sentences, an alignment names a word that is not there, or a part is empty.
    """
    for name, told in {"vocabulary": vocabulary, "kind": kind, "tokens": tokens}.items():
        if told not in KNOWN[name]:
            words = " or ".join(map(repr, KNOWN[name]))
            raise DataError(f"`{name}` must be {words}. Received: {told!r}")
    about, read = _read(raw, tokens)
    kept = {
        part: [pair for pair in pairs if pair["source"] and pair["target"]]
        for part, pairs in read.items()
    }
    if empty := [part for part in PARTS if not kept[part]]:
        raise DataError(
            f"every part needs a pair of sentences that are not empty. Received: none in"
            f" {' and '.join(empty)}"
        )
    learned = _vocabularies(kept["train"], vocabulary, kind, pieces)
    rows = {
        side: encoded([pair[side] for part in PARTS for pair in kept[part]], model)
        for side, model in learned.items()
    }
    text = json.dumps({part: kept[part] for part in PARTS[1:]}, ensure_ascii=False)
    ends = np.cumsum([0, *map(len, kept.values())]).tolist()
    spec = {
        "task": "translation",
        "dataset": out.name,
        **about,
        **{"vocabulary": vocabulary, "kind": kind, "tokens": tokens},
        **{f"{side}_pieces": pieces for side in SIDES},
        **{"start": START, "end": END},
        **{f"longest_{side}": int(_wide(rows[side]).max()) for side in SIDES},
        "parts": {part: ends[n : n + 2] for n, part in enumerate(PARTS)},
        "left_out": {part: len(read[part]) - len(kept[part]) for part in PARTS},
        "fingerprint": _written(out, rows, learned, text),
    }
    (out / "spec.json").write_text(json.dumps(spec, indent=2) + "\n")
    return spec


def _read(raw: Path, tokens: str) -> tuple[dict[str, Any], dict[str, list[Pair]]]:
    """Returns what a dataset says of its languages, and the pairs of each part."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(raw)
    for needed, has in ((SIDES, builder.info.features), (PARTS, builder.info.splits)):
        if missing := [name for name in needed if name not in has]:
            received = ", ".join(has) or "nothing"
            raise DataError(
                f"examples need {' and '.join(missing)}. Received: {received}"
            )
    keys = (*(f"{side}_language" for side in SIDES), "gold_alignments")
    about = {key: builder.info.metadata[key] for key in keys}
    if about["gold_alignments"] and tokens != "plain":
        raise DataError(
            "`tokens` must be 'plain', since the dataset's gold alignments count words"
            f" between spaces. Received: {tokens!r}"
        )
    words = [normaliser(about[f"{side}_language"], tokens) for side in SIDES]
    return about, {
        part: [_pair(example, *words) for example in builder.as_data_source(split=part)]
        for part in PARTS
    }


def _pair(example, of_source: Callable, of_target: Callable) -> Pair:
    given = [example[side] for side in SIDES]
    given = [text.decode() if isinstance(text, bytes) else text for text in given]
    source, target = of_source(given[0]), of_target(given[1])
    links = np.asarray(example["alignment"], int).reshape(-1, 2)
    ends = [len(source.split()), len(target.split())]
    if (links < 0).any() or (links >= ends).any():
        raise DataError(
            f"`alignment` must name words below {ends}, the numbers of words of {given}."
            f" Received: {links.tolist()}"
        )
    return dict(source=source, target=target, given=given[1], alignment=links.tolist())


def normaliser(language: str, tokens: str) -> Callable[[str], str]:
    """Returns a function from a sentence to its words, a space between two.

    SentencePiece's mark is read as `_`.
    """
    if tokens == "plain":
        return lambda text: " ".join(text.replace(MARK, "_").split())
    import sacremoses

    punctuation = sacremoses.MosesPunctNormalizer(language)
    tokenizer = sacremoses.MosesTokenizer(language)

    def normalised(text: str) -> str:
        text = punctuation.normalize(text.lower().replace(MARK, "_"))
        return " ".join(tokenizer.tokenize(text, escape=False))

    return normalised


def _vocabularies(
    pairs: list[Pair], vocabulary: str, kind: str, pieces: int
) -> dict[str, bytes]:
    """Returns SentencePiece's model of each side, learnt from these pairs."""
    if vocabulary == "shared":
        both = [pair[side] for side in SIDES for pair in pairs]
        return dict.fromkeys(SIDES, _learned(both, kind, pieces, "both languages"))
    return {
        side: _learned([pair[side] for pair in pairs], kind, pieces, f"the {side}")
        for side in SIDES
    }


def _learned(sentences: list[str], kind: str, pieces: int, whose: str) -> bytes:
    """Returns SentencePiece's model, the same in every run: one thread, all sentences."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=kind,
            vocab_size=pieces,
            pad_id=PADDING,
            bos_id=START,
            eos_id=END,
            unk_id=UNKNOWN,
            # A whole word that is unknown begins with the mark, as other words do.
            unk_piece=f"{MARK}<unk>" if kind == "word" else "<unk>",
            character_coverage=1.0,
            normalization_rule_name="identity",
            input_sentence_size=0,
            shuffle_input_sentence=False,
            max_sentence_length=1 << 30,  # bytes; longer ones would not be read
            num_threads=1,
            minloglevel=3,  # its error is raised and need not be printed
        )
    except RuntimeError as error:
        if most := re.search(r"to a value <= (\d+)", str(error)):
            limit = f"at most {most[1]}, all that {whose} has in the training part"
        elif least := re.search(r"required_chars. \d+ vs (\d+)", str(error)):
            limit = f"at least {least[1]}: {whose} has so many characters"
        else:
            limit = f"a size that SentencePiece can reach ({error})"
        raise DataError(f"`pieces` must be {limit}. Received: {pieces}") from error
    return model.getvalue()


def encoded(sentences: list[str], model: bytes) -> Rows:
    """Returns the tokens of each sentence, word by word, and an end.

    No piece reaches over the end of a word, not even an unknown one, so that the pieces
    which begin with `MARK` are as many as the words.
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    words = sorted({word for text in sentences for word in text.split()})
    tokens = dict(zip(words, processor.encode(words), strict=True))
    return [
        np.array([*(t for word in text.split() for t in tokens[word]), END], np.int32)
        for text in sentences
    ]


def names(model: bytes) -> list[str]:
    """Returns the pieces of a vocabulary, in the order of their tokens."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(n) for n in range(processor.get_piece_size())]


def sentence(tokens: np.ndarray, pieces: list[str]) -> str:
    """Returns the words that tokens stand for; special ones are not spoken."""
    spoken = "".join(pieces[token] for token in tokens if token > END)
    return " ".join(spoken.replace(MARK, " ").split())


def _written(
    out: Path, rows: dict[str, Rows], learned: dict[str, bytes], text: str
) -> str:
    """Writes tokens, vocabularies and text; returns their fingerprint."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "text.json").write_text(text + "\n", encoding="utf-8")
    seen = hashlib.sha256(text.encode())
    for side in SIDES:
        (out / f"{side}.model").write_bytes(learned[side])
        offsets = np.cumsum([0, *map(len, rows[side])], dtype=np.int64)
        for name, array in (("", np.concatenate(rows[side])), ("_offsets", offsets)):
            np.save(out / f"{side}{name}.npy", array)
            seen.update(array.tobytes())
    return seen.hexdigest()


def batches(
    prepared: Path, part: str, batch_size: int, seed: int | None = None
) -> "tf.data.Dataset":
    """Returns one part's pairs as `((source, shifted), target, weight)`.

        source   int32 (B, S), x_1 .. x_n and the end
        shifted  int32 (B, T), the start and y_1 .. y_m
        target   int32 (B, T), y_1 .. y_m and the end
        weight   float32 (B, T), 1 where a token counts

    Sentences of a batch are of similar length, 0 behind each; `S` and `T` are multiples
    of `WIDTH`.

    Args:
        prepared: folder that `prepare` wrote.
        part: `"train"`, `"validation"`, `"test"` or `"train+validation"`.
        batch_size: int, tokens in a batch, padding included: `B max(S, T)` is at most
            this. A longer sentence makes a batch of its own.
        seed: int or None; if given, every epoch has the batches in another order and
            other sentences of equal length together, in as many batches of equal shapes.
    """
    import tensorflow as tf

    order, cuts, rank = (tf.constant(one) for one in packed(prepared, part, batch_size))
    source, target = (
        tf.RaggedTensor.from_row_lengths(np.concatenate(side), [len(one) for one in side])
        for side in (rows(prepared, name, part) for name in SIDES)
    )
    steps = len(cuts) - 1

    def epoch(number):
        """Draws both orders by the seed and a number that is another in each epoch."""
        key = tf.stack([tf.constant(seed, tf.int64), number])
        ties = tf.random.stateless_uniform(tf.shape(rank), key, dtype=tf.float64)
        mixed = tf.argsort(tf.cast(rank, tf.float64) + ties)
        turns = tf.argsort(tf.random.stateless_uniform((steps,), key + 1))
        taken = tf.data.Dataset.from_tensor_slices(turns)
        return taken.map(lambda turn: mixed[cuts[turn] : cuts[turn + 1]])

    def dense(side, chosen):
        ragged = tf.gather(side, chosen)
        wide = -(-tf.reduce_max(ragged.row_lengths()) // WIDTH) * WIDTH
        return ragged.to_tensor(shape=tf.stack([-1, wide]))

    def filled(chosen):
        x, y = dense(source, chosen), dense(target, chosen)  # (B, S), (B, T)
        first = tf.fill((tf.shape(y)[0], 1), START)
        shifted = tf.concat([first, y[:, :-1]], axis=1)
        counts = y != PADDING
        return (x, tf.where(counts, shifted, PADDING)), y, tf.cast(counts, tf.float32)

    if seed is None:
        data = tf.data.Dataset.range(steps).map(lambda n: order[cuts[n] : cuts[n + 1]])
    else:
        number = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        data = number.flat_map(epoch)
        data = data.apply(tf.data.experimental.assert_cardinality(steps))
    return data.map(filled).prefetch(2)


def rows(prepared: Path, side: str, part: str) -> Rows:
    """Returns the tokens of each of a part's sentences."""
    spec = json.loads((prepared / "spec.json").read_text())
    first = spec["parts"][part.split("+")[0]][0]
    last = spec["parts"][part.split("+")[-1]][1]
    offsets = np.load(prepared / f"{side}_offsets.npy")[first : last + 1]
    tokens = np.load(prepared / f"{side}.npy")[offsets[0] : offsets[-1]]
    return np.split(tokens, offsets[1:-1] - offsets[0])


def packed(
    prepared: Path, part: str, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorts a part's sentences by their widths and cuts them into batches.

    Returns:
        An order of the sentences; the places in it where a batch begins or the last one
        ends; and the rank of each sentence, by which the order is sorted.
    """
    wide = np.stack([_wide(rows(prepared, side, part)) for side in SIDES[::-1]], axis=1)
    rank = np.unique(wide, axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(rank, kind="stable")
    cuts, widest = [0], 0
    for place, size in enumerate(wide[order].max(axis=1)):
        widest = max(widest, size)
        if place > cuts[-1] and (place + 1 - cuts[-1]) * widest > batch_size:
            cuts.append(place)
            widest = size
    return order, np.array([*cuts, len(order)]), rank


def _wide(sentences: Rows) -> np.ndarray:
    """Returns the width of each sentence, a multiple of `WIDTH`."""
    return -(-np.array([len(one) for one in sentences]) // WIDTH) * WIDTH


def watch(
    model: "keras.Model", prepared: Path
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Returns what a model is like between two epochs, by validation sentences.

    Returns:
        Of each head of each attention `entropy/...` and `diagonality/...`, means over
        the target tokens of a batch of middling length; and a table of sentences.
    """
    text = json.loads((prepared / "text.json").read_text(encoding="utf-8"))["validation"]
    order, cuts, _ = packed(prepared, "validation", WATCHED[0])
    middle = (len(cuts) - 1) // 2
    data = batches(prepared, "validation", WATCHED[0]).skip(middle).take(1)
    (((source, shifted), target, _),) = data.as_numpy_iterator()
    sizes = [(side != PADDING).sum(1) for side in (target, source)]  # T, S of each
    seen, steps = {}, int(sizes[0].sum())
    for name, alpha in model.alignments(source, shifted).items():
        own = [a[:, :t, :s] for a, t, s in zip(np.asarray(alpha), *sizes, strict=True)]
        for measure in (entropy, diagonality):
            means = np.sum([measure(a).sum(-1) for a in own], axis=0) / steps  # (H,)
            for head, mean in enumerate(means.tolist(), start=1):
                seen[f"{measure.__name__}/{name}/head_{head}"] = mean
    source = source[: WATCHED[1]]
    spec = json.loads((prepared / "spec.json").read_text())
    told = np.asarray(model.translate(source, longest(source, spec)))
    pieces = names((prepared / "target.model").read_bytes())
    pairs = [text[n] for n in order[cuts[middle] :][: len(source)]]
    table = {side: [pair[side] for pair in pairs] for side in SIDES}
    return seen, {**table, "told": [sentence(row, pieces) for row in told]}


def longest(source: np.ndarray, spec: dict[str, Any]) -> int:
    """Returns how many tokens a translation of a batch `(B, S)` may have."""
    return min(spec["longest_target"], 3 * source.shape[1] // 2 + 10)


def entropy(alpha: np.ndarray) -> np.ndarray:
    """Returns the entropy `(..., T)` of alpha `(..., T, S)`, in nats."""
    alpha = alpha.astype(np.float64)
    return -(alpha * np.log(np.where(alpha > 0, alpha, 1))).sum(-1)


def diagonality(alpha: np.ndarray) -> np.ndarray:
    """Returns how near the diagonal alpha `(..., T, S)` looks, `(..., T)`, 1 if on it."""
    down, across = ((np.arange(n) + 0.5) / n for n in alpha.shape[-2:])
    return 1 - (alpha * np.abs(down[:, None] - across)).sum(-1)


def evaluate(
    models: list["keras.Model"], prepared: Path, fitted: str, batch_size: int = 4096
) -> dict[str, Any]:
    """Returns how well the models (one per seed) translate the test part.

    Of a model are used `translate(source (B, S), length)`, tokens `(B, L)` with 0 behind
    an end, and `alignments(source (B, S), shifted (B, T))`, of each attention's name its
    alpha `(B, H, T, S)`, or nothing of a model that has none. A batch that is `S` wide
    gets a `length` of `3 S / 2 + 10`, and no more than the spec's `longest_target`.

    Args:
        models: one per seed.
        prepared: folder that `prepare` wrote.
        fitted: part that the models were fitted on; not used.
        batch_size: int, tokens in a batch, as of `batches`.

    Returns:
        `metrics` and `std` (mean and deviation over seeds), `details` for comparing and
        drawing; `translation_metrics` defines them.
    """
    from engram.tasks import translation_metrics

    spec = json.loads((prepared / "spec.json").read_text())
    test = json.loads((prepared / "text.json").read_text(encoding="utf-8"))["test"]
    pieces = {side: names((prepared / f"{side}.model").read_bytes()) for side in SIDES}
    order, data = (
        packed(prepared, "test", batch_size)[0],
        batches(prepared, "test", batch_size),
    )
    answers = [translation_metrics.ask(model, data, order, spec) for model in models]
    return {
        **translation_metrics.measure(answers, test, pieces, spec),
        "fingerprint": spec["fingerprint"],
        "spec": spec,
        "shown": translation_metrics.shown(models[0], answers[0], test, pieces),
    }


def figures(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draws what `evaluate` found; returns the files."""
    from engram.tasks import translation_figures

    return translation_figures.draw(found, folder)
