"""The commands that the README names."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile and params, and an environment that looks installed."""
    for name in ("Makefile", "params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (tmp_path / ".venv" / name).symlink_to(BIN.parent / name)
    (tmp_path / ".venv/installed").touch()
    return tmp_path


def _make(folder, *arguments):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)


def _seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_misspelt_key_stops_make_repro_before_any_stage(clone):
    params = clone / "params.yaml"
    params.write_text(params.read_text().replace("{units: 36}", "{unit: 36}"))
    began = _seconds_of_children()
    done = _make(clone, "repro")
    assert _seconds_of_children() - began < 2  # of work: the machine may be busy
    assert done.returncode != 0
    wanted = "experiments.traffic-gru.args: unknown 'unit'. Did you mean 'units'?"
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr and "Running stage" not in done.stdout


def test_the_interface_binds_to_loopback(clone):
    done = _make(clone, "-n", "ui")
    assert "--host 127.0.0.1" in done.stdout


def test_a_study_that_does_not_exist_is_told_which_do(clone):
    (clone / "studies/traffic").mkdir(parents=True)
    done = _make(clone, "study", "NAME=trafic")
    assert done.returncode != 0
    assert "make study NAME=<name>, one of: traffic" in done.stdout + done.stderr


def test_a_python_that_is_too_old_is_told_what_is_needed(clone):
    (clone / ".venv/installed").unlink()
    old = clone / "python3"
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; from collections import"
        ' namedtuple; V = namedtuple("V", "major minor");'
        ' sys.version_info = V(3, 9); exec(sys.argv[2])\' "$@"\n'
    )
    old.chmod(0o755)
    done = _make(clone, "install", f"PYTHON={old}")
    assert done.returncode != 0
    assert "needs Python 3.11 to 3.13" in done.stderr


def test_help_lists_every_target():
    listed = set(re.findall(r"^(\w+) ", _make(ROOT, "help").stdout, re.MULTILINE))
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == set(targets)
