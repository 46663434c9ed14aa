"""Checkpoints are whole or are not there, and a damaged one is not used."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import toy

from engram import checkpoints

ARRAYS = {"variable/0": np.arange(6.0).reshape(2, 3), "metric/0": np.float32(3)}


def files(folder):
    return sorted(file.name for file in folder.iterdir())


def test_what_is_written_is_read(tmp_path):
    assert checkpoints.read(tmp_path) is None
    about = {"epoch": 3, "history": {"loss": [0.1 + 0.2, float("inf")]}}
    checkpoints.write(tmp_path, ARRAYS, about)
    found = checkpoints.read(tmp_path)
    assert found.about == about and found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_the_last_two_are_kept(tmp_path):
    for n in range(12):
        checkpoints.write(tmp_path, ARRAYS, {"epoch": n})
    assert [name[:7] for name in files(tmp_path)] == ["000011-", "000012-"]
    assert checkpoints.read(tmp_path).about["epoch"] == 11


@pytest.mark.parametrize("how", ["flipped", "torn", "empty"])
def test_of_a_damaged_one_the_one_before_is_used(tmp_path, capsys, how):
    for n in range(2):
        checkpoints.write(tmp_path, ARRAYS, {"epoch": n})
    newest = tmp_path / files(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"flipped": content, "torn": content[:-9], "empty": b""}[how])
    assert checkpoints.read(tmp_path).about["epoch"] == 0
    assert f"{newest} is not what was written" in capsys.readouterr().out
    assert checkpoints.read(tmp_path).about["epoch"] == 0
    assert capsys.readouterr().out == ""  # it is said once
    checkpoints.write(tmp_path, ARRAYS, {"epoch": 2})
    assert checkpoints.read(tmp_path).about["epoch"] == 2


def test_where_all_are_damaged_none_is_used(tmp_path):
    checkpoints.write(tmp_path, ARRAYS, {})
    (tmp_path / files(tmp_path)[0]).write_bytes(b"")
    assert checkpoints.read(tmp_path) is None


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_leaves_those_before(tmp_path, monkeypatch, where):
    for n in range(2):
        checkpoints.write(tmp_path, ARRAYS, {"epoch": n})
    before = files(tmp_path)

    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner = os if where == "fsync" else checkpoints.Path
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, full)
        said = rf"no checkpoint of [\d,]+ bytes .* {tmp_path}: No space left on device"
        with pytest.raises(checkpoints.NotWritten, match=said):
            checkpoints.write(tmp_path, ARRAYS, {"epoch": 2})
    assert files(tmp_path) == before
    assert checkpoints.read(tmp_path).about["epoch"] == 1
    checkpoints.write(tmp_path, ARRAYS, {"epoch": 2})
    assert checkpoints.read(tmp_path).about["epoch"] == 2


def test_one_process_at_a_time_and_none_after_it_was_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from engram import checkpoints\n"
        "with checkpoints.alone(Path(sys.argv[1])):\n"
        "    print('in', flush=True), time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=toy.environment(toy.ROOT),
    ) as other:
        assert other.stdout.readline()
        said = f"process {other.pid} is at it already"
        with pytest.raises(checkpoints.Busy, match=said), checkpoints.alone(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    with checkpoints.alone(tmp_path):
        pass
