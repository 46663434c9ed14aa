"""`GradientFlow` in `fit`: what it tells, and that it changes nothing."""

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

from engram.gradient_flow import GradientFlow

ROWS, WIDE = 32, 6
X = np.random.default_rng(1).normal(size=(ROWS, WIDE)).astype("float32")
Y = X[:, :1] * X[:, 1:2]


def sequential(*layers, **how):
    model = keras.Sequential([keras.Input((WIDE,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01, **how), "mse")
    return model


def watched(model, x=X, y=Y, every=2, epochs=2, batch_size=8, **how):
    flow = GradientFlow(x, y, every=every, **how)
    model.fit(x, y, batch_size, epochs, verbose=0, callbacks=[flow], shuffle=False)
    return flow


def of(flow, measure, layer, step=0):
    (found,) = (
        row[measure] for row in flow.rows if (row["layer"], row["step"]) == (layer, step)
    )
    return found


def test_the_table_is_what_numpy_finds():
    told = []
    layers = [keras.layers.Dense(5, "tanh", name="hidden")]
    model = sequential(*layers, global_clipnorm=1e-3)
    kernel, bias, out, _ = (np.array(w, "float64") for w in model.get_weights())
    flow = watched(model, record=lambda numbers, step: told.append((step, numbers)))
    assert [step for step, _ in told] == [0, 2, 4, 6]
    assert {row["step"] for row in flow.rows} == {0, 2, 4, 6}
    h = np.tanh(X @ kernel + bias)
    asked = 2 * (h @ out - Y) / ROWS @ out.T
    dz = asked * (1 - h**2)
    norm = np.sqrt(((X.T @ dz) ** 2).sum() + (dz.sum(0) ** 2).sum())
    assert of(flow, "gradient", "hidden") == pytest.approx(np.log10(norm), abs=1e-4)
    signal = np.sqrt((asked**2).mean())
    assert of(flow, "signal", "hidden") == pytest.approx(np.log10(signal), abs=1e-4)
    assert of(flow, "mean", "hidden") == pytest.approx(h.mean(), abs=1e-5)
    assert of(flow, "std", "hidden") == pytest.approx(h.std(), abs=1e-5)
    flat = 1 - h**2 < 0.05
    assert of(flow, "saturated", "hidden") == pytest.approx(flat.mean(), abs=1e-6)
    size = np.log10(np.linalg.norm(out))  # one output: J is a row, any sign is exact
    assert of(flow, "jacobian", "hidden") == pytest.approx(size, abs=1e-4)
    both = [of(flow, "clipped", name) for name in ("hidden", model.layers[-1].name)]
    assert np.sum(10.0 ** (2 * np.array(both))) == pytest.approx(1e-6, rel=1e-3)
    assert told[0][1]["gradient/hidden"] == of(flow, "gradient", "hidden")
    assert flow.totals[0]["cosine"] == pytest.approx(1, abs=1e-6)
    figure = flow.figure("gradient")
    assert figure.axes[0].images[0].get_array().shape == (2, 4)
    with pytest.raises(ValueError, match="`measure` must have .* 'size'"):
        flow.figure("size")


def test_the_update_is_what_the_step_did_to_the_weights():
    model = sequential(keras.layers.Dense(5, name="hidden"))
    before = [weight.numpy() for weight in model.layers[0].weights]
    flow = watched(model, epochs=1, batch_size=ROWS)
    after = [weight.numpy() for weight in model.layers[0].weights]
    moved, size = (
        sum((part**2).sum() for part in parts)
        for parts in ([b - a for a, b in zip(before, after, strict=True)], before)
    )
    expected = np.log10(moved / size) / 2
    assert of(flow, "update", "hidden") == pytest.approx(expected, abs=1e-4)


def test_an_update_is_of_the_step_though_other_weights_follow_it():
    class Zero(keras.callbacks.Callback):  # as an average of weights is swapped in
        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights([0 * w for w in self.model.get_weights()])

    found = []
    for others in ([], [Zero()]):
        keras.utils.set_random_seed(1)
        model = sequential(keras.layers.Dense(5, name="hidden"))
        flow = GradientFlow(X, Y, every=1)
        model.fit(X, Y, ROWS, callbacks=[*others, flow], verbose=0)
        found.append(of(flow, "update", "hidden"))
    assert np.isfinite(found[0]) and found[0] == found[1]


def test_nothing_the_layers_change_is_kept():
    def trained(callbacks):
        keras.utils.set_random_seed(3)
        layers = [keras.layers.Dense(5), keras.layers.BatchNormalization()]
        model = sequential(*layers, keras.layers.Dropout(0.3))
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
        return model.get_weights()

    flow = GradientFlow(X, Y, every=1)
    for plain, seen in zip(trained([]), trained([flow]), strict=True):
        np.testing.assert_array_equal(plain, seen)


def test_the_table_as_a_data_frame():
    flow = watched(sequential(keras.layers.Dense(5, name="hidden")))
    frame = flow.frame().set_index(["step", "layer"])
    assert len(frame) == len(flow.rows)
    assert frame.loc[(2, "hidden"), "gradient"] == of(flow, "gradient", "hidden", 2)


# Said by SQLAlchemy 2.1 of MLflow 3.17's tables.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_mlflow_gets_a_curve_of_each_number(tmp_path):
    shared = keras.layers.Dense(WIDE, name="shared")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        mlflow.create_experiment("watched", artifact_location=str(tmp_path))
        mlflow.set_experiment("watched")
        with mlflow.start_run() as run:
            flow = watched(sequential(shared, shared), record=mlflow.log_metrics)
        client = mlflow.MlflowClient()
        for name in ("shared", "shared:2"):
            points = client.get_metric_history(run.info.run_id, f"signal/{name}")
            told = [(point.step, point.value) for point in points]
            assert told == [(s, of(flow, "signal", name, s)) for s in (0, 2, 4, 6)]
    finally:
        mlflow.set_tracking_uri(None)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Keras, of the spare
def test_several_inputs_shared_layers_frozen_layers_and_unused_weights():
    class Spare(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.spare = self.add_weight(shape=(2, 2), name="spare")

    a, b = keras.Input((WIDE,), name="a"), keras.Input((WIDE,), name="b")
    shared = keras.layers.Dense(4, "sigmoid", name="shared")
    frozen = keras.layers.Dense(4, name="frozen", trainable=False)
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="x")], name="in"
    )
    h = inner(keras.layers.Add()([shared(a), frozen(shared(b))]))
    unheard = keras.layers.Dense(4, name="unheard")(h)
    outputs = [Spare(1, name="one")(h), keras.layers.Rescaling(0.0)(unheard)]
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile("adam", ["mse", "mse"], steps_per_execution=2)
    x, y = {"a": X, "b": X[::-1]}, [Y, np.ones((ROWS, 4), "float32")]
    with tf.GradientTape() as tape:
        told = model(x)
        loss = sum(
            tf.reduce_mean((one - wanted) ** 2)
            for one, wanted in zip(told, y, strict=True)
        )
    asked = tape.gradient(loss, [w.value for w in shared.trainable_variables])
    size = np.log10(np.sqrt(sum(float(tf.reduce_sum(g**2)) for g in asked)))
    flow = watched(model, x, y, epochs=1)
    assert {row["step"] for row in flow.rows} == {0, 2}
    names = ["shared", "shared:2", "frozen", "add", "in/x", "one", "unheard", "rescaling"]
    assert len(flow.rows) == 2 * len(names)
    assert {"shared", "shared:2", "frozen", "in/x", "one"} <= {
        row["layer"] for row in flow.rows
    }
    assert of(flow, "gradient", "shared") == of(flow, "gradient", "shared:2")
    assert of(flow, "gradient", "shared") == pytest.approx(size, abs=1e-4)
    assert np.isnan(of(flow, "gradient", "frozen"))
    assert of(flow, "gradient", "unheard") == -np.inf
    assert np.isfinite(of(flow, "gradient", "one"))


def test_mixed_precision_does_not_underflow_on_the_way():
    half = [keras.layers.Dense(6, "sigmoid", dtype="mixed_float16") for _ in range(12)]
    full = [keras.layers.Dense(6, "sigmoid") for _ in range(12)]
    model, reference = sequential(*half), sequential(*full)
    reference.set_weights(model.get_weights())
    found, expected = (
        of(watched(one, epochs=1), "gradient", layers[0].name)
        for one, layers in ((model, half), (reference, full))
    )
    assert expected < -7.5  # float16 ends at 6e-8
    assert found == pytest.approx(expected, abs=0.1)


def test_clipping_is_told_as_it_is_under_a_loss_that_is_scaled():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = sequential(keras.layers.Dense(5, "tanh"), global_clipnorm=1e-3)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        flow = watched(model, epochs=1)
    finally:
        keras.config.set_dtype_policy("float32")
    for layer in model.layers:
        assert of(flow, "gradient", layer.name) > -2  # not times the scale, nor clipped
        assert of(flow, "gradient", layer.name) < 1
    both = [of(flow, "clipped", layer.name) for layer in model.layers]
    assert np.sum(10.0 ** (2 * np.array(both))) == pytest.approx(1e-6, rel=0.02)
    assert flow.totals[0]["cosine"] == pytest.approx(1, abs=1e-3)


def test_recurrent_layers_and_tokens():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(9, 4, mask_zero=True, name="pieces"),
            keras.layers.LSTM(4, name="memory"),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    tokens = np.random.default_rng(1).integers(0, 9, (ROWS, 5))
    flow = watched(model, tokens, every=100, epochs=1)
    assert np.isfinite(
        [of(flow, "gradient", name) for name in ("pieces", "memory")]
    ).all()


def test_what_cannot_be_measured_is_said(monkeypatch):
    class Code(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, x):
            return self.layer(x)

    model = Code()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`model` must be .* 'Code'"):
        watched(model)
    with pytest.raises(ValueError, match="`every` must be at least 1. Received: 0"):
        GradientFlow(X, Y, every=0)
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow. Received: 'jax'"):
        GradientFlow(X, Y)
