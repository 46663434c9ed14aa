"""The repository is found from anywhere in it, and its state is told truthfully."""

import os
import subprocess

import pytest

from engram import repository


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder, with nothing in the environment that names another."""
    for name in list(os.environ):
        if name.startswith(("DVC_", "GIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _git(folder, *arguments):
    name = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", *name, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def committed(place):
    """A repository with code, params, stages and results, all committed."""
    files = [
        "src/engram/x.py",
        "pipeline/train.py",
        "params.yaml",
        "dvc.yaml",
        "dvc.lock",
    ]
    files += ["pyproject.toml", "requirements.lock", "README.md", "results/report.html"]
    files += ["studies/traffic/params.yaml", "studies/traffic/dvc.lock"]
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("first\n")
    (place / ".dvc").mkdir()
    _git(place, "init", "--quiet")
    _git(place, "add", ".")
    _git(place, "commit", "--quiet", "-m", "first")
    return place


def test_the_root_is_the_nearest_folder_above_with_a_dvc_folder(place, monkeypatch):
    (place / ".dvc").mkdir()
    inner = place / "studies" / "traffic"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert repository.root() == place
    (inner / ".dvc").mkdir()
    assert repository.root() == inner


def test_dvc_root_names_the_root_whatever_the_folder(place, tmp_path, monkeypatch):
    (place / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "elsewhere"))
    assert repository.root() == tmp_path / "elsewhere"


def test_without_a_dvc_folder_the_root_is_where_we_are(place, monkeypatch):
    # the folders above the temporary one are not ours to clear
    if not any((folder / ".dvc").is_dir() for folder in place.parents):
        assert repository.root() == place


def test_a_relative_place_counts_from_the_root(place, tmp_path, monkeypatch):
    (place / ".dvc").mkdir()
    inner = place / "studies"
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert repository.resolve("mirror/data") == place / "mirror/data"
    assert repository.resolve("../shared") == tmp_path / "shared"
    assert repository.resolve(tmp_path / "absolute") == tmp_path / "absolute"


def test_a_tilde_is_the_home_folder(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert repository.resolve("~/mirror") == tmp_path / "mirror"


def test_a_clean_repository_has_its_commit_and_is_not_dirty(committed):
    head = _git(committed, "rev-parse", "HEAD")
    assert repository.git_state() == {"commit": head, "dirty": "no"}


@pytest.mark.parametrize(
    "name",
    [
        "src/engram/x.py",
        "pipeline/train.py",
        "params.yaml",
        "dvc.yaml",
        "studies/traffic/params.yaml",
        "pyproject.toml",
        "requirements.lock",
    ],
)
def test_changed_code_and_params_make_it_dirty(committed, name):
    (committed / name).write_text("second\n")
    assert repository.git_state()["dirty"] == name


@pytest.mark.parametrize(
    "name", ["dvc.lock", "studies/traffic/dvc.lock", "results/report.html", "README.md"]
)
def test_changed_results_do_not_make_it_dirty(committed, name):
    (committed / name).write_text("second\n")
    assert repository.git_state()["dirty"] == "no"


def test_code_that_git_does_not_know_makes_it_dirty(committed):
    (committed / "src/engram/new.py").write_text("new\n")
    assert repository.git_state()["dirty"] == "src/engram/new.py"


def test_removed_and_staged_changes_count(committed):
    (committed / "src/engram/x.py").unlink()
    (committed / "params.yaml").write_text("second\n")
    _git(committed, "add", "params.yaml")
    assert repository.git_state()["dirty"] == "params.yaml, src/engram/x.py"


def test_a_file_name_with_spaces_is_told_whole(committed):
    (committed / "src/engram/two words.py").write_text("new\n")
    assert repository.git_state()["dirty"] == "src/engram/two words.py"


def test_the_state_is_that_of_the_root_and_not_of_the_folder(
    committed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(committed))
    assert repository.git_state()["commit"] == _git(committed, "rev-parse", "HEAD")


def test_a_folder_without_git_has_no_commit(place):
    assert repository.git_state() == {"commit": "none", "dirty": "no"}


def test_a_repository_without_a_commit_has_none(place):
    _git(place, "init", "--quiet")
    (place / "params.yaml").write_text("first\n")
    assert repository.git_state() == {"commit": "none", "dirty": "params.yaml"}


def test_a_machine_without_git_works_too(committed, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert repository.git_state() == {"commit": "none", "dirty": "no"}


def test_changes_can_be_applied_whatever_is_in_a_file(committed, tmp_path):
    _git(committed, "config", "diff.noprefix", "true")
    _git(committed, "config", "diff.external", "false")
    contents = {
        "src/engram/x.py": b"# no newline at the end",
        "src/engram/dos.py": b"x = 1\r\ny = 2\r\n",
        "src/engram/latin.py": "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"),
        "src/engram/picture.bin": bytes(range(256)),
    }
    for name, content in contents.items():
        (committed / name).write_bytes(content)
    patch = tmp_path / "code.diff"
    patch.write_bytes(repository.changes())
    _git(committed, "stash", "--quiet", "--include-untracked")
    assert repository.changes() == b""
    _git(committed, "apply", str(patch))
    for name, content in contents.items():
        assert (committed / name).read_bytes() == content


def test_a_new_file_that_is_too_large_is_named(committed, monkeypatch):
    monkeypatch.setattr(repository, "LARGE", 10)
    (committed / "src/engram/large.py").write_text("x" * 11)
    assert repository.changes() == b"# left out, too large: src/engram/large.py\n"


def test_a_file_of_a_commit_and_the_commit_that_brought_a_text(committed, tmp_path):
    first = _git(committed, "rev-parse", "HEAD")
    (committed / "dvc.lock").write_text("second\n")
    _git(committed, "commit", "--quiet", "-am", "second")
    second = _git(committed, "rev-parse", "HEAD")
    lock = committed / "dvc.lock"
    assert repository.commit_of(lock, "second") == second != first
    assert repository.commit_of(lock, "third") == ""
    assert repository.at(first, "dvc.lock") == b"first\n"
    assert repository.at(first, "none.txt") is None
    assert repository.has(first) and not repository.has("0" * 40)
