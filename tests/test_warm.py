"""A stage that starts warm is the stage: its output, its end, its signals."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from engram import warm

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or Path("/dev/nvidiactl").exists(),
    reason="stages start cold here",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of scripts, with a warm `python` first on PATH."""
    folder = tmp_path_factory.mktemp("scripts")
    with warm.python() as start:
        start()
        start()  # once is enough
        place = Path(os.environ["PATH"].split(":")[0])
        end = time.monotonic() + 300
        while not (place / "socket").exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        yield folder
    assert str(place) not in os.environ["PATH"] and not place.exists()


IS_WARM = "import os, sys; assert 'keras' in sys.modules\n"


def stage(folder, code, *arguments, **how):
    (folder / "stage.py").write_text(code)
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    return subprocess.Popen(["python", "stage.py", *arguments], cwd=folder, **how)


def test_it_has_tensorflow_and_nothing_of_engram(folder):
    code = (
        "import sys, os; print(sys.argv[1:], __name__, os.getcwd(), __file__)\n"
        "print({'tensorflow', 'keras', 'mlflow', 'engram'} & set(sys.modules))\n"
    )
    said, _ = stage(folder, code, "a", "b c").communicate()
    first, second = said.splitlines()
    assert first == f"['a', 'b c'] __main__ {folder} {folder}/stage.py"
    assert "engram" not in second and "tensorflow" in second


def test_it_has_the_environment_and_the_input_of_who_asked(folder):
    code = IS_WARM + "print(os.environ['WORD'], input(), os.environ.get('OTHER'))"
    os.environ["OTHER"] = "of the process that waits, not of the stage"
    env = {k: v for k, v in os.environ.items() if k != "OTHER"} | {"WORD": "hello"}
    del os.environ["OTHER"]
    asked = stage(folder, code, env=env, stdin=subprocess.PIPE)
    assert asked.communicate("there\n")[0] == "hello there None\n"


@pytest.mark.parametrize(
    "code, expected, said",
    [
        ("pass", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('a word')", 1, "a word\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os; os.abort()", -signal.SIGABRT, ""),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM, ""),
    ],
)
def test_it_ends_as_the_stage_ends(folder, code, expected, said):
    asked = stage(folder, IS_WARM + code)
    _, error = asked.communicate()
    assert asked.returncode == expected
    assert error.endswith(said)


WAITS = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored from above
try:
    print(os.getpid(), flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted")
    raise SystemExit(7)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_signal_goes_on_to_the_stage(folder):
    asked = stage(folder, WAITS)
    pid = int(asked.stdout.readline())
    assert pid != asked.pid
    asked.send_signal(signal.SIGINT)
    assert asked.communicate()[0] == "interrupted\n" and asked.returncode == 7
    assert not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_stage_ends_with_who_asked(folder, number):
    asked = stage(folder, WAITS)
    pid = int(asked.stdout.readline())
    assert pid != asked.pid
    asked.send_signal(number)
    asked.communicate()
    assert asked.returncode == -number
    end = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_stages_run_at_a_time(folder):
    several = [stage(folder, WAITS) for _ in range(2)]
    for one in several:  # each has begun while the other runs
        assert int(one.stdout.readline()) != one.pid
    for one in several:
        one.terminate()
        one.communicate()


def test_without_the_process_that_waits_the_script_is_python_itself(tmp_path):
    with warm.python():
        code = "import sys; print('keras' in sys.modules, sys.argv[1:])"
        assert stage(tmp_path, code, "a").communicate()[0] == "False ['a']\n"
        line = ["python", "-c", "print(1)"]
        assert subprocess.run(line, capture_output=True).stdout == b"1\n"


def test_it_trains_to_the_digits_of_a_cold_start(folder):
    code = (
        "import keras, numpy as np\n"
        "keras.utils.set_random_seed(1)\n"
        "net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, 'tanh'),"
        " keras.layers.Dense(1)])\n"
        "net.compile('adam', 'mse')\n"
        "x = np.random.default_rng(1).normal(size=(64, 8)).astype('float32')\n"
        "net.fit(x, x[:, :1], epochs=3, verbose=0)\n"
        "print([w.tobytes().hex() for w in net.get_weights()])\n"
    )
    asked, error = stage(folder, IS_WARM + code).communicate()
    (folder / "cold.py").write_text(code)
    cold = [sys.executable, "cold.py"]
    done = subprocess.run(cold, cwd=folder, capture_output=True, text=True)
    assert asked == done.stdout and len(asked) > 100, error


def waiting(address):
    """Returns the processes that wait there, also those that are about to."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = place.read_bytes().decode(errors="replace").split("\0")
            found += [int(place.parent.name)] if {"serve", address} <= set(words) else []
    return found


def test_the_process_that_waits_ends_with_the_one_that_started_it(tmp_path):
    code = (
        "import os, signal, time\n"
        "from engram import warm\n"
        "with warm.python() as start:\n"
        "    start()\n"
        "    place = os.environ['PATH'].split(':')[0]\n"
        "    while not os.path.exists(f'{place}/socket'): time.sleep(0.1)\n"
        "    print(place, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    place = Path(done.stdout.strip())
    end = time.monotonic() + 120
    assert done.returncode == -signal.SIGKILL and place.is_dir()
    while waiting(f"{place}/socket"):
        assert time.monotonic() < end
        time.sleep(0.1)
    shutil.rmtree(place)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_ctrl_z_stops_both_and_they_go_on_together(folder):
    asked = stage(folder, WAITS)
    pid = int(asked.stdout.readline())
    asked.send_signal(signal.SIGTSTP)
    for wanted, number in (("T", signal.SIGCONT), ("S", signal.SIGINT)):
        end = time.monotonic() + 60
        while {state(pid), state(asked.pid)} != {wanted}:
            assert time.monotonic() < end
            time.sleep(0.05)
        asked.send_signal(number)
    assert asked.communicate()[0] == "interrupted\n" and asked.returncode == 7


def test_a_folder_with_spaces_is_no_trouble(tmp_path, monkeypatch):
    (tmp_path / "a b").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a b"))
    with warm.python():
        assert stage(tmp_path, "print('here')").communicate()[0] == "here\n"
