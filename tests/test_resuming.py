"""A training that was stopped anywhere ends as one that was not, to the last bit."""

import contextlib
import os
import signal
import types

import numpy as np
import pytest
import tensorflow as tf
import toy

from engram import checkpoints, models, resuming, training

EPOCHS = 4


def images():
    draw = np.random.default_rng(0)
    spec = {"task": "classification", "shape": [6, 6, 1], "classes": 3}
    return spec, (draw.random((40, 6, 6, 1), np.float32), draw.integers(0, 3, 40))


def sentences():
    draw = np.random.default_rng(0)
    target = np.pad(draw.integers(3, 12, (40, 4)), ((0, 0), (0, 1)), constant_values=2)
    shifted = np.concatenate([np.ones((40, 1), int), target[:, :-1]], axis=1)
    weight = (draw.random((40, 5)) < 0.8).astype(np.float32)
    spec = {"task": "translation", "source_pieces": 12, "target_pieces": 12}
    spec |= {"vocabulary": "separate", "start": 1, "end": 2}
    return spec, ((target, shifted), target, weight)


def points():
    draw = np.random.default_rng(0)
    spec = {"task": "generation", "shape": [2]}
    return spec, (draw.normal(size=(40, 2)).astype(np.float32), np.arange(40))


def rows():
    draw = np.random.default_rng(0)
    spec = {"task": "density", "visible": 5}
    return spec, draw.integers(0, 2, (40, 5)).astype(np.float32)


def pixels():
    made = np.random.default_rng(0).random((40, 6), np.float32)
    return {"task": "reconstruction", "visible": 6}, (made, made)


KINDS = {  # model -> its data
    "cnn": images,
    "transformer": sentences,
    "seq2seq": sentences,
    "mlp_gan": points,
    "rbm": rows,
    "pca": pixels,
}


class Killed(BaseException):
    """Stands for a kill: nothing is written any more."""


class Store:
    """Keeps what a tracker would be told, run by run."""

    def __init__(self):
        self.runs = {}

    @contextlib.contextmanager
    def __call__(self, seed, rate, kept=None):
        run = kept.read_text() if kept and kept.is_file() else f"run {len(self.runs)}"
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(run)
        points = self.runs.setdefault(run, [])
        yield run, lambda metrics, step, *more, **how: points.append((step, metrics))


@pytest.fixture(autouse=True)
def undo_determinism():
    yield
    from tensorflow.python.framework.config import disable_op_determinism

    disable_op_determinism()


def settings(**changes):
    usual = {"parts": ("train", "validation"), "rates": [0.01], "epochs": EPOCHS}
    usual |= {"stop_after": EPOCHS, "jit_compile": False, "strategy": "one_device"}
    return training.Settings(**(usual | changes))


def train(word, folder, store, seeds=(1,), watch=None, **changes):
    spec, arrays = KINDS[word]()
    form = toy.ARGUMENTS[word] | ({"packing": 1} if word == "mlp_gan" else {})

    def build(learning_rate, seed):
        return models.build(word, spec, learning_rate, **form)

    def batches(part, seed=None):
        data = tf.data.Dataset.from_tensor_slices(arrays)
        data = data.take(32) if part == "train" else data.skip(32)
        if seed is not None:
            data = data.shuffle(32, seed=seed, reshuffle_each_iteration=True)
        return data.batch(8, drop_remainder=True).prefetch(2)

    how = settings(**changes)
    return training.train(build, batches, how, list(seeds), store, watch, folder)


def stopped(monkeypatch, after, then=2):
    """Lets a fit be saved after so many steps, and killed some steps later."""
    seen, whole = {"steps": 0}, resuming.Keeper.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        whole(self, batch, logs)
        if not self._skipped:
            seen["steps"] += 1
        if seen["steps"] == after:
            self._save(self._epoch, self._step)
        if seen["steps"] == after + then:
            raise Killed

    monkeypatch.setattr(resuming.Keeper, "on_train_batch_end", on_train_batch_end)


def same(one, other):
    assert one.history == other.history
    assert (one.best_epoch, one.held_loss) == (other.best_epoch, other.held_loss)
    for a, b in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    states = [resuming._variables(each.model) for each in (one, other)]
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(  # of 4 epochs with 4 steps
    ("word", "after"),
    [("cnn", 1), ("cnn", 4), ("cnn", 14), ("transformer", 6), ("seq2seq", 9)],
)
def test_within_an_epoch_it_goes_on_to_the_last_bit(word, after, tmp_path, monkeypatch):
    (alone,) = train(word, None, Store())
    store = Store()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped(patch, after)
        train(word, tmp_path, store)
    (again,) = train(word, tmp_path, store)
    same(alone, again)
    assert list(store.runs) == ["run 0"]
    (finished,) = train(word, tmp_path, store)  # all is in the last checkpoint
    same(alone, finished)
    assert finished.about() == again.about() and len(store.runs) == 1


@pytest.mark.parametrize(
    ("word", "epoch"),
    [
        ("cnn", 1),
        ("cnn", EPOCHS),
        ("transformer", 3),
        ("mlp_gan", 2),
        ("rbm", 2),
        ("pca", 1),
    ],
)
def test_between_epochs_it_goes_on_to_the_last_bit(word, epoch, tmp_path, monkeypatch):
    (alone,) = train(word, None, Store())
    store, end = Store(), resuming.Keeper.on_epoch_end

    def on_epoch_end(self, number, logs=None):
        end(self, number, logs)
        if number + 1 == epoch:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(resuming, "SHARE", 1e9)
        patch.setattr(resuming.Keeper, "on_epoch_end", on_epoch_end)
        train(word, tmp_path, store)
    (again,) = train(word, tmp_path, store)
    same(alone, again)
    (finished,) = train(word, tmp_path, store)
    same(alone, finished)
    assert finished.about() == again.about() and len(store.runs) == 1


def test_the_mean_of_epochs_and_a_second_seed_go_on(tmp_path, monkeypatch):
    alone = train("cnn", None, Store(), seeds=(1, 2), average=3)
    store = Store()
    for steps in (13, 5, 9):  # in the first seed, in the second, and again in that
        with monkeypatch.context() as patch, pytest.raises(Killed):
            stopped(patch, steps)
            train("cnn", tmp_path, store, seeds=(1, 2), average=3)
    again = train("cnn", tmp_path, store, seeds=(1, 2), average=3)
    for one, other in zip(alone, again, strict=True):
        same(one, other)
    assert list(store.runs) == ["run 0", "run 1"]


def test_steps_in_one_call_go_on(tmp_path, monkeypatch):
    about = {"steps_per_execution": 3}  # of 4 steps in an epoch
    (alone,) = train("cnn", None, Store(), **about)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped(patch, after=3)  # calls
        train("cnn", tmp_path, Store(), **about)
    (again,) = train("cnn", tmp_path, Store(), **about)
    same(alone, again)


def test_added_up_gradients_of_half_precision_go_on(tmp_path, monkeypatch):
    about = {"accumulate": 3, "precision": "mixed_float16"}
    (alone,) = train("cnn", None, Store(), **about)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped(patch, after=5)
        train("cnn", tmp_path, Store(), **about)
    (again,) = train("cnn", tmp_path, Store(), **about)
    same(alone, again)


def test_several_rates_go_on(tmp_path, monkeypatch):
    rates = {"rates": [0.1, 0.001]}
    (alone,) = train("cnn", None, Store(), **rates)
    store = Store()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stopped(patch, 20)
        train("cnn", tmp_path, store, **rates)
    (again,) = train("cnn", tmp_path, store, **rates)
    same(alone, again)
    assert again.rate == alone.rate and len(store.runs) == 2


def test_asked_to_end_it_ends_after_a_step_with_143(tmp_path, capsys):
    (alone,) = train("cnn", None, Store())
    store, asked = Store(), []

    def watch(model):  # between two epochs
        if len(asked) < 2:
            asked.append(os.kill(os.getpid(), signal.SIGTERM))
        return {}, {}

    for epoch in (1, 2):
        with pytest.raises(SystemExit) as end:
            train("cnn", tmp_path, store, watch=watch)
        assert end.value.code == 143
        assert f"it goes on in epoch {epoch + 1}, after step 0" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    (again,) = train("cnn", tmp_path, store)
    same(alone, again)


def test_a_checkpoint_costs_no_more_than_its_share(tmp_path, monkeypatch):
    """Epochs take a tenth of what writing takes: one of several hundred is written."""
    written = []

    def write(folder, arrays, about):
        written.append(about["epoch"])
        now[0] += 1.0

    now = [0.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(resuming, "time", clock)
    monkeypatch.setattr(checkpoints, "write", write)
    keeper = resuming.Keeper(tmp_path, [], lambda: None, {})
    keeper.set_model(models.build("cnn", images()[0], 0.1, **toy.ARGUMENTS["cnn"]))
    for epoch in range(1000):
        now[0] += 0.1
        keeper.on_epoch_end(epoch, {"loss": 1.0})
    assert now[0] == pytest.approx(100 + len(written))
    assert 1 < len(written) <= 1 + resuming.SHARE * 100
    assert keeper.seconds == pytest.approx(100)  # without writing
    before = len(written)
    keeper.on_epoch_begin(1000)
    now[0] += 200  # at most 34 since the last one
    keeper.on_train_batch_end(0)
    assert len(written) == before
    now[0] += 101
    keeper.on_train_batch_end(1)
    assert len(written) == before + 1


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train("cnn", tmp_path, Store())
    found = checkpoints.read(tmp_path / "seed-1-rate-0.01")
    spec, _ = images()
    other = models.build("cnn", spec, 0.1, **toy.ARGUMENTS["cnn"] | {"units": 5})
    data = tf.data.Dataset.from_tensor_slices(images()[1]).batch(4)
    with pytest.raises(ValueError, match="the checkpoint is of another model"):
        resuming.put_back(found, other, data)
