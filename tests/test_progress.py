"""Where a `dvc repro` is, told from DVC's own output."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from engram import progress

ROOT = Path(__file__).parents[1]
STAGES = ["fetch@a", "train@x", "train@y", "compare"]


def test_each_stage_that_starts_gets_its_place_and_the_time_left():
    watched = progress.Progress(STAGES, {"fetch@a": 3, "train@x": 60, "compare": 2})
    assert b"[1/4] fetch@a: 0:00 gone, about 2:05 left" in watched.see(
        b"Running stage 'fetch@a':\n"
    )
    # train@y never ran: it is expected to take as long as train@x
    assert b"[2/4] train@x: 0:00 gone, about 2:02 left" in watched.see(
        b"Running stage 'train@x':\n"
    )


def test_a_stage_that_is_skipped_counts_as_done_and_adds_no_line():
    watched = progress.Progress(STAGES, {})
    skipped = b"Stage 'fetch@a' didn't change, skipping\n"
    assert watched.see(skipped) == skipped
    assert b"[2/4] train@x" in watched.see(b"Running stage 'train@x':\n")


def test_other_output_passes_through_unchanged():
    watched = progress.Progress(STAGES, {})
    for line in (b"Epoch 1/10\n", b"Running stage 'unknown':\n", b"\xff\x00\n"):
        assert watched.see(line) == line


def test_what_tensorflow_says_at_every_start_is_left_out_and_errors_are_not():
    watched = progress.Progress(STAGES, {})
    noise = b"I0000 00:00:1 1 cudart_stub.cc:31] Could not find cuda drivers\n"
    error = b"E0000 00:00:1 1 some.cc:7] out of memory\n"
    assert watched.see(noise + error) == error


def test_stages_of_studies_are_told_by_their_own_name():
    watched = progress.Progress(STAGES, {})
    line = b"Running stage 'studies/traffic/dvc.yaml:train@y':\n"
    assert b"[1/4] train@y" in watched.see(line)


def test_the_stages_are_those_that_dvc_lists():
    named = progress.stages(ROOT / "dvc.yaml")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    twice = len(params["datasets"]) + len(params["experiments"])
    once = ("pretraining", "depth_cliffs", "trainability_maps")
    count = 2 * twice + sum(len(params[key]) for key in once) + 1
    assert len(named) == len(set(named)) == count
    assert named[0] == "fetch@ring_road" and named[-1] == "compare"


def test_the_exit_code_of_the_command_is_kept_and_durations_are_noted(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: x}}")
    (tmp_path / "params.yaml").write_text("{}")
    clean = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    for code in (0, 3):
        said = f"print(\"Running stage 'one':\"); raise SystemExit({code})"
        command = [sys.executable, "-m", "engram.progress", sys.executable, "-c", said]
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True)
        assert done.returncode == code, done.stderr
        assert b"[1/1] one" in done.stdout
    assert (tmp_path / ".dvc/tmp/seconds.json").is_file()
