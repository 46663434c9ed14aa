"""A suite that is done in seconds, and how the tests run its stages."""

import contextlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
WARM = Path(__file__).with_name("warm_python.py")
OWN = ("DVC_", "MLFLOW_", "ENGRAM_", "PYTHONPATH", "GIT_", "RECORD_")

SOLVED = {
    "epochs": 1,
    "batch_size": 64,
    "learning_rate": 0.001,
    "seeds": [1],
    "strategy": "auto",
    "jit_compile": False,
}
TRAINED = {**SOLVED, "learning_rate": [0.001, 0.003], "seeds": [1, 2]}
REFIT = {key: TRAINED[key] for key in ("batch_size", "seeds", "strategy", "jit_compile")}
ARGUMENTS = {  # of each model word
    "persistence": {},
    "historical_average": {},
    "ridge": {"alpha": [1, 10]},
    "mlp": {"units": 3},
    "simple_rnn": {"units": 3},
    "gru": {"units": 3},
    "lstm": {"units": 3},
    "chrono_lstm": {"units": 3, "horizon": 8},
    "parallel_stlm": {
        "units": 3,
        "depth": 2,
        "combine": "concat",
        "short_horizon": 4,
        "long_horizon": 8,
    },
    "stlm": {
        "units": 3,
        "combine": "concat",
        "short_horizon": 2,
        "long_horizon": 8,
    },
}
VIDEO = {
    "last_frame": {},
    "conv_lstm": {"filters": 2, "kernel_size": 3},
    "conv_stlm": {
        "filters": 2,
        "kernel_size": 3,
        "combine": "concat",
        "short_horizon": 4,
        "long_horizon": 8,
    },
}
ARGUMENTS |= VIDEO
IMAGES = {
    "deep_net": {
        "units": [4, 3],
        "activation": "sigmoid",
        "optimizer": "sgd",
        "dropout": 0.1,
        "hidden_rate": 0.5,
        "logits": "zeros",
    },
    "cnn": {
        "filters": [2, 3],
        "kernel_size": 3,
        "units": 4,
        "flip": True,
        "shift": 0.2,
        "dropout": 0.1,
        "optimizer": "adam",
    },
    "residual_cnn": {
        "filters": [2, 3],
        "blocks": 1,
        "flip": True,
        "shift": 0.2,
        "dropout": 0.1,
        "weight_decay": 0.001,
        "optimizer": "sgd",
    },
    "very_deep_net": {
        "depth": 2,
        "width": 4,
        "activation": "relu",
        "initializer": "he_normal",
        "norm": "none",
        "path": "rezero",
        "optimizer": "adam",
        "clipnorm": None,
        "global_clipnorm": 1.0,
    },
}
ARGUMENTS |= IMAGES
DENSITIES = {
    "rbm": {
        "units": 4,
        "method": "cd",
        "k": 1,
        "passes": 2,
        "momentum": 0.5,
        "weight_decay": 0.0,
        "centred": True,
    },
}
ARGUMENTS |= DENSITIES
RECONSTRUCTIONS = {
    "pca": {"units": 3},
    "deep_autoencoder": {"units": [5, 4], "code": 2, "optimizer": "adam"},
}
ARGUMENTS |= RECONSTRUCTIONS
TRANSLATIONS = {
    "transformer": {
        "depth": 1,
        "width": 8,
        "heads": 2,
        "feedforward": 8,
        "norm": "post",
        "dropout": 0.1,
        "smoothing": 0.1,
        "beam": 2,
        "length_penalty": 0.6,
    },
    "seq2seq": {
        "cell": "gru",
        "attention": "bahdanau",
        "units": 4,
        "width": 8,
        "dropout": 0.1,
        "own_words": 0.1,
        "smoothing": 0.1,
        "beam": 1,
        "length_penalty": 0.6,
    },
}
ARGUMENTS |= TRANSLATIONS
GENERATORS = {
    "mlp_gan": {
        "latent": 2,
        "generator": [4, 3],
        "discriminator": [4],
        "pieces": 2,
        "game": "nonsaturating",
        "packing": 2,
        "d_steps": 1,
        "average": 0.9,
        "penalty": 0.1,
        "momentum": 0.5,
        "stddev": 0.02,
    },
}
ARGUMENTS |= GENERATORS
IMAGE_GENERATORS = {
    "dcgan": {
        "latent": 3,
        "filters": [4, 3],
        "kernel_size": 3,
        "norm": "spectral",
        "game": "nonsaturating",
        "packing": 2,
        "d_steps": 1,
        "average": 0.9,
        "penalty": 0.1,
        "momentum": 0.5,
    },
}
ARGUMENTS |= IMAGE_GENERATORS
BY_TOKENS = {**SOLVED, "batch_size": 8192}  # how many tokens are in a batch
FETCH = {  # of each source word that has arguments
    "detector_csv": {
        "interval_minutes": 30,
        "unit": "km/h",
        "missing": [0],
        "first_reading": "00:00",
    },
    "adding": {"steps": 8, "train": 60, "test": 20},
    "copy_memory": {"delay": 3, "train": 60, "test": 20},
    "moving_digits": {"clips": 5},
    "stacked_mnist": {"train": 60, "test": 20},
    "cat_or_not": {"images": "subset"},
    "digits": {"unseen_hands": False},
    "picture_folder": {"side": 8, "colour": True, "test": 0.2},
    "bars_and_stripes": {"size": 3},
    "gaussian_mixture": {"layout": "grid", "train": 640, "held": 128},
    "multi30k": {"language": "fr"},
}
PREPARE = {  # of each task word
    "forecasting": {"history": 4, "horizon": 4, "split": [0.6, 0.2, 0.2]},
    "sequences": {"read": "sum", "validation": 20},
    "video": {"history": 3, "horizon": 2},
    "classification": {"validation": 0, "labelled": 100, "balanced": False},
    "density": {"validation": 0, "flipped": False},
    "reconstruction": {"validation": 100},
    "translation": {
        "vocabulary": "separate",
        "kind": "word",
        "pieces": 60,
        "tokens": "plain",
    },
    "generation": {},
    "image_generation": {"validation": 0, "judge": "digits"},
}


def dataset(file="toy.csv", source="detector_csv", task="forecasting"):
    return {
        "task": task,
        "source": source,
        "file": file,
        "fetch": FETCH.get(source, {}),
        "prepare": PREPARE[task],
    }


def tiny_french():
    return dataset("src/engram/datasets/french", "tiny_french", task="translation")


def experiment(model, train=SOLVED, dataset="toy", start=None, task="forecasting"):
    own = {
        **dict.fromkeys(("stlm", "parallel_stlm", "conv_stlm"), "layers/stlm"),
        **dict.fromkeys(("rbm", "pca"), "layers/rbm"),
        **dict.fromkeys(("transformer", "seq2seq"), "layers/attention"),
        **dict.fromkeys(("cnn", "residual_cnn"), "layers/augmentation.py"),
        "very_deep_net": "layers/rezero.py",
        "dcgan": "models/generation.py",
    }
    return {
        "task": task,
        "dataset": dataset,
        "model": model,
        "layers": f"src/engram/{own.get(model, f'models/{model}.py')}",
        "start": start or f"data/prepared/{dataset}",
        "args": ARGUMENTS[model],
        "train": train,
    }


def stack(model="deep_net", dataset="digits", task="classification"):
    """A pretraining block that fits a model's arguments and `TRAINED`'s seeds."""
    arguments = ARGUMENTS[model]
    code = {key: arguments[key] for key in ("code",) if key in arguments}
    return {
        "task": task,
        "dataset": dataset,
        "stack": {"units": arguments["units"], "visible": "bernoulli", **code},
        "train": {
            "method": "cd",
            "k": 1,
            "epochs": 1,
            "batch_size": 20,
            "learning_rate": 0.1,
            "last_rate": 0.5,
            "momentum": 0.5,
            "weight_decay": 0.0,
            "sample_visible": True,
            "centred": True,
            "look_every": 1,
            "seeds": [1, 2],
            "jit_compile": False,
        },
    }


def cliff():
    """A depth cliff that fits `stack()`'s first width and seeds, and is soon trained."""
    net = ARGUMENTS["very_deep_net"]
    about = ("activation", "initializer", "norm", "path", "clipnorm", "global_clipnorm")
    nets = {key: net[key] for key in about}
    return {
        "dataset": "digits",
        "start": "runs/stack/pretrained",
        "depths": [1],
        "width": 4,
        "nets": {
            "plain": {**nets, "pretrained": False, "learning_rate": [0.1]},
        },
        "train": {
            "epochs": 1,
            "looks": 1,
            "batch_size": 50,
            "optimizer": "sgd",
            "seeds": [1],
        },
    }


def trainability_map():
    """Four nets on the digits, soon trained."""
    return {
        "dataset": "digits",
        "activation": "tanh",
        "width": 4,
        "depths": [1, 2],
        "sigma_w2": [1.0, 2.0],
        "sigma_b2": 0.05,
        "train": {"steps": 2, "batch_size": 10, "learning_rate": 0.1, "seed": 1},
    }


def write_params(
    folder,
    experiments,
    datasets=None,
    reference="persistence",
    pretraining=None,
    depth_cliffs=None,
    trainability_maps=None,
):
    values = {
        "datasets": datasets or {"toy": dataset()},
        "pretraining": pretraining or {},
        "experiments": experiments,
        "depth_cliffs": depth_cliffs or {},
        "trainability_maps": trainability_maps or {},
        "compare": {"reference": reference, "published": []},
    }
    text = yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False)
    (folder / "params.yaml").write_text(text)


def write_csv(path, last_line=None):
    """Five days of four detectors, every 30 minutes: noisy sines with a few gaps."""
    dice, lines = random.Random(1), ["north,east,south,west"]
    for step in range(240):
        row = [
            60 + 20 * math.sin(2 * math.pi * step / 48 + n) + dice.gauss(0, 2)
            for n in range(4)
        ]
        cells = [
            "" if (step + 11 * n) % 37 == 5 else f"{x:.2f}" for n, x in enumerate(row)
        ]
        lines.append(",".join(cells))
    if last_line:  # at the end of the validation part
        lines[191] = last_line
    path.write_text("\n".join(lines) + "\n")


def write_pictures(folder):
    """Twenty pictures of one colour for each of two classes, sides of 8 to 17 pixels."""
    from PIL import Image

    for tint, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for n in range(20):
            colour = (10 * n, 200 * tint, 30)
            Image.new("RGB", (8 + n % 10, 12), colour).save(folder / name / f"{n}.png")


def copy_repository(folder):
    """Copies what a rerun needs of the repository: code, stages, no data, no results."""
    folder.mkdir(parents=True, exist_ok=True)
    caches = shutil.ignore_patterns("__pycache__")
    for name in ("src", "pipeline"):
        shutil.copytree(ROOT / name, folder / name, ignore=caches)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    write_csv(folder / "toy.csv")


def write_dvc_config(folder):
    """Makes `folder` a DVC repository without git."""
    (folder / ".dvc").mkdir()
    quiet = "    analytics = false\n    check_update = false\n"
    (folder / ".dvc/config").write_text(f"[core]\n    no_scm = true\n{quiet}")


def environment(folder, warm=None, **more):
    """The environment of a command that uses the modules and the record in `folder`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OWN)}
    first = [str(warm)] if warm else []
    return {
        **kept,
        "PATH": os.pathsep.join([*first, str(Path(sys.executable).parent), kept["PATH"]]),
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        **{key: str(value) for key, value in more.items()},
    }


def call(command, folder, env, seconds=240):
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=seconds
    )


def stages(folder):
    """Returns what DVC makes of each dvc.yaml: `{suite: {stage: cmd, deps, outs}}`."""
    code = (
        "import collections, json, os; from dvc.repo import Repo\n"
        "found = collections.defaultdict(dict)\n"
        "for s in Repo('.').index.stages:\n"
        "    deps = [d.def_path for d in s.deps if not hasattr(d, 'params')]\n"
        "    outs = [o.def_path for o in s.outs]\n"
        "    about = {'cmd': s.cmd, 'deps': deps, 'outs': outs}\n"
        "    found[os.path.relpath(s.wdir)][s.name] = about\n"
        "print(json.dumps(found))"
    )
    done = call([sys.executable, "-c", code], folder, environment(folder))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def warm_python():
    """Yields a folder for `PATH` whose `python` has TensorFlow imported already."""
    with tempfile.TemporaryDirectory(prefix="warm-") as place:  # short: a socket's name
        bin, address = Path(place), f"{place}/socket"
        script = bin / "python"
        start = f'exec {sys.executable} -S -E {WARM} ask {address} "$@"'
        script.write_text(f"#!/bin/sh\n{start}\n")
        script.chmod(0o755)
        env = environment(bin)
        with (bin / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, str(WARM), "serve", address],
                env={k: v for k, v in env.items() if k != "PYTHONPATH"},
                stdin=subprocess.PIPE,
                stderr=log,
                stdout=log,
            )
        try:
            for _ in range(1200):
                if Path(address).exists():
                    break
                assert server.poll() is None, (bin / "log").read_text()
                time.sleep(0.1)
            yield bin
        finally:
            server.terminate()
            server.communicate()


def arrays(model):
    """Returns all arrays of a model's file, those of its optimizer among them."""
    import h5py

    names: list[str] = []
    with zipfile.ZipFile(model) as file, file.open("model.weights.h5") as inner:
        with h5py.File(inner) as weights:
            weights.visit(names.append)
            found = {name: weights[name] for name in names}
            arrays = {k: one for k, one in found.items() if isinstance(one, h5py.Dataset)}
            return {name: one[()] for name, one in arrays.items()}
