"""Models of sequences: their heads and losses, and an LSTM with long time scales."""

from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from keras import ops

from engram import models
from engram.models.chrono_lstm import ChronoBias
from engram.tasks.sequences import KINDS

ROOT = Path(__file__).parents[2]

SPEC = {"task": "sequences", "history": 40, "features": 3}
TARGETS = {
    "number": {"target": "number", "classes": None},
    "class": {"target": "class", "classes": 5},
    "each": {"target": "class at each step", "classes": 5},
}
STLM = {"units": 4, "combine": "sum", "short_horizon": 4, "long_horizon": 40}
WORDS = {
    "gru": {"units": 4},
    "lstm": {"units": 4},
    "chrono_lstm": {"units": 4, "horizon": 40},
    "stlm": STLM,
    "parallel_stlm": {**STLM, "depth": 2},
}


def _build(word, target, **changes):
    keras.utils.set_random_seed(1)
    return models.build(word, SPEC | TARGETS[target] | changes, 0.01, **WORDS[word])


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_model_tells_what_the_spec_asks_for(word, target):
    shapes = {"number": (None, 1), "class": (None, 5), "each": (None, 40, 5)}
    model = _build(word, target)
    assert model.input_shape == (None, 40, 3)
    assert model.output_shape == shapes[target]
    assert model.name == word


def test_the_loss_of_numbers_is_their_mean_squared_error():
    model = _build("lstm", "number")
    x, y = np.random.normal(size=(8, 40, 3)), np.random.normal(size=(8, 1))
    expected = np.mean((model.predict(x, verbose=0) - y) ** 2)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", ["class", "each"])
def test_the_loss_of_classes_is_the_mean_cross_entropy_of_the_logits(target):
    model = _build("lstm", target)
    shape = (8, 1) if target == "class" else (8, 40)
    x, y = np.random.normal(size=(8, 40, 3)), np.random.randint(0, 5, shape)
    logits = model.predict(x, verbose=0)
    if target == "class":
        logits = logits[:, None]
    chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(chances, y[..., None], -1).mean()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_long_gradient_is_shortened_to_one_over_all_weights():
    model = _build("lstm", "number")
    assert model.optimizer.global_clipnorm == 1.0


@pytest.mark.parametrize("word", ["chrono_lstm", "parallel_stlm"])
def test_a_saved_model_comes_back_with_the_same_output(word, tmp_path):
    model = _build(word, "number")
    model.save(tmp_path / "model.keras")
    again = models.load(word, "sequences", tmp_path / "model.keras")
    x = np.random.normal(size=(2, 40, 3)).astype("float32")
    np.testing.assert_array_equal(again(x), model(x))


# a fair comparison

SHAPES = {  # steps and features of each way to read
    "sum": lambda fetch: (fetch["steps"], 2),
    "symbols": lambda fetch: (fetch["delay"] + 20, 10),
    "rows": lambda fetch: (28, 28),
    "permuted_pixels": lambda fetch: (784, 1),
}
STUDIES = {
    f"{study}-{name}": (values, name)
    for study in ("long_memory", "sequential_mnist")
    for values in [yaml.safe_load((ROOT / f"studies/{study}/params.yaml").read_text())]
    for name in values["datasets"]
}


@pytest.mark.parametrize("name", STUDIES)
def test_the_models_of_a_dataset_have_parameters_within_5_percent(name):
    values, dataset = STUDIES[name]
    block = values["datasets"][dataset]
    read = block["prepare"]["read"]
    steps, features = SHAPES[read](block["fetch"])
    spec = {"task": "sequences", "history": steps, "features": features, **KINDS[read]}
    sizes = {
        key: models.build(one["model"], spec, 0.01, **one["args"]).count_params()
        for key, one in values["experiments"].items()
        if one["dataset"] == dataset
    }
    assert len(sizes) >= 4
    assert max(sizes.values()) <= 1.05 * min(sizes.values()), sizes
    horizons = {
        one["args"].get("horizon", one["args"].get("long_horizon"))
        for one in values["experiments"].values()
        if one["dataset"] == dataset
    }
    assert len(horizons - {None}) == 1  # the same prior knowledge for all


# chrono initialisation


def test_time_scales_are_uniform_up_to_the_horizon():
    keras.utils.set_random_seed(1)
    units = 20_000
    bias = ops.convert_to_numpy(ChronoBias(200)((4 * units,)))
    i, f, g, o = np.split(bias, 4)
    np.testing.assert_array_equal(i, -f)
    np.testing.assert_array_equal([g, o], 0)
    scales = np.exp(f)  # steps
    assert scales.min() >= 1 and scales.max() <= 200.001
    shares = np.histogram(scales, 10, range=(1, 200))[0] / units
    np.testing.assert_allclose(shares, 0.1, atol=0.01)
    # the forget gate of such a unit keeps about 1/e of a value for that many steps
    gate = 1 / (1 + np.exp(-f[scales > 20]))
    kept = gate ** scales[scales > 20]
    np.testing.assert_allclose(kept, np.exp(-1), atol=0.02)


def test_the_bias_is_in_the_layer_where_keras_has_the_forget_gate():
    model = _build("chrono_lstm", "number")
    (layer,) = [one for one in model.layers if isinstance(one, keras.layers.LSTM)]
    i, f, g, o = np.split(ops.convert_to_numpy(layer.cell.bias), 4)
    assert f.min() >= 0 and f.max() > 1
    np.testing.assert_array_equal(i, -f)
    # a step of zeros keeps sigmoid(b_f) of the memory: b_f is the forget gate's
    memory, zeros = np.ones((1, 4), "float32"), np.zeros((1, 3), "float32")
    _, (_, after) = layer.cell(zeros, [np.zeros((1, 4), "float32"), memory])
    np.testing.assert_allclose(after[0], 1 / (1 + np.exp(-f)), rtol=1e-5)


def test_seeds_repeat_a_draw_and_differ_from_each_other():
    one, again, other = (ChronoBias(50, seed=s)((40,)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_initializer_keeps_its_config():
    initializer = ChronoBias(50, seed=3)
    assert initializer.get_config() == {"horizon": 50, "seed": 3}
    again = keras.initializers.get(keras.initializers.serialize(initializer))
    np.testing.assert_array_equal(again((8,)), initializer((8,)))


def test_a_horizon_below_one_step_is_refused():
    with pytest.raises(ValueError, match="`horizon` must be .* Received: 0.5"):
        ChronoBias(0.5)
