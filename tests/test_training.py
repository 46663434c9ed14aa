"""Training repeats itself, keeps the best epoch, and is the same under a strategy."""

import contextlib
import functools
import json
import os
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from engram import callbacks, distribution, memory, models, stops, training
from engram.tasks import forecasting

STLM = {
    "units": 4,
    "combine": "weighted",
    "short_horizon": 4,
    "long_horizon": 24,
}


@pytest.fixture(autouse=True)
def undo_determinism():
    """Switches off what `train` switches on for the rest of its process."""
    yield
    from tensorflow.python.framework.config import disable_op_determinism

    disable_op_determinism()


def _settings(**changes):
    """Returns settings for a quick run on the training part."""
    usual = {
        "parts": ("train", "validation"),
        "rates": [0.01],
        "epochs": 2,
        "stop_after": 2,
        "jit_compile": False,
        "strategy": "one_device",
    }
    return training.Settings(**(usual | changes))


class Recorder:
    """Keeps what a tracker would be told."""

    def __init__(self):
        self.runs = []

    @contextlib.contextmanager
    def __call__(self, seed, rate, kept=None):
        run = types.SimpleNamespace(seed=seed, rate=rate, points=[])
        self.runs.append(run)
        yield f"run {len(self.runs)}", lambda *point, **how: run.points.append(point)


def _train(folder, how, seeds=(1,), word="mlp", batch_size=16, recorder=None, **args):
    spec = json.loads((folder / "spec.json").read_text())
    args = args or (STLM if word == "stlm" else {"units": 8})

    def build(learning_rate, seed):
        return models.build(word, spec, learning_rate, **args)

    batches = functools.partial(forecasting.batches, folder, batch_size=batch_size)
    return training.train(build, batches, how, list(seeds), recorder or Recorder())


def _steps(trained):
    return int(tf.convert_to_tensor(trained.model.optimizer.iterations.value))


def _differ(one, other):
    pairs = zip(one.model.get_weights(), other.model.get_weights(), strict=True)
    return [bool(np.any(a != b)) for a, b in pairs]


@pytest.fixture(scope="module")
def short_windows(tmp_path_factory, write_prepared):
    """Windows of 4 + 4 readings, quick to compile: 140 to train on, 42 to validate."""
    draw = np.random.default_rng(1)
    day = 2 * np.pi * np.arange(244)[:, None] / 48
    readings = 60 + 20 * np.sin(day + np.arange(3)) + draw.normal(0, 4, (244, 3))
    readings[draw.random(readings.shape) < 0.02] = np.nan
    folder = tmp_path_factory.mktemp("short_windows")
    parts = {"train": [0, 147], "validation": [147, 196], "test": [196, 244]}
    write_prepared(folder, readings, parts, history=4, horizon=4)
    return folder


@pytest.mark.parametrize("jit_compile", [False, True])
def test_equal_seeds_train_equal_weights_bit_for_bit(short_windows, jit_compile):
    how = _settings(jit_compile=jit_compile)
    (one,) = _train(short_windows, how, word="stlm", batch_size=14)
    (again,) = _train(short_windows, how, word="stlm", batch_size=14)
    assert one.model.jit_compile is jit_compile
    assert not any(_differ(one, again))
    assert one.history == again.history


def test_a_seed_trains_the_same_whichever_seeds_came_before(prepared):
    first, second = _train(prepared, _settings(), (1, 2))
    (alone,) = _train(prepared, _settings(), (2,))
    assert not any(_differ(second, alone))
    assert all(_differ(first, second))


def test_windows_come_in_another_order_in_every_epoch_and_for_every_seed(prepared):
    def slots(data):
        return np.concatenate([given["slot"] for given, *_ in data.as_numpy_iterator()])

    data = forecasting.batches(prepared, "train", batch_size=16, seed=1)
    first, second = slots(data), slots(data)
    other = slots(forecasting.batches(prepared, "train", batch_size=16, seed=2))
    assert np.any(first != second) and np.any(first != other)
    np.testing.assert_array_equal(np.sort(first), np.sort(second))


def test_the_weights_of_the_best_epoch_are_kept(prepared):
    how = _settings(rates=[0.2], epochs=100, stop_after=6)  # too high to settle
    (one,) = _train(prepared, how)
    losses = one.history["val_loss"]
    assert len(losses) == 6
    assert one.best_epoch == 1 + int(np.argmin(losses))
    assert losses[-1] > 1.001 * min(losses), "the last epoch is the best: a weak test"
    held = forecasting.batches(prepared, "validation", batch_size=16)
    assert one.model.evaluate(held, verbose=0) == pytest.approx(min(losses), rel=1e-5)


def _weights_by_epoch(folder, **changes):
    """Trains as `changes` say; returns what it gives and the weights after each epoch."""
    seen = []

    def watch(model):
        seen.append(model.get_weights())
        return {"largest": float(np.abs(seen[-1][0]).max())}, {"word": ["one", "two"]}

    recorder = Recorder()
    spec = json.loads((folder / "spec.json").read_text())

    def build(learning_rate, seed):
        return models.build("mlp", spec, learning_rate, units=8)

    batches = functools.partial(forecasting.batches, folder, batch_size=16)
    how = _settings(rates=[0.02], epochs=5, stop_after=5, **changes)
    (one,) = training.train(build, batches, how, [1], recorder, watch)
    return one, seen, recorder.runs[0].points


def test_the_mean_of_the_last_epochs_is_kept_when_asked(prepared):
    one, seen, points = _weights_by_epoch(prepared, average=3)
    for kept, *epochs in zip(one.model.get_weights(), *seen, strict=True):
        wanted = np.mean([weight.astype(np.float64) for weight in epochs[2:]], axis=0)
        np.testing.assert_allclose(kept, wanted, rtol=1e-6, atol=1e-9)
        assert np.any(kept != epochs[-1])
    held = forecasting.batches(prepared, "validation", batch_size=16)
    assert one.model.evaluate(held, verbose=0) == pytest.approx(one.held_loss, rel=1e-6)
    assert one.best_epoch is None and one.about()["held_loss"] == one.held_loss
    assert ({"averaged_val_loss": one.held_loss}, 5) == points[-2]


def test_of_several_rates_the_one_with_the_best_mean_of_epochs_is_kept(prepared):
    how = {"epochs": 4, "stop_after": 4, "average": 2}
    rates = [1e-6, 0.02, 1e-5]
    alone = [_train(prepared, _settings(rates=[rate], **how))[0] for rate in rates]
    (kept,) = _train(prepared, _settings(rates=rates, **how))
    losses = [one.held_loss for one in alone]
    assert kept.rate == 0.02 and kept.held_loss == min(losses) < sorted(losses)[1]


def test_averaging_goes_on_in_a_refit(prepared, tmp_path):
    how = _settings(epochs=3, stop_after=3, average=2, decay="inverse_sqrt", warmup=4)
    kept = training.chosen(how, _train(prepared, how))
    start = tmp_path / "chosen.json"
    start.write_text(json.dumps(kept))
    refit = training.settings(str(start), {"jit_compile": False, "strategy": "auto"})
    assert (refit.decay, refit.warmup, refit.average) == ("inverse_sqrt", 4, 2)
    (one,) = _train(prepared, refit)
    assert one.best_epoch is None and one.held_loss is None
    plain = training.Settings(**{**vars(refit), "average": 0})
    (last,) = _train(prepared, plain)
    assert one.history == last.history and all(_differ(one, last))


def test_what_is_watched_between_epochs_is_recorded(prepared):
    one, seen, (*points, _) = _weights_by_epoch(prepared)
    (alone,) = _train(prepared, _settings(rates=[0.02], epochs=5, stop_after=5))
    assert one.history == alone.history and not any(_differ(one, alone))
    for (metrics, epoch, table), weights in zip(points, seen, strict=True):
        assert metrics["largest"] == float(np.abs(weights[0]).max())
        assert table == {"word": ["one", "two"]}
        assert metrics["loss"] == one.history["loss"][epoch - 1]


def test_the_rate_that_is_best_for_the_first_seed_is_used_for_the_others(prepared):
    recorder = Recorder()
    how = _settings(rates=[1e-6, 0.01, 1e-5])
    trained = _train(prepared, how, (3, 1, 2), recorder=recorder)
    tried = [(run.seed, run.rate) for run in recorder.runs]
    assert tried == [(3, 1e-6), (3, 0.01), (3, 1e-5), (1, 0.01), (2, 0.01)]
    assert [(one.seed, one.rate) for one in trained] == [(3, 0.01), (1, 0.01), (2, 0.01)]
    assert [one.run_id for one in trained] == ["run 2", "run 4", "run 5"]


def test_every_epoch_is_recorded_with_its_losses(prepared):
    recorder = Recorder()
    (one,) = _train(prepared, _settings(epochs=3, stop_after=3), recorder=recorder)
    *points, (size, last) = recorder.runs[0].points
    cost = {"seconds": one.seconds, "peak_memory": one.peak_memory}
    assert size == {"parameters": one.model.count_params(), **cost}
    assert last == 3
    assert [epoch for _, epoch, _ in points] == [1, 2, 3]
    for name in ("loss", "val_loss"):
        assert [losses[name] for losses, *_ in points] == one.history[name]


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak is that of all fits"
)
def test_the_peak_of_memory_is_that_of_one_fit_and_not_of_those_before(prepared):
    held = np.ones(600 << 17)  # 600 MiB that a fit before had
    most = memory.peak()
    del held
    (one,) = _train(prepared, _settings(epochs=1, stop_after=1))
    assert 100 < one.peak_memory < most - 300


def test_tf_data_does_not_tune_what_has_nothing_to_tune(prepared, monkeypatch):
    # Its thread takes a quarter of a small net's time, and `fit` waits for it at the end.
    given, fit = [], keras.Model.fit

    def seen(model, data, **args):
        given.extend([data, args["validation_data"]])
        return fit(model, data, **args)

    monkeypatch.setattr(keras.Model, "fit", seen)
    _train(prepared, _settings(epochs=1, stop_after=1))
    assert [data.options().autotune.enabled for data in given] == [False, False]


def test_the_learning_rate_falls_to_zero_over_the_epochs(prepared):
    (one,) = _train(prepared, _settings(rates=[0.03]))
    schedule = one.model.optimizer._learning_rate
    steps = _steps(one)
    assert steps == 2 * 8  # 121 windows in batches of 16
    assert float(schedule(0)) == pytest.approx(0.03)
    assert float(schedule(steps)) == pytest.approx(0, abs=1e-8)


def test_a_list_of_rates_and_a_single_rate_are_both_read():
    block = {"learning_rate": 0.01, "epochs": 5, "jit_compile": True, "strategy": "auto"}
    how = training.settings("data/prepared/ring_road", block)
    assert (how.rates, how.epochs, how.stop_after) == ([0.01], 5, 5)
    assert how.parts == ("train", "validation")
    several = training.settings("data", {**block, "learning_rate": [0.1, 0.2]})
    assert several.rates == [0.1, 0.2]


def test_a_refit_trains_on_both_parts_as_its_namesake_chose(prepared, tmp_path):
    how = _settings(rates=[1e-6, 0.02], epochs=6, stop_after=6)
    trained = _train(prepared, how, (1, 2))
    kept = training.chosen(how, trained)
    best = (trained[0].best_epoch + trained[1].best_epoch) / 2
    path = {"decay": "cosine", "warmup": 0, "average": 0}
    assert kept == {
        "learning_rate": 0.02,
        "epochs": 6,
        "stop_after": round(best),
        **path,
    }

    kept["stop_after"] = 2
    start = tmp_path / "chosen.json"
    start.write_text(json.dumps(kept))
    refit = training.settings(str(start), {"jit_compile": False, "strategy": "auto"})
    (one,) = _train(prepared, refit)
    assert len(one.history["loss"]) == one.best_epoch == 2
    assert "val_loss" not in one.history
    steps = 11  # 192 - 23 windows in batches of 16
    assert _steps(one) == 2 * steps
    schedule = one.model.optimizer._learning_rate
    assert schedule.initial_learning_rate == 0.02
    assert float(schedule(6 * steps)) == pytest.approx(0, abs=1e-8)
    assert float(schedule(3 * steps)) == pytest.approx(0.01)  # half-way down the cosine


def _broken(prepared, value, part, step):
    """Returns `batches` with `value` among the targets of one step of one part."""

    def batches(name, seed=None):
        data = forecasting.batches(prepared, name, batch_size=16, seed=seed)
        if name != part:
            return data
        rows = [
            (given, target.copy(), weight.copy())
            for given, target, weight in data.as_numpy_iterator()
        ]
        rows[step - 1][1][0, 0, 0] = value
        rows[step - 1][2][0, 0, 0] = 1

        def again():
            yield from rows

        signature = data.element_spec
        broken = tf.data.Dataset.from_generator(again, output_signature=signature)
        return broken.apply(tf.data.experimental.assert_cardinality(len(rows)))

    return batches


@pytest.mark.parametrize(
    "value, part, place",
    [
        (np.nan, "train", "the loss is nan at step 3 of the epoch"),
        (np.inf, "train", "the loss is inf at step 3 of the epoch"),
        (np.nan, "validation", r"the loss is nan at epoch 1 \(val_loss\)"),
    ],
)
def test_a_loss_that_is_no_number_stops_training(prepared, value, part, place):
    spec = json.loads((prepared / "spec.json").read_text())
    step = 3 if part == "train" else 2
    batches = _broken(prepared, value, part, step)

    def build(learning_rate, seed):
        return models.build("mlp", spec, learning_rate, units=8)

    with pytest.raises(callbacks.Diverged, match=place):
        training.train(build, batches, _settings(), [1], Recorder())


def _linear(learning_rate, seed):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


def _lines(size):
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((x, x.sum(1, keepdims=True)))
    return lambda part, seed=None: data.batch(size)


def test_gradients_of_several_batches_make_the_step_of_a_larger_one():
    about = {"rates": [0.1], "epochs": 10**6, "decay": "inverse_sqrt", "warmup": 8}
    how = _settings(**about)
    (one,) = training.train(_linear, _lines(32), how, [1], Recorder())
    how = _settings(**about, accumulate=4)
    (several,) = training.train(_linear, _lines(8), how, [1], Recorder())
    assert one.model.optimizer.iterations == several.model.optimizer.iterations == 4
    for a, b in zip(one.model.get_weights(), several.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_steps_in_one_call_are_the_same_steps():
    how = _settings(rates=[0.1])
    (one,) = training.train(_linear, _lines(5), how, [1], Recorder())
    how = _settings(rates=[0.1], steps_per_execution=4)
    (several,) = training.train(_linear, _lines(5), how, [1], Recorder())
    assert several.model.steps_per_execution == 4
    np.testing.assert_allclose(one.history["loss"], several.history["loss"], rtol=1e-6)


@pytest.mark.parametrize("word", ["mixed_bfloat16", "mixed_float16"])
def test_of_mixed_precision_weights_and_losses_are_float32(short_windows, word):
    how = _settings(precision=word)
    (one,) = _train(short_windows, how, word="stlm", batch_size=14)
    (whole,) = _train(short_windows, _settings(), word="stlm", batch_size=14)
    assert {layer.dtype_policy.name for layer in one.model.layers} == {word}
    assert {weight.dtype for weight in one.model.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    losses = one.history["loss"], whole.history["loss"]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_what_trains_in_steps_of_its_own_cannot_add_batches_up():
    spec = {"task": "generation", "shape": [2]}
    form = toy.GENERATORS["mlp_gan"] | {"packing": 1}

    def build(learning_rate, seed):
        return models.build("mlp_gan", spec, learning_rate, **form)

    points = tf.data.Dataset.from_tensor_slices((np.zeros((8, 2), "f4"), np.arange(8)))
    for about in ({"accumulate": 2}, {"precision": "mixed_float16"}):
        with pytest.raises(stops.NotPossible, match="mlp_gan, which trains in a way"):
            training.train(
                build,
                lambda part, seed=None: points.batch(4, drop_remainder=True),
                _settings(**about),
                [1],
                Recorder(),
            )


def test_a_gpu_that_is_required_and_not_there_is_one_line():
    assert distribution.lacking(None) is None and distribution.lacking("cpu") is None
    if tf.config.list_physical_devices("GPU"):
        assert distribution.lacking("gpu") is None
    else:
        said = r"it requires a GPU. TensorFlow sees: /physical_device:CPU:0"
        assert distribution.lacking("gpu") == said


# --- strategies -----------------------------------------------------------------------
# Every model here has the same weights: TensorFlow's collectives, once used for one
# shape, abort when a second strategy of the process uses them for another.


@pytest.fixture(scope="module")
def either_way(two_devices, short_windows):
    """The same experiment on one device and on two replicas."""
    assert distribution.strategy("mirrored").num_replicas_in_sync == 2
    return [
        _train(short_windows, _settings(strategy=word), word="stlm", batch_size=10)[0]
        for word in ("one_device", "mirrored")
    ]


def test_two_replicas_follow_the_loss_curve_of_one_device(either_way):
    curves = [one.history["loss"] + one.history["val_loss"] for one in either_way]
    assert [_steps(one) for one in either_way] == [28, 28]
    np.testing.assert_allclose(*curves, rtol=0, atol=1e-4)


def test_where_replicas_meet_xla_is_left_off(two_devices, short_windows):
    about = {"strategy": "mirrored", "epochs": 1, "stop_after": 1}
    how = _settings(**about, jit_compile=True, steps_per_execution=4)
    (one,) = _train(short_windows, how, word="stlm", batch_size=10)
    assert one.model.steps_per_execution == 1
    with pytest.raises(stops.NotPossible, match="need `accumulate` 1. Received: 2"):
        _train(short_windows, _settings(**about, accumulate=2), word="stlm")
    assert one.model.jit_compile is False and np.isfinite(one.history["loss"]).all()


def test_a_model_of_two_replicas_comes_back_from_its_file(
    either_way, short_windows, tmp_path
):
    _, mirrored = either_way
    mirrored.model.save(tmp_path / "model.keras")
    again = models.load("stlm", "forecasting", tmp_path / "model.keras")
    data = forecasting.batches(short_windows, "test", batch_size=16)
    forecasts = [model.predict(data, verbose=0) for model in (mirrored.model, again)]
    np.testing.assert_allclose(*forecasts, rtol=0, atol=1e-6)


def test_two_replicas_train_on_odd_batches(two_devices, short_windows):
    curves = []
    for word in ("one_device", "mirrored"):
        how = _settings(strategy=word, epochs=1, stop_after=1)
        (one,) = _train(short_windows, how, word="stlm", batch_size=15)
        curves.append(one.history["loss"] + one.history["val_loss"])
    np.testing.assert_allclose(*curves, rtol=0, atol=1e-4)  # shares of 8 windows and 7


def test_auto_is_one_device_where_there_is_no_gpu(two_devices):
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("there is a GPU")
    assert distribution.strategy("auto").num_replicas_in_sync == 1
    assert not isinstance(distribution.strategy("auto"), tf.distribute.MirroredStrategy)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="`strategy` .* Received: 'mirored'"):
        distribution.strategy("mirored")


def test_devices_are_named_for_the_record(two_devices):
    assert "CPU:0" in training.devices()["devices"]
