"""Models: from a word in `params.yaml` to a compiled `keras.Model`, and back from a file.

Each model is a module of the same name with one function, `build(spec, learning_rate,
**args)`. Only the module of the chosen word is loaded, so that editing one model reruns
that model's experiments and no other.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def build(word: str, spec: dict[str, Any], learning_rate, **args) -> "keras.Model":
    """Returns the compiled model of `word`.

    Args:
        word: name of the model's module.
        spec: contents of the dataset's `spec.json`; sizes come from here.
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        **args: of the model's own `build`.
    """
    return _module(word).build(spec, learning_rate, **args)


def recurrent(
    layer: Callable, spec: dict[str, Any], name: str, learning_rate
) -> "keras.Model":
    """Returns the compiled model of the spec's task around a layer over time.

    Args:
        layer: function of `return_sequences`, a bool, to a layer from `(B, T, F)` to
            `(B, U)`, or to `(B, T, U)` if it is true.
        spec: contents of the dataset's `spec.json`; its task decides inputs, head, loss.
        name: name of the model.
        learning_rate: float or schedule.
    """
    return _of_task(spec["task"]).recurrent(layer, spec, name, learning_rate)


def convolutional(
    layer: Callable, spec: dict[str, Any], name: str, learning_rate
) -> "keras.Model":
    """Returns the compiled model of the spec's task around a layer over images.

    Args:
        layer: function of `return_sequences`, a bool, to a layer from `(B, T, H, W, F)`
            to `(B, H, W, U)`, or to `(B, T, H, W, U)` if it is true.
        spec: contents of the dataset's `spec.json`; its task decides inputs, head, loss.
        name: name of the model.
        learning_rate: float or schedule.

    Raises:
        ValueError: if the task or the dataset has no images.
    """
    if spec["task"] == "video":
        from engram.models import video

        return video.next_frame(layer(return_sequences=True), spec, name, learning_rate)
    if spec["task"] == "forecasting":
        from engram.models import forecasting

        return forecasting.convolutional(layer, spec, name, learning_rate)
    raise ValueError(
        f"model {name!r} needs images: task 'video', or 'forecasting' on a grid."
        f" Received: dataset {spec['dataset']!r} of task {spec['task']!r}"
    )


def of_experiment(
    block: dict[str, Any], spec: dict[str, Any], learning_rate, seed: int
) -> "keras.Model":
    """Returns the compiled model of an experiment, from its stack if it starts with one.

    Args:
        block: of `params.yaml`.
        spec: contents of the dataset's `spec.json`.
        learning_rate: float or schedule.
        seed: of the stack.
    """
    word, stack = block["model"], Path(block["start"])
    model = build(word, spec, learning_rate, **block["args"])
    if stack.name == "pretrained":
        start(word, model, stack / f"seed-{seed}.keras")
    return model


def start(word: str, model: "keras.Model", path: str | Path) -> None:
    """Gives `model` of `word` the weights of the pretrained stack at `path`.

    Raises:
        ValueError: if the stack does not fit, or an entry of the archive lies outside it.
    """
    _refuse_escapes(Path(path))
    _module(word).start(model, path)


def load(word: str, task: str, path: str | Path) -> "keras.Model":
    """Returns the model of `word`, for `task`, saved at `path`; runs no code from it.

    Raises:
        ValueError: if an entry of the archive lies outside it.
    """
    import keras

    _module(word), _of_task(task)  # register their own classes
    _refuse_escapes(Path(path))
    return keras.models.load_model(path, compile=False, safe_mode=True)


def _refuse_escapes(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            entry = PurePosixPath(name.replace("\\", "/"))
            if entry.is_absolute() or ".." in entry.parts or ":" in name:
                raise ValueError(
                    f"{path}: refused, the archive's entry {name!r} lies outside it"
                )


def _of_task(task: str) -> ModuleType:
    """Returns the module of what all models of a task share."""
    if task == "forecasting":
        from engram.models import forecasting

        return forecasting
    if task == "sequences":
        from engram.models import sequences

        return sequences
    if task == "video":
        from engram.models import video

        return video
    if task == "density":
        from engram.models import density

        return density
    if task == "classification":
        from engram.models import classification

        return classification
    if task == "reconstruction":
        from engram.models import reconstruction

        return reconstruction
    if task == "translation":
        from engram.models import translation

        return translation
    if task == "generation":
        from engram.models import generation

        return generation
    if task == "image_generation":
        from engram.models import image_generation

        return image_generation
    raise ValueError(f"`task` must be a task's word. Received: {task!r}")


def _module(word: str) -> ModuleType:
    if word == "persistence":
        from engram.models import persistence

        return persistence
    if word == "historical_average":
        from engram.models import historical_average

        return historical_average
    if word == "ridge":
        from engram.models import ridge

        return ridge
    if word == "mlp":
        from engram.models import mlp

        return mlp
    if word == "simple_rnn":
        from engram.models import simple_rnn

        return simple_rnn
    if word == "gru":
        from engram.models import gru

        return gru
    if word == "lstm":
        from engram.models import lstm

        return lstm
    if word == "chrono_lstm":
        from engram.models import chrono_lstm

        return chrono_lstm
    if word == "stlm":
        from engram.models import stlm

        return stlm
    if word == "parallel_stlm":
        from engram.models import parallel_stlm

        return parallel_stlm
    if word == "last_frame":
        from engram.models import last_frame

        return last_frame
    if word == "conv_lstm":
        from engram.models import conv_lstm

        return conv_lstm
    if word == "conv_stlm":
        from engram.models import conv_stlm

        return conv_stlm
    if word == "rbm":
        from engram.models import rbm

        return rbm
    if word == "deep_net":
        from engram.models import deep_net

        return deep_net
    if word == "very_deep_net":
        from engram.models import very_deep_net

        return very_deep_net
    if word == "cnn":
        from engram.models import cnn

        return cnn
    if word == "residual_cnn":
        from engram.models import residual_cnn

        return residual_cnn
    if word == "pca":
        from engram.models import pca

        return pca
    if word == "deep_autoencoder":
        from engram.models import deep_autoencoder

        return deep_autoencoder
    if word == "transformer":
        from engram.models import transformer

        return transformer
    if word == "seq2seq":
        from engram.models import seq2seq

        return seq2seq
    if word == "mlp_gan":
        from engram.models import mlp_gan

        return mlp_gan
    if word == "dcgan":
        from engram.models import dcgan

        return dcgan
    raise ValueError(f"`model` must be a module of engram.models. Received: {word!r}")
