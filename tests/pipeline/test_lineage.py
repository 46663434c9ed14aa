"""Links from results to runs hold wherever the repository goes."""

import json
import re
import shlex
import shutil
import sqlite3
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import servers
import toy
import yaml

EXPERIMENTS = {
    "toy-persistence": toy.experiment("persistence"),
    "toy-gru": toy.experiment("gru", train=toy.TRAINED),
}
MODEL = "runs/toy-gru/models/seed-2.keras"


@pytest.fixture(scope="module")
def warm():
    with toy.warm_python() as folder:
        yield folder


@pytest.fixture(scope="module", autouse=True)
def quick(warm):
    """Lets `engram` fork a process that has MLflow loaded."""
    engram.warm = warm


def engram(folder, *arguments):
    command = ["python", str(folder / "src/engram/__main__.py"), *arguments]
    env = toy.environment(folder, engram.warm)
    return toy.call([str(engram.warm / "python"), *command[1:]], folder, env)


def dvc(folder, *arguments, warm=None):
    command = [sys.executable, "-m", "dvc", *arguments]
    done = toy.call(command, folder, toy.environment(folder, warm))
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def git(folder, *arguments):
    name = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    done = toy.call(["git", *name, *arguments], folder, toy.environment(folder))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def first(tmp_path_factory, warm):
    """A repository whose suite ran once, was synced and committed, with a DVC remote."""
    folder = tmp_path_factory.mktemp("lineage") / "first"
    toy.copy_repository(folder)
    toy.write_params(folder, EXPERIMENTS)
    (folder / "requirements.lock").write_text("numpy==2.4.6\n")
    (folder / "mlruns").mkdir(exist_ok=True)
    shutil.copy(toy.ROOT / "mlruns/.gitignore", folder / "mlruns")
    git(folder, "init", "--quiet", "--initial-branch=main")
    dvc(folder, "init", "--quiet")
    remote = "[core]\n    remote = there\n    analytics = false\n['remote \"there\"']\n"
    (folder / ".dvc/config").write_text(f"{remote}    url = {folder.parent}/remote\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "The toy suite")
    dvc(folder, "repro", warm=warm)
    done = engram(folder, "sync")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "Its results")
    dvc(folder, "push")
    return folder


@pytest.fixture
def again(first, tmp_path):
    return Path(shutil.copytree(first, tmp_path / "again", symlinks=True))


def held(folder, what):
    """Asserts that all links hold; returns the lines."""
    done = engram(folder, "lineage", what)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ links hold$", done.stdout, re.MULTILINE)
    return done.stdout


def broken(folder, what):
    """Returns the lines of the links that do not hold."""
    done = engram(folder, "lineage", what)
    assert done.returncode == 1, done.stdout + done.stderr
    return re.findall(r"✗ (.*)", done.stdout)


def runs(folder):
    """Returns of each active run its id, name and tags."""
    query = (
        "select r.run_uuid, r.name, t.key, t.value from runs r join tags t"
        " using (run_uuid) where r.lifecycle_stage = 'active'"
    )
    found = {}
    for run_id, name, key, value in sqlite3.connect(folder / "mlruns/mlflow.db").execute(
        query
    ):
        found.setdefault((run_id, name), {})[key] = value
    return found


def change_units(folder, units):
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["experiments"]["toy-gru"]["args"]["units"] = units
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def test_every_result_leads_to_its_stages_and_its_runs(first):
    said = held(first, MODEL)
    for stage in ("train@toy-gru", "prepare@toy", "fetch@toy"):
        assert f"  stage {stage}\n" in said
    assert "✓ experiments.toy-gru is as in params.yaml" in said
    assert len(re.findall(r"^  run \w{32} 'toy-gru seed \d rate ", said, re.M)) == 2
    assert said.count("✓ its model is seed-") == 2
    for file in ("metrics/toy-gru.json", "figures/toy-persistence"):
        held(first, file)
    said = held(first, "results/report.html")
    assert "stage compare" in said and "'comparison of tour'" in said
    assert "✓ its report is results/report.html" in said


def test_the_run_of_a_comparison_leads_to_its_results(first):
    (run_id,) = [i for (i, name) in runs(first) if name == "comparison of tour"]
    said = held(first, run_id)
    assert said.startswith("results/comparison.json") and "stage compare" in said


def test_a_run_leads_back_to_its_files(first):
    kept = json.loads((first / "runs/toy-gru/run.json").read_text())
    said = held(first, kept["2"]["run_id"])
    assert said.startswith(MODEL)
    ids = {about["run_id"] for about in kept.values()}
    (tried,) = [
        i for (i, name) in runs(first) if "toy-gru seed 1" in name and i not in ids
    ]
    said = "it is not the run that train@toy-gru of dvc.lock kept"
    assert said in broken(first, tried)


def test_what_is_no_result_is_said(first):
    for what, said in (
        ("f" * 32, "no file here, and neither run nor model of the store"),
        ("models:/none@champion", "neither run nor model"),
        ("params.yaml", "no stage of .*dvc.lock wrote it"),
        ("/etc/passwd", "no dvc.yaml in the folders above it"),
    ):
        done = engram(first, "lineage", what)
        assert done.returncode == 1 and re.search(said, done.stderr), done.stderr


def test_two_runs_are_told_apart(first):
    said = engram(first, "diff", "toy-persistence", "toy-gru").stdout
    assert re.search(r"^  args.units +– +3$", said, re.MULTILINE)
    assert re.search(r"^  model +persistence +gru$", said, re.MULTILINE)
    (row,) = re.findall(r"^  rmse_to_60 +(\S+) +(\S+) +(\S+)$", said, re.MULTILINE)
    one, other, change = (float(cell) for cell in row)
    assert change == pytest.approx(other - one, rel=1e-2)
    assert said.endswith("where from: the same\n")
    assert "system/" not in said
    same = engram(first, "diff", "toy-gru", "toy-gru").stdout
    assert same.count("the same") == 3
    done = engram(first, "diff", "toy-gru", "toy-lstm")
    assert done.returncode == 1
    assert "toy-lstm: neither a run of the store nor an experiment here." in done.stderr
    assert "Experiments that ran here: toy-gru, toy-persistence" in done.stderr


def test_each_link_that_does_not_hold_is_named(again):
    with (again / MODEL).open("ab") as file:
        file.write(b"x")
    found = broken(again, MODEL)
    assert any(line.startswith("runs/toy-gru/models is not what") for line in found)
    assert "its model cannot be opened, or is not seed-2.keras" in found
    change_units(again, 5)
    (again / "src/engram/models/gru.py").write_text("# another\n")
    (again / "requirements.lock").write_text("another\n")
    (again / "data/prepared/toy/spec.json").write_text('{"fingerprint": "another"}')
    found = broken(again, "metrics/toy-gru.json")
    assert "experiments.toy-gru is not as in params.yaml" in found
    assert any(line.startswith("its data is not toy as prepared") for line in found)
    said = engram(again, "lineage", "metrics/toy-gru.json").stdout
    assert "✓ src/engram/models/gru.py as in commit" in said
    assert "✓ its packages are those of requirements.lock in its commit, not here" in said


def test_a_second_sync_does_nothing_and_does_not_load_mlflow(first):
    before = (first / "mlruns/mlflow.db").read_bytes()
    code = "import sys; from engram import sync; sync.main([]);"
    code += "print('mlflow' in sys.modules)"
    done = toy.call([sys.executable, "-c", code], first, toy.environment(first))
    assert done.stdout == "False\n", done.stderr
    assert (first / "mlruns/mlflow.db").read_bytes() == before


def test_the_links_hold_after_the_folder_moved(again, tmp_path):
    shutil.move(again, tmp_path / "moved")
    held(tmp_path / "moved", MODEL)


def test_a_clone_gets_the_runs_of_what_it_pulled_once(first, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(first), str(clone))
    dvc(clone, "pull")
    assert any("MLflow does not know run" in line for line in broken(clone, MODEL))
    said = engram(clone, "sync").stdout
    assert said.count("recorded as restored") == 3  # two seeds, and persistence
    held(clone, MODEL)
    held(clone, "metrics/toy-persistence.json")
    (clone / ".dvc/tmp/synced.json").unlink()
    assert engram(clone, "sync").stdout == ""
    run_id, _ = next(iter(runs(clone)))
    held(clone, run_id)
    found = runs(clone)
    assert len(found) == 3
    kept = json.loads((first / "runs/toy-gru/run.json").read_text())
    ids = {tags["restored_from"] for tags in found.values()}
    assert {about["run_id"] for about in kept.values()} < ids


def test_a_sync_before_the_pull_keeps_none_from_the_one_behind_it(first, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(first), str(clone))
    assert engram(clone, "sync").stdout == ""
    dvc(clone, "pull", "runs/toy-gru/models")  # without its data
    assert engram(clone, "sync").stdout == ""
    dvc(clone, "pull")
    assert engram(clone, "sync").stdout.count("recorded as restored") == 3


def test_a_result_whose_recording_was_cut_off_is_recorded_again(first, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(first), str(clone))
    dvc(clone, "pull")
    code = (
        "from engram import sync, tracking\n"
        "def stop(*a): raise KeyboardInterrupt\n"
        "tracking.log_files = stop\n"
        "sync.main([])"
    )
    done = toy.call([sys.executable, "-c", code], clone, toy.environment(clone))
    assert done.returncode != 0
    engram(clone, "sync")
    held(clone, MODEL)


def test_a_clone_of_the_last_commit_alone_does_not_guess_where_code_came_from(
    first, tmp_path
):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{first}", str(clone))
    dvc(clone, "pull")
    engram(clone, "sync")
    assert {tags["git.commit"] for tags in runs(clone).values()} == {"unknown"}
    assert "its commit, unknown, is not in git" in broken(clone, MODEL)


def test_an_old_commit_and_back(again, warm):
    dvc(again, "repro")  # nothing
    change_units(again, 4)
    git(again, "commit", "--quiet", "-am", "Larger")
    dvc(again, "repro", warm=warm)
    assert engram(again, "sync").stdout == ""
    git(again, "add", ".")
    git(again, "commit", "--quiet", "-m", "Its results")
    held(again, MODEL)
    many = len(runs(again))
    git(again, "checkout", "--quiet", "HEAD~2")
    dvc(again, "checkout")
    assert engram(again, "sync").stdout == ""
    held(again, MODEL)
    git(again, "checkout", "--quiet", "main")
    dvc(again, "checkout")
    assert engram(again, "sync").stdout == ""
    held(again, MODEL)
    assert len(runs(again)) == many


def test_a_hit_of_the_run_cache_keeps_its_run(again, warm):
    change_units(again, 4)
    dvc(again, "repro", warm=warm)
    change_units(again, 3)
    done = dvc(again, "repro", warm=warm)
    assert "Stage 'train@toy-gru' is cached - skipping run" in done.stdout
    engram(again, "sync")
    held(again, MODEL)


def test_code_that_was_not_committed_is_attached_to_its_run(again, warm):
    change_units(again, 6)
    new = again / "src/engram/new_file.py"
    new.write_text("LETTER = 'é'\n")
    dvc(again, "repro", warm=warm)
    engram(again, "sync")
    assert "what differed from it is attached" in held(again, MODEL)
    patch, *_ = (file.read_text() for file in (again / "mlruns").rglob("code.diff"))
    assert "+LETTER = 'é'" in patch
    git(again, "stash", "--quiet", "--include-untracked")
    (again / "code.patch").write_text(patch)
    git(again, "apply", "code.patch")
    assert new.read_text() == "LETTER = 'é'\n"


def served(command, folder):
    """Runs the command that `promote` printed, on another port."""
    words = shlex.split(command)
    assert words[-2:] == ["--port", "5001"]
    name, _, store = words.pop(0).partition("=")
    assert (name, words[0]) == ("MLFLOW_TRACKING_URI", "mlflow")
    command = [*words[:-2], "--timeout", "600"]  # other work may slow us down
    return servers.started(
        command, "ping", folder, toy.environment(folder, **{name: store})
    )


def asked(address, body):
    """Returns the status and the answer of a server."""
    request = urllib.request.Request(
        f"{address}/invocations", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_promoted_model_is_its_runs_and_answers_after_a_move(again, tmp_path):
    done = engram(again, "promote", "toy-persistence")
    assert done.stdout.startswith("toy: version 1 is champion\n"), done.stderr
    done = engram(again, "promote", "toy-gru")
    assert done.stdout.startswith("toy: version 2 is champion; version 1 was\n")
    moved = Path(shutil.move(again, tmp_path / "moved"))
    said = held(moved, "models:/toy@champion")
    losses = json.loads((moved / "runs/toy-gru/run.json").read_text())
    best = min(losses, key=lambda seed: losses[seed]["held_loss"])
    assert f"logged by run {losses[best]['run_id']}\n" in said
    assert f"✓ its model.keras is the seed-{best}.keras of the run\n" in said
    held(moved, "models:/toy/1")

    (file,) = (
        one
        for one in (moved / "mlruns").rglob("served/example.json")
        if json.loads((one.parent / "serving.json").read_text())["model"] == "gru"
    )
    example = json.loads(file.read_text())
    command = done.stdout.splitlines()[1].replace(str(again), str(moved))
    with served(command, moved) as address:
        body = json.dumps({"inputs": example["request"]}).encode()
        status, answer = asked(address, body)
        assert status == 200
        expected = example["answer"]["forecast"]
        for row, forecast in zip(answer["predictions"], expected, strict=True):
            for found, known in zip(row["forecast"], forecast, strict=True):
                assert found == pytest.approx(known, rel=1e-5)
        status, answer = asked(address, b'{"inputs": {"readings": [[1]]}}')
        assert status == 400
        assert "Tensor('float32', (-1, 4, 4))" in answer["message"]


def test_a_broken_link_is_no_champion(again):
    change_units(again, 5)
    done = engram(again, "promote", "toy-gru")
    assert done.returncode == 1
    assert "promote toy-gru: its lineage does not hold:" in done.stderr
    assert "✗ experiments.toy-gru is not as in params.yaml" in done.stderr
    assert "models:/" not in done.stdout


def test_a_promoted_model_that_was_changed_is_told(again):
    engram(again, "promote", "toy-gru")
    (file,) = (again / "mlruns").rglob("served/model.keras")
    shutil.copy(again / "runs/toy-persistence/models/seed-1.keras", file)
    spec = file.with_name("spec.json")
    spec.write_text(spec.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    one, other = broken(again, "models:/toy@champion")
    assert one.startswith("its model.keras cannot be opened, or is not the seed-")
    assert other == "its spec.json cannot be opened, or is not of the run's data"
