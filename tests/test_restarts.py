"""Which checkpoints the next start of a stage may use."""

import json
import os
import time

import pytest
import toy

from engram import checkpoints, locked, restarts, stops

STAGE = "train@one"
PARAMS = {"experiments.one": {"units": 3}}


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A suite of one stage, which is not in `dvc.lock`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "code.py").write_text("a = 1\n")
    stage = {"cmd": "true", "deps": ["code.py"], "outs": ["out"]}
    text = json.dumps({"stages": {"train": {"foreach": ["one", "two"], "do": stage}}})
    (tmp_path / "dvc.yaml").write_text(text.replace('"out"', '"out-${item}"'))
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        module = ["python", "-m"] if command[0] == "dvc" else []
        done = toy.call([*module, *command], tmp_path, toy.environment(tmp_path))
        assert done.returncode == 0, done.stderr
    return tmp_path


def trained(params=PARAMS, epoch=0):
    """Does the stage; returns the epoch that it found before."""
    with restarts.kept(STAGE, params) as folder:
        found = checkpoints.read(folder / "fit")
        checkpoints.write(folder / "fit", {}, {"epoch": epoch})
    return found and found.about["epoch"]


def stopped(params=PARAMS, epoch=0):
    with pytest.raises(KeyboardInterrupt), restarts.kept(STAGE, params) as folder:
        checkpoints.write(folder / "fit", {}, {"epoch": epoch})
        raise KeyboardInterrupt


def lock(suite, monkeypatch):
    """Lets `dvc.lock` have the stage as it is."""
    entry = locked.Entry(STAGE, {"code.py": digest(suite)}, PARAMS, {}, "")
    monkeypatch.setattr(locked, "read", lambda place: {STAGE: entry})


def digest(suite):
    return restarts.locked.code_changes.digest_of({"": (suite / "code.py").read_bytes()})


def test_where_dvc_knows_of_no_stages_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with restarts.kept(STAGE, PARAMS) as folder:
        assert folder is None
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    with restarts.kept(STAGE, PARAMS) as folder:
        assert folder is None
    assert [one.name for one in tmp_path.iterdir()] == ["dvc.yaml"]


def test_what_was_stopped_goes_on(suite):
    stopped(epoch=4)
    assert trained() == 4


@pytest.mark.parametrize("change", ["params", "code"])
def test_of_other_params_or_code_it_does_not(suite, capsys, change):
    stopped(epoch=4)
    params = {"experiments.one": {"units": 4}} if change == "params" else PARAMS
    if change == "code":
        (suite / "code.py").write_text("a = 2\n")
    assert trained(params) is None
    said = f"{STAGE}: its checkpoints of other params, code or data are not used\n"
    assert capsys.readouterr().out == said
    (suite / "code.py").write_text("a = 1\n")
    assert trained() == 4  # taken back


def test_other_versions_of_packages_begin_anew(suite, monkeypatch):
    stopped(epoch=4)
    monkeypatch.setattr(restarts.importlib.metadata, "version", lambda name: "0")
    assert trained() is None


def test_what_is_done_is_used_again_only_if_dvc_lost_it(suite, monkeypatch):
    trained(epoch=1)
    assert trained(epoch=2) is None  # without DVC: it is wanted again
    monkeypatch.setenv("DVC_STAGE", STAGE)
    assert trained(epoch=3) == 2  # `dvc` was killed before it wrote `dvc.lock`
    lock(suite, monkeypatch)
    assert trained(epoch=4) is None  # `dvc repro --force`
    stopped(epoch=5)
    assert trained() == 5  # which was stopped


def test_what_stops_a_training_is_one_line_and_nothing_is_lost(suite):
    with pytest.raises(SystemExit, match="train one: no room"):
        with restarts.kept(STAGE, PARAMS) as folder:
            checkpoints.write(folder / "fit", {}, {"epoch": 7})
            raise stops.Stopped("no room")
    with restarts.kept(STAGE, PARAMS):
        with pytest.raises(SystemExit, match=rf"process {os.getpid()} is at it already"):
            with restarts.kept(STAGE, PARAMS):
                pass
        with restarts.kept(STAGE, PARAMS, alone=False) as folder:  # another worker
            assert checkpoints.read(folder / "fit").about["epoch"] == 7


def test_after_a_week_others_are_forgotten_unless_they_are_at_it(suite):
    other = {"experiments.one": {"units": 4}}
    stopped(epoch=1)
    stopped(other, epoch=2)
    (one, two) = restarts.folder_of(STAGE, suite).iterdir()
    for folder in (one, two):
        past = time.time() - restarts.KEPT - 60
        os.utime(folder, (past, past))
    with checkpoints.alone(one), checkpoints.alone(two):
        third = {"experiments.one": {"units": 5}}
        trained(third)
        assert one.exists() and two.exists()
    for folder in (one, two):
        os.utime(folder, (past, past))
    trained(third)
    assert not one.exists() and not two.exists()
