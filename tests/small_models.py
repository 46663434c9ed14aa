"""A small model of each task, of random weights, and the prepared data that it reads."""

import json
from pathlib import Path

import keras
import numpy as np
import toy

from engram import datasets, models, tasks

MODELS = {  # task -> source and model
    "forecasting": ("detector_csv", "gru"),
    "sequences": ("adding", "gru"),
    "video": ("moving_digits", "conv_stlm"),
    "classification": ("digits", "cnn"),
    "density": ("bars_and_stripes", "rbm"),
    "reconstruction": ("digits", "deep_autoencoder"),
    "translation": ("tiny_french", "seq2seq"),
    "generation": ("gaussian_mixture", "mlp_gan"),
    "image_generation": ("digits", "dcgan"),
}
FRENCH = toy.ROOT / "src/engram/datasets/french"


def write(folder: Path, task: str) -> tuple[Path, Path, dict[str, str]]:
    """Writes both; returns the model's file, the prepared folder, and `keep`'s words."""
    source, word = MODELS[task]
    folder.mkdir()
    toy.write_csv(folder / "toy.csv")
    file = folder / "toy.csv" if source == "detector_csv" else FRENCH
    datasets.fetch(source, folder / "raw", file=file, **toy.FETCH.get(source, {}))
    prepared = folder / source
    spec = tasks.task(task).prepare(folder / "raw", prepared, **toy.PREPARE[task])
    model = models.build(word, spec, 0.01, **toy.ARGUMENTS[word])
    scramble(model)
    model.save(folder / "model.keras")
    about = {"task": task, "model": word, "fitted": "train"}
    return folder / "model.keras", prepared, about


def scramble(model: keras.Model) -> None:
    """Gives every weight other numbers, so that no part of a model is without effect."""
    draw = np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype.startswith("float"):
            numbers = draw.normal(0, 0.3, weight.shape)
            weight.assign(numbers if weight.trainable else abs(numbers))  # variances


def specification(prepared: Path) -> dict:
    return json.loads((prepared / "spec.json").read_text())
