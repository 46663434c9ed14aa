"""A report on a model of one's own, from Python and from the command line."""

import keras
import numpy as np
import pytest

from engram.gradient_flow import __main__ as command
from engram.gradient_flow import over_time, report, verdict

X = np.random.default_rng(1).normal(size=(16, 20)).astype("float32")
Y = np.arange(16) % 3


def classifier(depth, activation="sigmoid"):
    layers = [
        keras.layers.Dense(20, activation, name=f"hidden_{n}")
        for n in range(1, depth + 1)
    ]
    model = keras.Sequential(
        [keras.Input((20,)), *layers, keras.layers.Dense(3, name="logits")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return model


def test_a_deep_net_of_sigmoids_is_told_to_have_lost_its_gradients():
    told = report.probe(classifier(12), X, Y)
    assert told["depth"] == 13
    assert told["chi"] == pytest.approx(0.0557, rel=0.4)
    assert told["xi"] == pytest.approx(0.35, rel=0.2)
    words = verdict.text(told)
    assert "gradients have vanished: 1e-7" in words
    assert "trainable to about 2 layers" in words
    first, last = told["layers"][0], told["layers"][-2]
    assert first["gradient"] < last["gradient"] - 5
    # the Frobenius norm lies between the top value and its 3-fold, one for each output
    for row in told["layers"][:-1]:
        norm = row["jacobian"] * np.log(10)
        assert row["median_on"] <= row["top_on"] < norm + 0.7
        assert norm < row["top_on"] + np.log(3)


def test_a_deep_net_of_large_weights_is_told_to_explode():
    model = classifier(12, "linear")
    for layer in model.layers[:-1]:
        layer.kernel.assign(3 * layer.kernel)
    words = verdict.text(report.probe(model, X, Y, spectra=False))
    assert "gradients have exploded: 1e5 of the last layer's" in words
    assert "strengthens gradients, |g|^2 times" in words


def test_units_that_are_dead_weights_that_are_frozen_and_a_net_that_is_fine():
    model = classifier(4, "relu")
    model.layers[1].bias.assign(np.full(20, -100.0))
    model.layers[2].trainable = False
    told = report.probe(model, X, Y, spectra=False)
    words = verdict.text(told)
    assert "100% of its units are flat for every row" in words
    assert "no gradient arrives here" in words and "frozen" in words
    assert "hidden_2  fine" in verdict.text(report.probe(classifier(2, "tanh"), X))


def test_a_layer_behind_which_no_gradient_passes_is_not_told_to_be_fine():
    class Stop(keras.layers.Layer):
        def call(self, x):
            return keras.ops.stop_gradient(x)

    first = keras.layers.Dense(4, "tanh", name="unreached")
    model = keras.Sequential([keras.Input((20,)), first, Stop(), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    told = report.probe(model, X, Y, spectra=False)
    assert "unreached  no gradient arrives here" in verdict.text(told)


def test_a_loss_that_is_not_finite_is_said_first():
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    y = np.full((16, 1), np.nan, "float32")
    words = verdict.text(report.probe(model, X, y, spectra=False))
    assert words.startswith("The loss is nan: its gradients tell nothing.")


def test_a_gradient_that_is_no_number_is_not_told_as_none():
    """The root of 0 has an endless slope, ReLU none there: 0 times endless."""

    class Root(keras.layers.Layer):
        def call(self, x):
            return keras.ops.sqrt(keras.ops.relu(x))

    first = keras.layers.Dense(8, name="first", bias_initializer="zeros")
    last = keras.layers.Dense(3, name="last")
    model = keras.Sequential([keras.Input((20,)), first, Root(name="root"), last])
    first.kernel.assign(np.zeros((20, 8)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    told = report.probe(model, X, Y)
    assert np.isfinite(told["loss"])
    words = verdict.text(told)
    assert "first  gradients arrive that are not finite" in words
    assert "arrives" not in words
    assert "last   fine" in words


def test_the_factor_of_a_layer_is_its_norm_and_what_theory_says():
    """Linear: |J|^2 / outputs is |W|^2 / outputs. Wide and random: sigma_w^2 E[f'^2]."""
    inputs, wide = np.random.default_rng(2).normal(size=(64, 512)), 512
    names = ("linear", "tanh")
    layers = [keras.layers.Dense(wide, name, name=name) for name in names]
    model = keras.Sequential([keras.Input((wide,)), *layers])
    for n, layer in enumerate(layers):
        draw = np.random.default_rng(n)
        layer.kernel.assign(draw.normal(0, (1.5 / wide) ** 0.5, (wide, wide)))
    rows = {
        row["layer"]: row for row in report.probe(model, inputs, spectra=False)["layers"]
    }
    whole = float((np.array(layers[0].kernel) ** 2).sum()) / wide
    assert rows["linear"]["chi"] == pytest.approx(whole, rel=0.01)
    z = np.random.default_rng(3).normal(0, 1.5, 100_000)  # variance 1.5 by 1.5
    expected = 1.5 * np.mean(np.cosh(z) ** -4.0)
    assert rows["tanh"]["chi"] == pytest.approx(expected, rel=0.03)


def test_gradients_that_grow_have_no_depth_to_which_nets_train():
    told = {"depth": 9, "chi": 2.0, "xi": 1.443}
    assert verdict.depth_in_words(told).endswith("grows e-fold every 1.44 layers.")
    even = {"depth": 9, "chi": 1.0, "xi": np.inf}
    assert verdict.depth_in_words(even).endswith("trainable to any depth.")


def test_singular_values_of_a_wide_net_are_iterated(monkeypatch):
    model = classifier(2, "tanh")
    (exact, *_) = report.probe(model, X)["layers"]
    monkeypatch.setattr(report, "WIDEST", 2)
    (found, *_) = report.probe(model, X)["layers"]
    assert found["top"] == pytest.approx(exact["top"], abs=1e-3)
    assert found["top_on"] == pytest.approx(exact["top_on"], abs=1e-3)


def test_gradients_of_recurrent_layers_by_lag():
    layer = keras.layers.LSTM(8, return_sequences=True, bias_initializer="zeros")
    sequences = np.random.default_rng(1).normal(size=(4, 30, 2))
    layer(sequences)
    logs = over_time.gradient_by_lag(layer, sequences)
    assert logs.shape == (31, 2)
    assert logs[0].tolist() == [pytest.approx(0, abs=1e-6), -np.inf]
    assert np.isfinite(logs[1:]).all()
    with pytest.raises(ValueError, match="`layer` must be a recurrent .* 'Dense'"):
        over_time.steps(keras.layers.Dense(2), sequences)


def test_the_command_reports_on_a_file(tmp_path, capsys):
    inputs = keras.Input((12, 2), name="series")
    h = keras.layers.GRU(5, name="memory")(inputs)
    keras.Model(inputs, keras.layers.Dense(1)(h)).save(tmp_path / "m.keras")
    np.savez(tmp_path / "d.npz", series=np.ones((9, 12, 2), "float32"), y=np.ones(9))
    command.main([str(tmp_path / "m.keras"), str(tmp_path / "d.npz")])
    out = capsys.readouterr().out
    assert "The model is not compiled" in out
    assert "memory, over time: 12 steps back a gradient has" in out


def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    model, data = tmp_path / "m.keras", tmp_path / "d.npz"

    def said():
        with pytest.raises(SystemExit) as stopped:
            command.main([str(model), str(data)])
        return str(stopped.value)

    assert said() == f"{model}: no such file"
    model.write_bytes(b"no model")
    np.savez(data, z=np.ones((2, 20)))
    assert said().startswith(f"{model}: Keras cannot load it in safe mode: ")
    classifier(1).save(model)
    assert "must have an array for each input" in said() and said().endswith(
        "Received: z"
    )
    np.savez(data, x=np.ones((2, 7), "float32"))
    assert "(2, 7)" in said() and "\n" not in said()
    data.write_bytes(b"no arrays")
    assert said() == f"{data}: not a file of arrays written by np.savez"
    inputs = keras.Input((20,))
    keras.Model(inputs, keras.ops.argmax(inputs, axis=-1)).save(model)
    np.savez(data, x=X)
    assert said().endswith("others have no gradient. Received: int32")
    data.write_bytes(b"no arrays")
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(inputs)).save(model)
    assert "safe mode" in said()
