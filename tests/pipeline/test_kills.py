"""`dvc repro` that was killed goes on where it was, and ends as if nothing had been."""

import random
import shutil

import kills
import pytest


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A repository in which nothing was stopped, one like it, and the seconds it took."""
    folder = kills.repository(tmp_path_factory.mktemp("kills") / "whole")
    copy = shutil.copytree(folder, folder.with_name("untouched"), symlinks=True)
    return folder, copy, kills.undisturbed(folder)


@pytest.mark.parametrize(
    ("way", "moments"), [(kills.group, 3), (kills.asked, 1), (kills.alone, 1)]
)
def test_a_killed_training_ends_as_one_that_was_not(whole, tmp_path, way, moments):
    folder, untouched, seconds = whole
    copy = shutil.copytree(untouched, tmp_path / "stopped", symlinks=True)
    for said in kills.disturbed(copy, moments, [way], seconds, random.Random()):
        print(said)
    kills.verify(copy, folder)
