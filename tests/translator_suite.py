"""A suite with two experiments, of which one knows two sentences by heart."""

import json

import keras
import numpy as np
import toy

from engram import models
from engram.tasks import translation

PAIRS = {"the cat sleeps": "le chat dort", "the dogs sleep": "les chiens dorment"}
SPEC = {
    "task": "translation",
    "dataset": "tiny_french",
    "fingerprint": "0123456789abcdef" * 4,
    "source_language": "en",
    "target_language": "fr",
    "vocabulary": "separate",
    "tokens": "plain",
    "source_pieces": 9,  # with the four special ones
    "target_pieces": 10,
    "longest_source": 5,
    "longest_target": 30,
    "start": 1,
    "end": 2,
}
PLACE = {"dataset": "tiny_french", "task": "translation"}
RUN = {"run_id": "f" * 32, "rate": 0.02}


def write(folder):
    """Writes prepared data, params, and one trained model of the seeds 10 and 2."""
    prepared = folder / "data/prepared/tiny_french"
    prepared.mkdir(parents=True)
    (prepared / "spec.json").write_text(json.dumps(SPEC))
    held = [{"source": source, "target": target} for source, target in PAIRS.items()]
    (prepared / "text.json").write_text(json.dumps({"validation": held}))
    rows = {}
    for side, sentences in (("source", [*PAIRS]), ("target", [*PAIRS.values()])):
        model = translation._learned(sentences, "word", SPEC[f"{side}_pieces"], side)
        (prepared / f"{side}.model").write_bytes(model)
        rows[side] = np.stack(translation.encoded(sentences, model))
    experiments = {
        name: toy.experiment("seq2seq", **PLACE) for name in ("trained", "untrained")
    }
    toy.write_params(folder, experiments, {"tiny_french": toy.tiny_french()}, "seq2seq")
    run = folder / "runs/trained"
    (run / "models").mkdir(parents=True)
    learned(**rows).save(run / "models/seed-10.keras")
    (run / "run.json").write_text(json.dumps({"10": RUN, "2": RUN}))


def learned(source, target):
    arguments = toy.ARGUMENTS["seq2seq"] | {"units": 16, "dropout": 0.0, "own_words": 0.0}
    keras.utils.set_random_seed(1)
    model = models.build("seq2seq", SPEC, 0.02, **arguments)
    shifted = np.concatenate([np.ones_like(target[:, :1]), target[:, :-1]], axis=1)
    model.fit((source, shifted), target, epochs=60, verbose=0)
    return model
