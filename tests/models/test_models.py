"""Every model builds from its word, learns what it can, and comes back from its file."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import layer_checks
import numpy as np
import pytest
import yaml
from keras import ops
from sklearn.linear_model import Ridge

from engram import models
from engram.tasks import forecasting

ROOT = Path(__file__).parents[2]
SOLVED = {
    "persistence": {},
    "historical_average": {},
    "ridge": {"alpha": [0.01, 10.0]},
}
DEEP = {
    "mlp": {"units": 16},
    "simple_rnn": {"units": 12},
    "gru": {"units": 8},
    "lstm": {"units": 8},
    "stlm": {
        "units": 6,
        "combine": "concat",
        "short_horizon": 4,
        "long_horizon": 24,
    },
}
WORDS = SOLVED | DEEP


def _spec(folder):
    return json.loads((folder / "spec.json").read_text())


def _build(word, folder, **args):
    keras.utils.set_random_seed(1)
    model = models.build(word, _spec(folder), 0.01, **(WORDS[word] | args))
    model.jit_compile = False  # quicker to build than XLA's
    return model


@pytest.fixture(scope="module", params=WORDS)
def fitted(request, pure_sines):
    """Each model in turn, fitted: its word, the model and its losses."""
    model = _build(request.param, pure_sines)
    data = forecasting.batches(pure_sines, "train", batch_size=16, seed=1)
    before = model.evaluate(data, verbose=0)
    held = forecasting.batches(pure_sines, "validation", batch_size=25)
    epochs = 1 if request.param in SOLVED else 4
    model.fit(data, validation_data=held, epochs=epochs, shuffle=False, verbose=0)
    after = model.evaluate(data, verbose=0)
    return request.param, model, before, after


def _inputs(folder, part="test", size=8):
    (inputs, *_), *_ = forecasting.batches(folder, part, size).as_numpy_iterator()
    return inputs


def test_a_forecast_has_a_row_per_step_and_a_column_per_detector(fitted, prepared):
    _, model, *_ = fitted
    assert model.output_shape == (None, 12, 5)
    forecast = model.predict_on_batch(_inputs(prepared, size=3))
    assert forecast.shape == (3, 12, 5)
    assert np.isfinite(forecast).all()


def test_fitting_at_least_halves_the_loss_on_pure_sines(fitted):
    word, _, before, after = fitted
    if word == "persistence":
        assert after == pytest.approx(before, rel=1e-5)  # it has nothing to learn
    else:
        assert after < before / 2


def test_a_model_comes_back_from_its_file_with_equal_forecasts(
    fitted, pure_sines, tmp_path
):
    word, model, *_ = fitted
    model.save(tmp_path / "model.keras")
    again = models.load(word, "forecasting", tmp_path / "model.keras")
    inputs = _inputs(pure_sines)
    expected, found = model(inputs), again(inputs)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)


def test_detectors_share_their_weights_in_deep_models(fitted, prepared):
    word, model, *_ = fitted
    if word not in DEEP:
        pytest.skip("a model with numbers of its own for every detector")
    inputs = _inputs(prepared)
    order = [3, 0, 4, 1, 2]
    forecast = ops.convert_to_numpy(model(inputs))
    permuted = model({**inputs, "readings": inputs["readings"][:, :, order]})
    np.testing.assert_allclose(permuted, forecast[:, :, order], rtol=0, atol=1e-5)
    assert np.abs(forecast - forecast[:, :, order]).max() > 0.01


FRESH = """
import sys
import numpy as np
from engram import models

folder, *words = sys.argv[1:]
inputs = dict(np.load(f"{folder}/inputs.npz"))
for word in words:
    model = models.load(word, "forecasting", f"{folder}/{word}.keras")
    np.save(f"{folder}/{word}.npy", np.asarray(model(inputs)))
    print(word, *sorted(m for m in sys.modules if m.startswith("engram.models.")))
"""


def test_a_fresh_process_loads_a_model_by_its_word_and_no_other_model(
    pure_sines, tmp_path
):
    inputs, expected = _inputs(pure_sines), {}
    np.savez(tmp_path / "inputs.npz", **inputs)
    data = forecasting.batches(pure_sines, "train", batch_size=64)
    for word in ("stlm", "ridge"):
        model = _build(word, pure_sines)
        model.fit(data, validation_data=data, shuffle=False, verbose=0)
        model.save(tmp_path / f"{word}.keras")
        expected[word] = model(inputs)
    run = [sys.executable, "-c", FRESH, str(tmp_path), *expected]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for word, forecast in expected.items():
        again = np.load(tmp_path / f"{word}.npy")
        np.testing.assert_allclose(again, forecast, rtol=0, atol=1e-6)
    common = "engram.models.forecasting"
    assert done.stdout.splitlines() == [
        f"stlm {common} engram.models.stlm",
        f"ridge {common} engram.models.ridge engram.models.stlm",
    ]


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="Received: 'lstn'"):
        models.build("lstn", {}, 0.01)


def test_layers_inside_models_keep_their_arguments():
    from engram.models.historical_average import SlotTable
    from engram.models.ridge import LinearPerDetector

    layer_checks.check_config(SlotTable(48, 5, 12))
    layer_checks.check_config(LinearPerDetector(12))


# --- baselines ------------------------------------------------------------------------


def test_persistence_repeats_the_last_reading(prepared):
    inputs = _inputs(prepared)
    forecast = ops.convert_to_numpy(_build("persistence", prepared)(inputs))
    for p in range(12):
        np.testing.assert_array_equal(forecast[:, p], inputs["readings"][:, -1])


def _average_by_hand(folder):
    """Returns the table `(48, N)` of mean first targets, one reading at a time."""
    spec = _spec(folder)
    _, future, slot = forecasting.windows(folder, spec, "train")
    seen = [[[] for _ in spec["detectors"]] for _ in range(48)]
    for targets, first in zip(future, slot, strict=True):
        for n, reading in enumerate(targets[0]):
            if np.isfinite(reading):
                seen[first][n].append((reading - spec["mean"]) / spec["std"])
    columns = list(zip(*seen, strict=True))
    means = [np.mean(np.concatenate(column)) for column in columns]
    return np.array(
        [[np.mean(x or [means[n]]) for n, x in enumerate(row)] for row in seen]
    )


def _fit_average(folder):
    model = _build("historical_average", folder)
    data = forecasting.batches(folder, "train", batch_size=16, seed=1)
    model.fit(data, shuffle=False, verbose=0)
    return model


def test_historical_average_equals_a_plain_loop(prepared):
    model, table = _fit_average(prepared), _average_by_hand(prepared)
    inputs = _inputs(prepared)
    forecast = ops.convert_to_numpy(model(inputs))
    for row, slot in zip(forecast, inputs["slot"], strict=True):
        wanted = [table[(slot + p) % 48] for p in range(12)]
        np.testing.assert_allclose(row, wanted, rtol=0, atol=1e-5)


def test_historical_average_wraps_at_midnight(prepared):
    model, table = _fit_average(prepared), _average_by_hand(prepared)
    readings = np.zeros((1, 12, 5), np.float32)
    forecast = model({"readings": readings, "slot": np.array([47], np.int32)})
    wanted = table[[47, *range(11)]]
    np.testing.assert_allclose(forecast[0], wanted, rtol=0, atol=1e-5)


def test_historical_average_falls_back_to_the_mean(tmp_path, write_prepared):
    readings = np.random.default_rng(1).normal(60, 5, (90, 2))
    readings[13, 0] = np.nan  # an interval seen by one detector and not by the other
    parts = {"train": [0, 42], "validation": [42, 66], "test": [66, 90]}
    spec = write_prepared(tmp_path, readings, parts=parts, first_slot=0)
    model, table = _fit_average(tmp_path), _average_by_hand(tmp_path)
    scaled = ((readings - spec["mean"]) / spec["std"]).astype(np.float32)
    forecast = model({"readings": scaled[None, :12], "slot": np.array([0], np.int32)})
    for p in range(12):  # slots 0 to 11 are never a target
        np.testing.assert_array_equal(table[p], table[0])
    np.testing.assert_allclose(forecast[0], table[:12], rtol=0, atol=1e-5)
    forecast = model({"readings": scaled[None, :12], "slot": np.array([13], np.int32)})
    assert float(forecast[0, 0, 0]) == pytest.approx(table[0, 0], abs=1e-5)
    assert float(forecast[0, 0, 1]) == pytest.approx(scaled[13, 1], abs=1e-5)


def _windows(folder, part):
    """Returns readings, target and weight of all windows of a part."""
    data = list(forecasting.batches(folder, part, 1000).as_numpy_iterator())
    ((inputs, target, weight),) = data
    return inputs["readings"], target, weight


def test_ridge_equals_scikit_learn_with_the_best_penalty_on_validation(prepared):
    alphas = [0.1, 10.0, 1000.0]
    model = _build("ridge", prepared, alpha=alphas)
    train = forecasting.batches(prepared, "train", batch_size=16, seed=1)
    held = forecasting.batches(prepared, "validation", batch_size=16)
    model.fit(train, validation_data=held, shuffle=False, verbose=0)
    forecast = ops.convert_to_numpy(model(_inputs(prepared)))
    x, y, weight = _windows(prepared, "train")
    held_x, held_y, held_weight = _windows(prepared, "validation")
    test_x = _inputs(prepared)["readings"]
    picked = []
    for n in range(5):
        whole = weight[:, :, n].min(axis=1) == 1
        assert not whole.all()
        errors, answers = [], []
        for alpha in alphas:
            fit = Ridge(alpha=alpha).fit(x[whole, :, n].astype(float), y[whole, :, n])
            known = held_weight[:, :, n] == 1
            errors.append(
                ((fit.predict(held_x[:, :, n]) - held_y[:, :, n])[known] ** 2).sum()
            )
            answers.append(fit.predict(test_x[:, :, n]))
        picked.append(int(np.argmin(errors)))
        wanted = answers[picked[-1]]
        np.testing.assert_allclose(forecast[:, :, n], wanted, rtol=0, atol=1e-4)
        others = [answer for k, answer in enumerate(answers) if k != picked[-1]]
        assert all(np.abs(wanted - other).max() > 0.01 for other in others)


def test_ridge_without_validation_takes_one_penalty_and_refuses_several(prepared):
    train = forecasting.batches(prepared, "train", batch_size=64)
    _build("ridge", prepared, alpha=[1.0]).fit(train, shuffle=False, verbose=0)
    several = _build("ridge", prepared, alpha=[0.1, 1.0])
    with pytest.raises(ValueError, match=r"Received: \[0.1, 1.0\]"):
        several.fit(train, shuffle=False, verbose=0)


# --- missing readings -----------------------------------------------------------------


def _gradient(model, inputs, target, weight):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs, target, model(inputs), weight)
    return loss, tape.gradient(loss, [w.value for w in model.trainable_weights])


@pytest.mark.parametrize("word", ["mlp", "stlm"])
def test_a_missing_target_does_not_change_the_gradient(word, prepared, one_batch):
    inputs, target, weight = one_batch
    model = _build(word, prepared)
    other = np.where(weight == 0, 1000, target)
    assert np.any(other != target)
    _, before = _gradient(model, inputs, target, weight)
    _, after = _gradient(model, inputs, other, weight)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    _, unweighted = _gradient(model, inputs, other, np.ones_like(weight))
    assert np.abs(np.asarray(unweighted[-1] - before[-1])).max() > 0.1


# --- files that mean harm -------------------------------------------------------------


@pytest.mark.parametrize(
    "entry", ["../evil", "/evil", "..\\evil", "C:\\evil", "a/../../e"]
)
def test_an_archive_that_reaches_outside_itself_is_refused(entry, prepared, tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    if entry == "/evil":
        entry = str(tmp_path / "evil")
    path = folder / "model.keras"
    _build("persistence", prepared).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "evil")
    here = set(Path.cwd().iterdir())
    with pytest.raises(ValueError) as raised:
        models.load("persistence", "forecasting", path)
    assert repr(entry) in str(raised.value)
    assert set(tmp_path.rglob("*")) == {folder, path}
    assert set(Path.cwd().iterdir()) == here


@pytest.mark.parametrize("word", ["persistence", "stlm"])
def test_a_file_with_code_in_it_is_refused(word, tmp_path):
    ran = tmp_path / "ran"
    mark = str(ran)
    layer = keras.layers.Lambda(lambda x: (open(mark, "w").close(), x)[1])
    model = keras.Sequential([keras.Input((3,)), layer])
    model.save(tmp_path / "model.keras")
    ran.unlink()  # made as the model was built
    with pytest.raises(ValueError, match="(?i)lambda"):
        models.load(word, "forecasting", tmp_path / "model.keras")
    assert not ran.exists()


# --- a fair comparison ----------------------------------------------------------------


def _datasets():
    """Yields each params file with each of its datasets."""
    for file in ("params.yaml", "studies/traffic/params.yaml"):
        params = yaml.safe_load((ROOT / file).read_text())
        for dataset, block in params["datasets"].items():
            if block["task"] != "forecasting":
                continue
            deep = {
                (one["model"], json.dumps(one["args"]))
                for one in params["experiments"].values()
                if one["dataset"] == dataset and one["model"] in DEEP
            }
            yield pytest.param(block["prepare"], deep, id=f"{file}-{dataset}")


@pytest.mark.parametrize("prepare, deep", list(_datasets()))
def test_deep_models_of_a_dataset_have_parameters_within_5_percent(prepare, deep):
    assert len(deep) == len(DEEP)
    spec = {
        "task": "forecasting",
        "history": prepare["history"],
        "horizon": prepare["horizon"],
        "detectors": ["a", "b"],
        "slots_per_day": 288,
    }
    sizes = {
        word: models.build(word, spec, 0.01, **json.loads(args)).count_params()
        for word, args in deep
    }
    assert max(sizes.values()) <= 1.05 * min(sizes.values()), sizes
