"""Pictures of a classifier show what its layers compute, for any of the models."""

import keras
import numpy as np
import pytest
import toy

from engram import models
from engram.tasks import classification_figures
from engram.tasks.classification_figures import (
    confusion,
    draw,
    grad_cam,
    mistakes,
    moved,
    picture,
    reliability,
    shifted,
    through,
)

SHAPE, CLASSES = (8, 6, 3), 3
SPEC = {
    "shape": list(SHAPE),
    "white": 255,
    "classes": CLASSES,
    "names": ["cat", "dog", "$10"],
    "weights": None,
    "dataset": "pets_$",
}
CONVOLUTIONAL = ("cnn", "residual_cnn")


@pytest.fixture(scope="module", params=CONVOLUTIONAL)
def model(request):
    keras.utils.set_random_seed(1)
    return models.build(request.param, SPEC, 0.01, **toy.IMAGES[request.param])


def found(model, images=12):
    draw_ = np.random.default_rng(1)
    inputs = draw_.integers(0, 256, (images, *SHAPE), np.uint8)
    logits = np.array(model(inputs / 255))
    truth = np.arange(images) % CLASSES
    about = {"truth": truth, "logits": logits, "temperature": 1.7, "model": model}
    return {"spec": SPEC, "inputs": inputs, **about}


def test_every_picture_is_drawn_and_equal_results_are_equal_bytes(model, tmp_path):
    first, second = (draw(found(model), tmp_path / name) for name in "ab")
    words = ["confusion", "mistakes", "reliability", "filters", "maps", "places", "moved"]
    assert [file.stem for file in first] == words
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes().startswith(b"\x89PNG")
        assert one.read_bytes() == other.read_bytes()


def test_a_net_without_convolutions_has_no_pictures_of_them(tmp_path):
    net = models.build("deep_net", SPEC, 0.01, **toy.IMAGES["deep_net"])
    files = draw(found(net), tmp_path)
    assert [file.stem for file in files] == ["confusion", "mistakes", "reliability"]


def test_who_is_always_right_has_pictures_too(model, tmp_path):
    seen = found(model)
    seen["logits"] = 9 * np.eye(3, dtype=np.float32)[seen["truth"]]
    assert len(draw(seen, tmp_path)) == 7


def test_the_matrix_counts_who_is_taken_for_whom():
    truth, told = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 0])
    (axis,) = confusion({"spec": SPEC, "truth": truth, "logits": np.eye(3)[told]}).axes
    written = {text.get_position(): text.get_text() for text in axis.texts}
    assert written == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (0, 2): "2"}
    assert axis.get_title(loc="left").startswith("40.00 % right")


def test_the_reliability_curve_has_a_point_where_there_are_images():
    logits = np.log(np.array([[0.75, 0.15, 0.1], [0.76, 0.14, 0.1], [0.02, 0.95, 0.03]]))
    truth = np.array([0, 1, 1])
    seen = {"spec": SPEC, "truth": truth, "logits": logits, "temperature": 1.0}
    axis, below = reliability(seen).axes
    x, y = axis.lines[-1].get_data()
    np.testing.assert_allclose(x, [0.755, 0.95])
    np.testing.assert_allclose(y, [0.5, 1])
    assert sum(bar.get_height() for bar in below.patches) == 3


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_a_temperature_is_told_as_one_only_where_it_was_chosen(temperature):
    logits = np.eye(3)[[0, 1, 1]]
    seen = {"spec": SPEC, "truth": np.arange(3), "logits": logits}
    legend = reliability(seen | {"temperature": temperature}).axes[0].get_legend()
    labels = [text.get_text().split(",")[0] for text in legend.get_texts()]
    assert labels == ["as it is", "calibrated"][: 1 if temperature == 1 else 2]


def test_a_mistakes_probability_is_that_of_the_metrics_also_with_class_weights():
    logits = np.log(np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]))
    seen = {"truth": np.array([1, 1]), "logits": logits}
    seen["inputs"] = np.zeros((2, *SHAPE), np.uint8)
    weights = [2.0, 0.5, 1.0]
    for some, sure in ((None, 60), (weights, 100 * 0.3 / (0.3 + 0.6 + 0.1))):
        axis = mistakes(seen | {"spec": SPEC | {"weights": some}}).axes[0]
        assert axis.get_title() == f"dog taken for\ncat, {sure:.0f} % sure"


def test_grad_cam_is_relu_of_the_maps_weighted_by_the_mean_slope_of_the_class():
    """A net that is linear in its maps: the slopes are the weights after the mean."""
    images = keras.Input(SHAPE)
    seen = keras.layers.Conv2D(4, 3, padding="same", name="convolution")(images)
    logits = keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling2D()(seen))
    net = keras.Model(images, logits)
    x = np.random.default_rng(1).random((5, *SHAPE), np.float32)
    classes = np.array([0, 1, 2, 0, 1])
    maps, _ = through(net, net.get_layer("convolution"), x)
    slopes = np.array(net.layers[-1].kernel)[:, classes].T / (8 * 6)  # (B, K)
    expected = np.maximum(np.einsum("bhwk,bk->bhw", maps, slopes), 0)
    assert (expected > 0).any()
    np.testing.assert_allclose(grad_cam(net, x, classes), expected, atol=1e-6)


def test_grad_cam_looks_at_the_last_maps_before_pooling():
    keras.utils.set_random_seed(1)
    net = models.build("cnn", SPEC, 0.01, **toy.IMAGES["cnn"])
    x = np.random.default_rng(1).random((2, *SHAPE), np.float32)
    assert grad_cam(net, x, np.array([0, 1])).shape == (2, 4, 3)  # convolution_2


@pytest.mark.parametrize("step", [-8, -2, 0, 1, 3])
def test_a_moved_image_is_the_image_elsewhere_and_black_where_it_was(step):
    image = np.arange(1, 145, dtype=np.uint8).reshape(SHAPE)
    other = shifted(image, step)
    assert other.shape == SHAPE
    for column in range(6):
        of = column - step
        expected = image[:, of] if 0 <= of < 6 else 0
        np.testing.assert_array_equal(other[:, column], np.broadcast_to(expected, (8, 3)))


def test_the_map_of_a_moved_image_is_the_moved_map(model):
    """The same filters everywhere: what the picture `moved` shows."""
    layer = model.get_layer(
        "convolution_1" if model.name == "cnn" else "convolution_first"
    )
    image = np.zeros((8, 12, 3), np.float32)
    image[2:6, 4:7] = np.random.default_rng(1).random((4, 3, 3))
    wide = models.build(
        model.name, SPEC | {"shape": [8, 12, 3]}, 0.01, **toy.IMAGES[model.name]
    )
    wide.get_layer(layer.name).set_weights(layer.get_weights())
    images = np.stack([image, shifted(image, 2)])
    (one, other), _ = through(wide, wide.get_layer(layer.name), images)
    np.testing.assert_allclose(other[:, 2:], one[:, :-2], atol=1e-6)


def test_the_moved_pictures_are_titled_with_their_step_and_chance(model):
    titles = [axis.get_title() for axis in moved(found(model)).axes[:5]]
    assert [title.split(" pixels")[0] for title in titles] == [
        "-2",
        "-1",
        "+0",
        "+1",
        "+2",
    ]
    assert all(" = 0." in title or " = 1.00" in title for title in titles)


@pytest.mark.parametrize("shape", [(4, 3, 1), (5, 6, 3)])
def test_a_picture_is_the_image_from_0_to_1(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    shown = picture(image, 255)
    assert shown.shape == (shape if shape[-1] == 3 else shape[:2])
    np.testing.assert_allclose(shown.ravel(), image.ravel() / 255)


def test_every_drawing_has_a_word_in_the_first_lines():
    drawn = {*classification_figures.OF_CLASSES, *classification_figures.OF_CONVOLUTIONS}
    lines = classification_figures.__doc__.splitlines()
    assert drawn == {line.split()[0] for line in lines if line.startswith("    ")}
