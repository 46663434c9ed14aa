"""Pictures of one's own: a folder with a sub-folder for each class.

    pictures/<class>/<picture>          the builder deals them to training and test part
    pictures/train/<class>/<picture>    or the parts are there already,
    pictures/test/<class>/<picture>     with the same classes

Pictures are JPEG or PNG of any size. They are turned as their EXIF says, transparent
places are laid on white, and the middle square is scaled to `side` pixels. Files whose
name begins with a dot, and `Thumbs.db`, are passed over; everything else that is no
readable picture is named, and nothing is written.
"""

import hashlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

PARTS = ("train", "test")
FORMATS = ("JPEG", "PNG")
SHOWN = 20  # faults in one message
PIXELS = 100_000_000  # of the largest picture that is decoded


class PictureError(ValueError):
    """A folder of pictures cannot be used, told to its owner."""


class Picture(NamedTuple):
    """A file, the name of its class, and the sha256 of its content."""

    file: Path
    label: str
    digest: str


class PictureFolder(tfds.core.GeneratorBasedBuilder):
    """A folder of pictures, a sub-folder for each class.

    An example:

        image   uint8 (side, side, 3), or (side, side, 1) if grey
        label   int64   which of the sub-folders, in the order of their names

    Which part a picture comes to, and its place there, follows from its content: copies
    stay together, and a picture that is added moves no other one.

    Args:
        file: path of the folder.
        side: int, pixels of an image's side.
        colour: bool, whether images are red, green and blue, or grey.
        test: float, about which share becomes the test part. Not used if there are
            folders `train` and `test`.
        **kwargs: of the TFDS builder, such as `data_dir`.

    Raises:
        PictureError: naming each file or folder that is at fault.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos: dict[str, object] = {}  # it downloads nothing

    def __init__(
        self, *, file: str | Path, side: int, colour: bool, test: float, **kwargs
    ):
        self.side, self.colour = side, colour
        self.parts = parts(Path(file), test)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.side, self.side, 3 if self.colour else 1)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures in a folder for each class.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(
                        shape=shape, dtype=np.uint8, encoding="bytes"
                    ),
                    "label": tfds.features.ClassLabel(names=classes(self.parts["train"])),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {part: self._generate_examples(part) for part in PARTS}

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for n, one in enumerate(self.parts[part]):
            image = pixels(one.file.read_bytes(), self.side, self.colour)
            yield n, {"image": image, "label": one.label}


def parts(folder: Path, test: float) -> dict[str, list[Picture]]:
    """Returns the pictures of `"train"` and `"test"`, each ordered by content.

    Raises:
        PictureError: if there is no such folder, there is but one class, a class has no
            picture in a part, or files cannot be read; all of them are named.
    """
    if not folder.is_dir():
        raise PictureError(f"{folder}: there is no such folder in {Path.cwd()}")
    faults: list[str] = []
    given = all((folder / part).is_dir() for part in PARTS)
    if given:
        found = {part: _pictures(folder / part, faults) for part in PARTS}
    else:
        every = _pictures(folder, faults)
        found = {
            "train": [one for one in every if _place(one) >= test],
            "test": [one for one in every if _place(one) < test],
        }
    names = {one.label for some in found.values() for one in some}
    if len(names) < 2:
        faults.append(
            f"{folder}: expected two sub-folders or more, a class each."
            f" Received: {', '.join(names) or 'none'}"
        )
    hint = "" if given else "; add some, or bring folders 'train' and 'test'"
    faults += [
        f"{folder}: class {name!r} has no picture in the {part} part{hint}"
        for part in PARTS
        for name in sorted(names - set(classes(found[part])))
    ]
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise PictureError("\n".join([*faults[:SHOWN], *more]))
    return {
        part: sorted(some, key=lambda one: one.digest) for part, some in found.items()
    }


def classes(pictures: list[Picture]) -> list[str]:
    """Returns the names of the classes, in order."""
    return sorted({one.label for one in pictures})


def pixels(content: bytes, side: int, colour: bool) -> np.ndarray:
    """Returns a picture's middle square: uint8 `(side, side, 3)` or `(side, side, 1)`.

    Raises:
        PictureError: if it is no whole JPEG or PNG.
    """
    if not content:
        raise PictureError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(content), formats=[*FORMATS, "GIF", "WEBP"])
            if opened.format not in FORMATS:
                raise PictureError(f"expected JPEG or PNG. Received: {opened.format}")
            if opened.width * opened.height > PIXELS:
                raise PictureError(
                    f"expected at most {PIXELS:,} pixels."
                    f" Received: {opened.width} x {opened.height}"
                )
            image = _eight_bits(ImageOps.exif_transpose(opened)).convert("RGBA")
    except PictureError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"not a readable picture: {error}") from error
    paper = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(paper, image).convert("RGB" if colour else "L")
    fitted = ImageOps.fit(flat, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(fitted, np.uint8).reshape(side, side, -1)


def _pictures(folder: Path, faults: list[str]) -> list[Picture]:
    """Returns the pictures of all classes of a folder; adds to `faults` what is none."""
    found = []
    for place in _listed(folder):
        if not place.is_dir():
            faults.append(f"{place}: expected in the sub-folder of a class")
            continue
        files = _listed(place)
        if not files:
            faults.append(f"{place}: the class has no picture")
        for file in files:
            if file.is_dir():
                faults.append(f"{file}: expected a picture. Received: a folder")
                continue
            content = file.read_bytes()
            try:
                pixels(content, side=1, colour=False)
            except PictureError as error:
                faults.append(f"{file}: {error}")
            digest = hashlib.sha256(content).hexdigest()
            found.append(Picture(file, place.name, digest))
    return found


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns a grey image of 16 bits with 8; `convert` would make all of it white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) // 256).astype(np.uint8))


def _listed(folder: Path) -> list[Path]:
    passed = ("Thumbs.db",)
    return sorted(
        one
        for one in folder.iterdir()
        if not one.name.startswith(".") and one.name not in passed
    )


def _place(picture: Picture) -> float:
    """Returns a number in [0, 1) that follows from the content."""
    return int(picture.digest[:12], 16) / 16**12
