"""A folder of pictures becomes a dataset, or each file that is at fault is named."""

import io
import unicodedata

import numpy as np
import pytest
import tensorflow_datasets as tfds
import toy
from PIL import Image

from engram import datasets
from engram.datasets import picture_folder
from engram.datasets.picture_folder import PictureError

HOW = {"side": 8, "colour": True, "test": 0.2}


@pytest.fixture
def folder(tmp_path):
    toy.write_pictures(tmp_path / "mine")
    return tmp_path / "mine"


def _fetched(folder, **changes):
    target = folder.parent / "raw/mine"
    datasets.fetch("picture_folder", target, file=str(folder), **(HOW | changes))
    builder = tfds.builder_from_directory(target)
    return builder.info, {
        part: list(builder.as_data_source(split=part)) for part in ("train", "test")
    }


def _refused(folder):
    with pytest.raises(PictureError) as refused:
        datasets.fetch("picture_folder", folder.parent / "raw", file=str(folder), **HOW)
    assert not (folder.parent / "raw").exists()
    return str(refused.value)


def _saved(image, kind="PNG", **how):
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def test_every_picture_comes_to_one_part_with_its_class(folder):
    info, parts = _fetched(folder)
    assert info.features["label"].names == ["cat", "dog"]
    found = sorted(
        (int(one["label"]), int(one["image"][0, 0, 0]))
        for some in parts.values()
        for one in some
    )
    assert found == [(label, 10 * n) for label in (0, 1) for n in range(20)]
    assert all(one["image"].shape == (8, 8, 3) for one in parts["train"])
    share = len(parts["test"]) / 40
    assert 0.05 < share < 0.4 and {int(one["label"]) for one in parts["test"]} == {0, 1}


def test_a_picture_that_is_added_moves_no_other_and_copies_stay_together(folder):
    before = picture_folder.parts(folder, 0.2)
    Image.new("RGB", (9, 9), (1, 2, 3)).save(folder / "cat/new.png")
    one = before["test"][0].file
    copy = one.with_name("a copy.png")
    copy.write_bytes(one.read_bytes())
    after = picture_folder.parts(folder, 0.2)
    for part, some in before.items():
        assert set(some) <= set(after[part])
    assert copy in [picture.file for picture in after["test"]]
    names = [picture.file for picture in after["test"]]
    assert abs(names.index(copy) - names.index(one)) == 1


def test_parts_that_are_there_are_kept(folder):
    for part in ("train", "test"):
        toy.write_pictures(folder / part)
    for name in ("cat", "dog"):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
        (folder / "test" / name / "0.png").unlink()
    _, parts = _fetched(folder)
    assert [len(parts[part]) for part in ("train", "test")] == [40, 38]


def test_names_may_have_spaces_and_accents(folder):
    name = unicodedata.normalize("NFC", "chien très poilu")
    (folder / "dog").rename(folder / name)
    (folder / name / "0.png").rename(folder / name / "été à la mer.png")
    info, parts = _fetched(folder)
    assert info.features["label"].names == ["cat", name]
    assert sum(map(len, parts.values())) == 40


def test_grey_transparent_palette_and_turned_pictures_are_taken_as_they_look():
    def square(content, **how):
        return picture_folder.pixels(content, **({"side": 2, "colour": True} | how))

    grey = _saved(Image.new("L", (4, 4), 90))
    assert (square(grey) == 90).all() and square(grey, colour=False).shape == (2, 2, 1)
    clear = _saved(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
    assert (square(clear) == 255).all()
    palette = _saved(Image.new("P", (4, 4), 0))
    assert square(palette).shape == (2, 2, 3)
    sixteen = _saved(Image.fromarray(np.full((4, 4), 256 * 90, np.uint16)))
    assert abs(int(square(sixteen)[0, 0, 0]) - 90) <= 1
    wide = Image.new("RGB", (30, 10))
    wide.paste((255, 255, 255), (10, 0, 20, 10))  # the middle square
    assert (square(_saved(wide), side=4)[:, 1:3] > 200).all()
    half = Image.new("RGB", (4, 4))
    half.paste((255, 255, 255), (0, 0, 4, 2))  # above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right
    turned = square(_saved(half, "JPEG", exif=exif, quality=100), side=4)
    assert turned[:, 3].min() > 200 and turned[:, 0].max() < 60


def test_every_file_at_fault_is_named(folder):
    whole = (folder / "cat/0.png").read_bytes()
    jpeg = _saved(Image.effect_noise((64, 64), 90), "JPEG")
    faults = {
        "cat/empty.png": b"",
        "cat/cut off.jpg": jpeg[: len(jpeg) // 2],
        "cat/torn.png": whole[: len(whole) // 2],
        "cat/moving.gif": _saved(Image.new("P", (4, 4)), "GIF"),
        "dog/text.jpg": b"no picture at all",
    }
    for name, content in faults.items():
        (folder / name).write_bytes(content)
    (folder / "bird").mkdir()
    (folder / "list.txt").write_text("1")
    (folder / "dog/older").mkdir()
    told = _refused(folder)
    for name in [*faults, "bird", "list.txt", "dog/older"]:
        assert str(folder / name) in told
    assert "empty.png: the file is empty" in told
    assert "moving.gif: expected JPEG or PNG. Received: GIF" in told
    assert "bird: the class has no picture" in told
    assert len(told.splitlines()) == 8


def test_hidden_files_are_passed_over(folder):
    for name in (".DS_Store", "cat/.hidden.png", "dog/Thumbs.db"):
        (folder / name).write_bytes(b"something")
    _, parts = _fetched(folder)
    assert sum(map(len, parts.values())) == 40


def test_one_class_no_class_and_no_folder_are_refused(folder, tmp_path):
    for file in (folder / "dog").iterdir():
        file.unlink()
    (folder / "dog").rmdir()
    assert "expected two sub-folders or more" in _refused(folder)
    assert "Received: cat" in _refused(folder)
    (tmp_path / "nothing").mkdir()
    assert "Received: none" in _refused(tmp_path / "nothing")
    assert "there is no such folder" in _refused(tmp_path / "no")


def test_a_class_without_a_picture_in_a_part_is_named(folder):
    for n in range(1, 20):
        (folder / f"dog/{n}.png").unlink()
    assert "class 'dog' has no picture in the" in _refused(folder)
    assert "bring folders 'train' and 'test'" in _refused(folder)


def test_of_many_faults_some_are_shown_and_the_others_counted(folder):
    for n in range(30):
        (folder / f"cat/{n}.png").write_bytes(b"no picture %d" % n)
    told = _refused(folder).splitlines()
    assert len(told) == picture_folder.SHOWN + 1 and told[-1] == "and 10 more"


def test_a_picture_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(picture_folder, "PIXELS", 99)
    with pytest.raises(PictureError, match="at most 99 pixels. Received: 10 x 10"):
        picture_folder.pixels(_saved(Image.new("L", (10, 10))), 2, True)
