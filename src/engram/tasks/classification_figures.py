"""Pictures of the classes that a model tells, and of what a convolutional net sees.

    confusion     who is taken for whom
    mistakes      the images that it was surest of, and wrong
    reliability   how often it is right where it is so sure

    filters       what the first convolution looks for
    maps          what of one image comes through, from size to size
    places        where in an image the class told is seen: Grad-CAM
    moved         the image moves, and its map with it: the same filters everywhere

Shapes: `B` images, `H`, `W` height and width, `F` numbers in a pixel, `C` classes, `K`
maps of a layer, `h`, `w` their height and width.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")  # files only; no screen needed
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from engram.tasks import classification_metrics

if TYPE_CHECKING:
    import keras

INK, MODEL = "#1f2933", "#0b7285"
MISTAKES = 12  # images that are drawn
WRITTEN = 20  # classes; of more, the matrix has colours and no numbers
FILTERS = 64  # of the first convolution, and
MAPS = 8  # of a layer, those with the largest mean, and
PLACES = 8  # images that are drawn
MOVES = (-2, -1, 0, 1, 2)  # eighths of the width, or pixels of a narrow image
PALE = "#868e96"


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Writes the figures of one experiment and returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {name: drawn(found) for name, drawn in OF_CLASSES.items()}
    if _layers_with_maps(found["model"]):
        drawings |= {name: drawn(found) for name, drawn in OF_CONVOLUTIONS.items()}
    files = []
    for name, figure in drawings.items():
        files.append(folder / f"{name}.png")
        # No date or version in the file: equal results are equal bytes.
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        plt.close(figure)
    return files


def confusion(found: dict[str, Any]) -> plt.Figure:
    """How often each class is taken for each other one; the diagonal is right."""
    truth, told = found["truth"], found["logits"].argmax(-1)
    spec, classes = found["spec"], found["spec"]["classes"]
    counts = confusion_matrix(truth, told, labels=range(classes))
    wrong = counts - np.diag(counts.diagonal())
    figure, axis = plt.subplots(figsize=(5.6, 5.2), layout="constrained")
    axis.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, wrong.max()))
    if classes <= WRITTEN:
        names = [_plain(name) for name in spec["names"]]
        turned = 90 if max(map(len, names)) > 2 else 0
        axis.set_xticks(range(classes), names, rotation=turned)
        axis.set_yticks(range(classes), names)
        _numbers(axis, counts, 0.6 * wrong.max())
    axis.set(xlabel="class told", ylabel="true class")
    share = f"{100 * (truth == told).mean():.2f} % right"
    axis.set_title(f"{share}, {_plain(spec['dataset'])}", loc="left", color=INK)
    return figure


def _numbers(axis: plt.Axes, counts: np.ndarray, dark: float) -> None:
    """Writes each count that is not zero, the right ones in bold, white on `dark`."""
    for row, column in np.argwhere(counts):
        count, right = counts[row, column], row == column
        axis.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            fontsize=8,
            color=MODEL if right else "white" if count > dark else INK,
            weight="bold" if right else "normal",
        )


def mistakes(found: dict[str, Any]) -> plt.Figure:
    """The images whose wrong class the model was surest of."""
    spec, truth = found["spec"], found["truth"]
    scores = classification_metrics.natural(found["logits"], spec["weights"])
    told = found["logits"].argmax(-1)
    sure = softmax(scores, axis=-1)[np.arange(len(told)), told]
    order = np.argsort(-sure, kind="stable")
    chosen = order[truth[order] != told[order]][:MISTAKES]
    figure, axes = plt.subplots(2, MISTAKES // 2, figsize=(9, 3.6), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, n in zip(axes.flat, chosen, strict=False):
        axis.imshow(picture(found["inputs"][n], spec["white"]), "gray_r", vmin=0, vmax=1)
        right, wrong = (_plain(spec["names"][one]) for one in (truth[n], told[n]))
        words = f"{right} taken for\n{wrong}, {100 * sure[n]:.0f} % sure"
        axis.set_title(words, fontsize=8)
    title = f"Mistakes it was surest of, {_plain(spec['dataset'])}"
    figure.suptitle(title, color=INK)
    return figure


def reliability(found: dict[str, Any]) -> plt.Figure:
    """How often the likeliest class is right, by its probability, before T and at T."""
    scores = classification_metrics.natural(found["logits"], found["spec"]["weights"])
    figure, (axis, below) = plt.subplots(
        2, 1, figsize=(5.6, 5.6), layout="constrained", sharex=True, height_ratios=(4, 1)
    )
    axis.plot([0, 1], [0, 1], color=PALE, lw=1, ls="--")
    looks = [(1.0, PALE, "o", "as it is")]
    if found["temperature"] != 1:  # chosen on validation
        looks.append((found["temperature"], MODEL, "s", "calibrated"))
    for temperature, colour, marker, word in looks:
        cooled = scores / temperature, found["truth"]
        images, sums, hits = classification_metrics.reliability(*cooled)
        some = images > 0
        error = classification_metrics.calibration_error(*cooled)
        label = f"{word}, T = {temperature:.2f}: error {error:.3f}"
        x, y = sums[some] / images[some], hits[some] / images[some]
        axis.plot(x, y, color=colour, lw=1)
        area = 8 + 80 * images[some] / images.max()  # few images say little
        axis.scatter(x, y, area, colour, marker=marker, label=label, zorder=2)
    edges = np.linspace(0, 1, len(images) + 1)
    below.bar(edges[:-1], images, np.diff(edges), align="edge", color=MODEL, ec="white")
    axis.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    below.set(xlabel="probability of the likeliest class", ylabel="images", yscale="log")
    axis.legend(frameon=False, loc="lower right")
    axis.set_title(f"As right as sure? {_plain(found['spec']['dataset'])}", loc="left")
    return figure


def filters(found: dict[str, Any]) -> plt.Figure:
    """The filters of the first convolution: what is bright adds to a map, dark takes."""
    kernel = np.array(_convolutions(found["model"])[0].kernel)  # (height, width, F, K)
    count = min(kernel.shape[-1], FILTERS)
    columns = min(count, 16)
    figure, axes = _grid(-(-count // columns), columns, 0.7)
    bound = np.abs(kernel).max()
    for axis, k in zip(axes.flat, range(count), strict=False):
        one = picture(kernel[..., k] / bound / 2 + 0.5, 1)
        axis.imshow(one, "gray", vmin=0, vmax=1)
    figure.suptitle(f"The first convolution's {count} filters", color=INK)
    return figure


def maps(found: dict[str, Any]) -> plt.Figure:
    """What comes through of the first test image: the strongest maps of each size."""
    # the last layer of each size: a dict keeps a key's first place and last value
    sizes = {
        layer.output.shape[1:3]: layer for layer in _layers_with_maps(found["model"])
    }
    layers = list(sizes.values())
    image = found["inputs"][:1]
    figure, axes = _grid(len(layers), MAPS + 1, 1.0)
    axes[0, 0].imshow(picture(image[0], found["spec"]["white"]), "gray_r", vmin=0, vmax=1)
    for row, layer in zip(axes, layers, strict=True):
        (seen,) = through(found["model"], layer, image / found["spec"]["white"])[0]
        strongest = np.argsort(-seen.mean((0, 1)), kind="stable")[:MAPS]
        for axis, k in zip(row[1:], strongest, strict=False):
            axis.imshow(seen[..., k], "viridis", vmin=0, vmax=max(seen.max(), 1e-9))
        size = " x ".join(map(str, seen.shape))
        row[1].set_title(f"{layer.name}, {size}", loc="left", fontsize=8, color=INK)
    figure.suptitle("What comes through of an image", color=INK)
    return figure


def places(found: dict[str, Any]) -> plt.Figure:
    """Grad-CAM of one test image of each class, for the class that the model tells."""
    spec, truth = found["spec"], found["truth"]
    chosen = [int(np.argmax(truth == one)) for one in np.unique(truth)[:PLACES]]
    images, told = found["inputs"][chosen], found["logits"][chosen].argmax(-1)
    heat = grad_cam(found["model"], images / spec["white"], told)  # (B, h, w)
    height, width = images.shape[1:3]
    figure, axes = _grid(2, len(chosen), 1.15)
    for (above, below), image, n, warm in zip(axes.T, images, chosen, heat, strict=True):
        for axis in (above, below):
            axis.imshow(picture(image, spec["white"]), "gray_r", vmin=0, vmax=1)
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        bound = max(warm.max(), 1e-9)
        below.imshow(
            warm,
            "inferno",
            vmin=0,
            vmax=bound,
            alpha=0.65,
            extent=extent,
            interpolation="bilinear",
        )
        name = _plain(spec["names"][found["logits"][n].argmax()])
        above.set_title(name, fontsize=8, color=INK)
    figure.suptitle("Where the class told is seen (Grad-CAM)", color=INK)
    return figure


def moved(found: dict[str, Any]) -> plt.Figure:
    """A test image moved sideways, its strongest first map, and what is told of it."""
    spec, image, truth = found["spec"], found["inputs"][0], found["truth"][0]
    steps = [one * max(1, image.shape[1] // 8) for one in MOVES]
    images = np.stack([shifted(image, step) for step in steps]) / spec["white"]
    layer = _convolutions(found["model"])[0]
    seen, logits = through(found["model"], layer, images)  # (B, h, w, K), (B, C)
    k = int(seen[MOVES.index(0)].mean((0, 1)).argmax())
    chances = softmax(classification_metrics.natural(logits, spec["weights"]), axis=-1)
    figure, axes = _grid(2, len(steps), 1.3)
    for n, (above, below) in enumerate(axes.T):
        above.imshow(picture(images[n], 1), "gray_r", vmin=0, vmax=1)
        below.imshow(
            seen[n, ..., k], "viridis", vmin=0, vmax=max(seen[..., k].max(), 1e-9)
        )
        words = f"{steps[n]:+d} pixels\np({_plain(spec['names'][truth])})"
        above.set_title(f"{words} = {chances[n, truth]:.2f}", fontsize=8, color=INK)
    figure.suptitle(f"The image moves, and map {k} of {layer.name} with it", color=INK)
    return figure


def grad_cam(model: "keras.Model", images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns how much each place of the last maps speaks for a class.

        a_k  = mean over places of dz_c / dA_k
        heat = relu(sum over k of a_k A_k)

    Args:
        model: from images to logits `z`, with convolutions. `A` are the outputs of its
            last layer that gives maps, poolings aside.
        images: float `(B, H, W, F)`, from 0 to 1.
        classes: integers `(B,)`, the class `c` of each image.

    Returns:
        float `(B, h, w)`.

    References:
        - Selvaraju et al. 2017, Grad-CAM, eq. 1 and 2, arXiv:1610.02391.
    """
    import keras
    import tensorflow as tf

    pooling = keras.layers.MaxPooling2D, keras.layers.AveragePooling2D
    layer = [one for one in _layers_with_maps(model) if not isinstance(one, pooling)][-1]
    both = keras.Model(model.input, [layer.output, model.output])
    with tf.GradientTape() as tape:
        seen, logits = both(images)  # (B, h, w, K), (B, C)
        told = tf.gather(logits, classes, batch_dims=1)
    weight = tf.reduce_mean(tape.gradient(told, seen), (1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weight * seen, -1)).numpy()


def through(
    model: "keras.Model", layer: "keras.Layer", images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a layer's maps `(B, h, w, K)` and the logits `(B, C)` of images."""
    import keras

    both = keras.Model(model.input, [layer.output, model.output])
    seen, logits = both(images)
    return np.array(seen), np.array(logits)


def shifted(image: np.ndarray, step: int) -> np.ndarray:
    """Returns an image `(H, W, F)` moved to the right by `step`; what comes in is 0."""
    wide = np.pad(image, [(0, 0), (abs(step), abs(step)), (0, 0)])
    first = abs(step) - step
    return wide[:, first : first + image.shape[1]]


def _layers_with_maps(model: "keras.Model") -> list["keras.Layer"]:
    """Returns the layers from the first convolution on that give maps `(B, h, w, K)`."""
    first = [model.layers.index(one) for one in _convolutions(model)[:1]]
    after = model.layers[first[0] :] if first else []
    return [layer for layer in after if len(layer.output.shape) == 4]


def _convolutions(model: "keras.Model") -> list["keras.Layer"]:
    import keras

    return [one for one in model.layers if isinstance(one, keras.layers.Conv2D)]


def _grid(rows: int, columns: int, side: float) -> tuple[plt.Figure, np.ndarray]:
    """Returns a figure of small pictures without axes, `side` inches each."""
    size = (max(4.5, side * columns), side * rows + 0.6)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def picture(image: np.ndarray, white: int) -> np.ndarray:
    """Returns an image `(H, W, F)` from 0 to 1, without `F` if it is grey."""
    shown = image.astype(np.float64) / white
    return shown[..., 0] if shown.shape[-1] == 1 else shown


def _plain(text: str) -> str:
    """Returns a name that is not to be drawn as a formula."""
    return text.replace("$", r"\$")


OF_CLASSES = {
    "confusion": confusion,
    "mistakes": mistakes,
    "reliability": reliability,
}
OF_CONVOLUTIONS = {
    "filters": filters,
    "maps": maps,
    "places": places,
    "moved": moved,
}
