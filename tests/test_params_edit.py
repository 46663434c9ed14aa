"""A value of `params.yaml` is changed, and nothing else."""

import random
from pathlib import Path

import pytest
import yaml

from engram import params_edit

TEXT = """# A comment.
datasets: {a: {n: 1}}
experiments:
  one:  # of three
    args: {units: 18, combine: concat, sizes: [1, 2]}   # here, too
    train: &trained {epochs: 10, rate: 0.03}
  two:
    args:
      units: 7
    train: *trained
  three: {args: {units: 1}, train: {epochs: 5, rate: 0.1}}
"""


def changed(**changes):
    names = {key.replace("__", "."): value for key, value in changes.items()}
    return params_edit.edited(TEXT, names)


@pytest.mark.parametrize(
    "name, value, old, new",
    [
        ("experiments__one__args__units", 24, "units: 18", "units: 24"),
        ("experiments__one__args__combine", "sum", "concat", "sum"),
        ("experiments__one__args__sizes", [3], "[1, 2]", "[3]"),
        ("experiments__two__args__units", None, "units: 7", "units: null"),
        ("experiments__three__train__rate", 1e-5, "rate: 0.1", "rate: 1.0e-05"),
        ("experiments__three__train__rate", True, "rate: 0.1", "rate: true"),
        (
            "experiments__two__train__rate",
            0.5,
            "train: *trained",
            "train: {<<: *trained, rate: 0.5}",
        ),
    ],
)
def test_one_value_changes(name, value, old, new):
    after = changed(**{name: value})
    assert after == TEXT.replace(old, new, 1)
    before, now = yaml.safe_load(TEXT), yaml.safe_load(after)
    *folders, last = name.split("__")
    for key in folders:
        before, now = before[key], now[key]
    assert now[last] == value and {**before, last: value} == now


def test_two_values_of_a_copied_block():
    after = changed(
        experiments__two__train__rate=0.5,
        experiments__two__train__epochs=3,
    )
    values = yaml.safe_load(after)["experiments"]
    assert values["two"]["train"] == {"epochs": 3, "rate": 0.5}
    assert values["one"]["train"] == {"epochs": 10, "rate": 0.03}


def test_a_block_that_others_copy_is_left_alone():
    with pytest.raises(params_edit.NotEdited, match="&trained, of which others"):
        changed(experiments__one__train__rate=0.5)


def test_a_name_that_is_not_there():
    with pytest.raises(KeyError, match="experiments.four"):
        changed(experiments__four__args=1)


def test_any_value_of_the_tour_can_be_changed_alone():
    path = Path(__file__).parents[1] / "params.yaml"
    text = path.read_text()
    whole = yaml.safe_load(text)
    names = [
        f"experiments.{name}.{part}.{key}"
        for name, block in whole["experiments"].items()
        for part in ("args", "train")
        for key, value in block[part].items()
        if not isinstance(value, list | dict)
    ]
    edited = 0
    for name in random.Random(1).sample(names, 40):
        try:
            now = yaml.safe_load(params_edit.edited(text, {name: 987}))
        except params_edit.NotEdited:
            continue
        edited += 1
        _, experiment, part, key = name.split(".")
        block = whole["experiments"][experiment]
        expected = {**block, part: {**block[part], key: 987}}
        assert now == {
            **whole,
            "experiments": {**whole["experiments"], experiment: expected},
        }
    assert edited > 20


@pytest.mark.parametrize(
    "text, name",
    [
        ("a: {b: &x {n: 1}}\nc:\n  <<: *x\n", "c.n"),  # block style
        ("a: &x {n: 1}\nb: {<<: *x,}\n", "b.n"),  # a comma at the end
        ("a: [1, {n: 1}]\n", "a"),
    ],
)
def test_what_cannot_be_changed_safely_is_left_alone(text, name):
    value = "x}: {y" if name == "a" else 2
    try:
        after = params_edit.edited(text, {name: value})
    except params_edit.NotEdited:
        return
    *folders, last = name.split(".")
    place = yaml.safe_load(after)
    for key in folders:
        place = place[key]
    assert place[last] == value


def test_the_file_is_replaced_as_a_whole(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(TEXT)
    params_edit.write(file, {"datasets.a.n": 2})
    assert file.read_text() == TEXT.replace("n: 1", "n: 2", 1)
    assert list(tmp_path.iterdir()) == [file]
