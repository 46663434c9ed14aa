"""A stage runs with what it declares and nothing else, and leaves what it declares."""

import contextlib
import dataclasses
import json
import resource
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
import toy

REFIT = toy.experiment("stlm", toy.REFIT, start="runs/toy-stlm/chosen.json")
SUITE = {
    "toy-persistence": toy.experiment("persistence"),
    "toy-average": toy.experiment("historical_average"),
    "toy-ridge": toy.experiment("ridge"),
    "toy-gru": toy.experiment("gru"),
    "toy-stlm": toy.experiment("stlm", toy.TRAINED),
    "toy-stlm-80": REFIT,
}
LIGHT = ["fetch@toy", "prepare@toy", "compare"]
STAGES = ["fetch@toy", "prepare@toy"]
STAGES += [f"{kind}@{name}" for kind in ("train", "evaluate") for name in SUITE]
STAGES += ["compare"]
EXEMPT = (
    "params.py",
    "param_forms",
    "tracking.py",
    "recorded.py",
    "repository.py",
    "delivery.py",
    "open_runs.py",
    "outbox.py",
    "store.py",
    "transcript.py",
    "restarts.py",
    "stage_key.py",
    "code_changes.py",
    "locked.py",
)  # test_dvc_yaml.py tells why


@dataclasses.dataclass
class Ran:
    folder: Path
    declared: dict
    returncode: int
    output: str
    left: set
    modules: dict


@pytest.fixture(scope="module")
def corridor(tmp_path_factory):
    """Runs each stage in a folder of its own; outs go through `store` to the next."""
    store = tmp_path_factory.mktemp("store")
    toy.copy_repository(store)
    toy.write_params(store, SUITE)
    toy.write_dvc_config(store)
    declared, ran = toy.stages(store)["."], {}
    assert set(declared) == set(STAGES)
    with toy.warm_python() as warm:
        for name in STAGES:
            folder = tmp_path_factory.mktemp(name.replace("@", "-"))
            ran[name] = _run(name, declared[name], store, folder, warm)
            for out in declared[name]["outs"]:
                if (folder / out).exists():
                    _copy(folder / out, store / out)
    return store, ran


def _run(name, declared, store, folder, warm):
    exempt = [store / "src/engram" / file for file in EXEMPT]
    for path in [*exempt, *(store / "src").rglob("__init__.py")]:
        _copy(path, folder / path.relative_to(store))
    for path in ("params.yaml", *declared["deps"]):
        if not (store / path).exists():
            missing = f"{name} did not run: no earlier stage has left {path}"
            return Ran(folder, declared, 1, missing, set(), {})
        _copy(store / path, folder / path)
    before = _files(folder)
    record = store / "modules.json"
    record.unlink(missing_ok=True)
    env = toy.environment(folder, warm, DVC_ROOT=store, RECORD_MODULES=record)
    command = declared["cmd"].split()
    if name in LIGHT:  # a python of its own, so that its record is the whole truth
        command = [sys.executable, str(toy.WARM), "once", *command[1:]]
    done = toy.call(command, folder, env)
    return Ran(
        folder,
        declared,
        done.returncode,
        done.stdout + done.stderr,
        _files(folder) - before,
        json.loads(record.read_text()) if record.is_file() else {},
    )


def _copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def _files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_succeeds_in_a_folder_that_holds_only_what_it_declares(corridor, name):
    ran = corridor[1][name]
    assert ran.returncode == 0, ran.output


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_leaves_its_outs_and_nothing_else(corridor, name):
    ran = corridor[1][name]
    for out in ran.declared["outs"]:
        assert (ran.folder / out).exists()
        assert any(file == out or file.startswith(f"{out}/") for file in ran.left)
    outs = tuple(f"{out}/" for out in ran.declared["outs"])
    assert not [f for f in ran.left if not f"{f}/".startswith(outs)]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_loads_the_modules_of_its_own_folder(corridor, name):
    ran = corridor[1][name]
    ours = {n: f for n, f in ran.modules.items() if n.split(".")[0] == "engram"}
    assert "engram.params" in ours
    assert not [f for f in ours.values() if not Path(f).is_relative_to(ran.folder)]


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_stage_never_loads_tensorflow(corridor, name):
    modules = corridor[1][name].modules
    assert "engram.params" in modules
    assert not {"tensorflow", "keras"} & set(modules)
    assert name == "compare" or "mlflow" not in modules


def test_every_seed_has_a_model_a_history_and_a_run(corridor):
    store, _ = corridor
    for name, block in SUITE.items():
        seeds = {str(seed) for seed in block["train"]["seeds"]}
        runs = store / "runs" / name
        assert set(json.loads((runs / "run.json").read_text())) == seeds
        assert set(json.loads((runs / "history.json").read_text())) == seeds
        files = {file.name for file in (runs / "models").iterdir()}
        assert files == {f"seed-{seed}.keras" for seed in seeds}


def test_the_rate_of_the_lower_validation_loss_is_used_for_every_seed(corridor):
    store, _ = corridor
    runs = json.loads((store / "runs/toy-stlm/run.json").read_text())
    chosen = json.loads((store / "runs/toy-stlm/chosen.json").read_text())
    assert {run["rate"] for run in runs.values()} == {chosen["learning_rate"]}
    tried = _losses_by_rate(store, "toy-stlm", seed="1")
    assert set(tried) == {0.001, 0.003}
    assert chosen["learning_rate"] == min(tried, key=tried.get)


def _losses_by_rate(store, name, seed):
    rows = sqlite3.connect(store / "mlruns/mlflow.db").execute(
        "select r.name, m.value from runs r join metrics m using (run_uuid)"
        " where m.key = 'val_loss' and r.name like ?",
        (f"{name} seed {seed} rate %",),
    )
    return {float(title.split()[-1]): value for title, value in rows}


def test_a_refit_takes_over_what_its_start_has_chosen(corridor):
    store, _ = corridor
    chosen = json.loads((store / "runs/toy-stlm/chosen.json").read_text())
    again = json.loads((store / "runs/toy-stlm-80/chosen.json").read_text())
    runs = json.loads((store / "runs/toy-stlm-80/run.json").read_text())
    history = json.loads((store / "runs/toy-stlm-80/history.json").read_text())
    assert again == chosen
    assert {run["rate"] for run in runs.values()} == {chosen["learning_rate"]}
    assert {len(one["loss"]) for one in history.values()} == {chosen["stop_after"]}
    assert not any("val_loss" in one for one in history.values())


def test_evaluation_reports_the_training_it_measured(corridor):
    store, _ = corridor
    for name, block in SUITE.items():
        about = json.loads((store / f"metrics/{name}.json").read_text())
        assert about["experiment"] == name
        assert about["seeds"] == block["train"]["seeds"]
        assert set(about["headline"]) <= set(about["metrics"])
        assert all(value > 0 for value in about["metrics"].values())
        runs = json.loads((store / f"runs/{name}/run.json").read_text()).values()
        assert about["peak_memory"] == max(run["peak_memory"] for run in runs)
        assert 100 < about["peak_memory"] < 20_000  # MiB


def test_evaluation_hands_on_the_learning_curves_of_what_is_trained(corridor):
    store, _ = corridor
    for name, block in SUITE.items():
        details = json.loads((store / f"metrics/{name}.details.json").read_text())
        found = [c for c in details["curves"] if c["title"].startswith("Learning")]
        history = json.loads((store / f"runs/{name}/history.json").read_text())
        key = "loss" if block == REFIT else "val_loss"
        losses = [seed[key] for seed in history.values()]
        if len(losses[0]) < 2:
            assert found == []
            continue
        (curve,) = found
        means = [sum(at) / len(at) for at in zip(*losses, strict=True)]
        assert curve["y"] == pytest.approx(means)
        assert curve["x"] == list(range(1, 1 + len(losses[0])))


def test_mlflow_has_the_settings_numbers_data_and_pictures_of_a_run(corridor):
    store, _ = corridor
    with contextlib.closing(sqlite3.connect(store / "mlruns/mlflow.db")) as tables:

        def of(run_id, what):
            return dict(tables.execute(what, (run_id,)).fetchall())

        for name, block in SUITE.items():
            runs = json.loads((store / "runs" / name / "run.json").read_text())
            first = next(iter(runs.values()))["run_id"]
            about = json.loads((store / f"metrics/{name}.json").read_text())
            numbers = of(
                first, "select key, value from latest_metrics where run_uuid = ?"
            )
            for key in about["headline"]:
                if len(runs) == 1:  # else it is one seed of a mean
                    assert numbers[key] == pytest.approx(about["metrics"][key])
            settings = of(first, "select key, value from params where run_uuid = ?")
            assert settings["model"] == block["model"]
            assert settings["seed"] == str(block["train"]["seeds"][0])
            assert {"train.strategy", "train.jit_compile"} <= set(settings)
            ((digest,),) = tables.execute(
                "select d.digest from datasets d join inputs i on i.source_id ="
                " d.dataset_uuid where i.destination_id = ?",
                (first,),
            )
            assert about["fingerprint"].startswith(digest)
            (place,) = tables.execute(
                "select artifact_uri from runs where run_uuid = ?", (first,)
            ).fetchone()
            kept = Path(place.removeprefix("file://"))
            assert len(list((kept / "figures").glob("*.png"))) == 3
            assert [f.suffix for f in (kept / "model").iterdir()] == [".keras"]


def test_the_comparison_holds_every_experiment_and_every_figure(corridor):
    store, _ = corridor
    text = (store / "results/comparison.json").read_text()
    groups = json.loads(text)["datasets"]
    assert {row["experiment"] for group in groups for row in group["rows"]} == set(SUITE)
    page = (store / "results/report.html").read_text()
    pictures = list((store / "figures").rglob("*.png"))
    assert len(pictures) >= 3 * len(SUITE)
    assert page.count("data:image/png;base64,") == len(pictures)


def test_a_second_comparison_writes_the_same_bytes(corridor, tmp_path):
    store, ran = corridor
    shutil.copytree(ran["compare"].folder, tmp_path / "again")
    folder = tmp_path / "again"
    first = {p.name: p.read_bytes() for p in (folder / "results").iterdir()}
    shutil.rmtree(folder / "results")
    script = [sys.executable, "pipeline/compare.py"]
    done = toy.call(script, folder, toy.environment(folder))
    assert done.returncode == 0, done.stderr
    assert {p.name: p.read_bytes() for p in (folder / "results").iterdir()} == first


def test_a_comparison_without_all_experiments_says_which_are_left_out(corridor, tmp_path):
    _, ran = corridor
    folder = tmp_path / "again"
    shutil.copytree(ran["compare"].folder, folder)
    (folder / "metrics/toy-ridge.json").unlink()
    script = [sys.executable, "pipeline/compare.py"]
    done = toy.call(script, folder, toy.environment(folder))
    assert done.returncode == 0, done.stderr
    assert "not evaluated yet, so left out: toy-ridge\n" in done.stdout
    lines = json.loads((folder / "results/summary.json").read_text())
    (line,) = [one for one in lines if one["id"] == "toy-ridge"]
    assert line["ours"] is None and line["difference"] == "not run yet"
    assert {one["id"] for one in lines} == set(SUITE)
    groups = json.loads((folder / "results/comparison.json").read_text())["datasets"]
    named = {row["experiment"] for group in groups for row in group["rows"]}
    assert named == set(SUITE) - {"toy-ridge"}


def test_the_repository_itself_gets_no_record(corridor):
    store, _ = corridor
    assert (store / "mlruns/mlflow.db").is_file()
    assert not [p for p in (toy.ROOT / "mlruns").rglob("*toy*")]


def _modules_of(arguments, tmp_path, **more):
    record = tmp_path / "modules.json"
    env = toy.environment(toy.ROOT, RECORD_MODULES=record, **more)
    command = [sys.executable, str(toy.WARM), "once", *arguments]
    done = toy.call(command, tmp_path, env)
    assert done.returncode == 0, done.stderr
    return set(json.loads(record.read_text()))


def test_the_simulated_ring_road_needs_no_tensorflow(tmp_path):
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from engram import datasets\n"
        "datasets.builder('ring_road', Path('raw'), 'checksums.tsv')\n"
    )
    modules = _modules_of(["script.py"], tmp_path)
    assert "engram.datasets.ring_road" in modules
    assert not {"tensorflow", "keras"} & modules


def test_fetching_embedded_data_needs_no_tensorflow(tmp_path):
    digits = {"source": "digits", "fetch": {"unseen_hands": False}}
    prepare = {"validation": 0, "labelled": None, "balanced": False}
    block = {"task": "classification", **digits, "prepare": prepare}
    block["file"] = "src/engram/datasets/digits.py"
    toy.write_params(tmp_path, {}, datasets={"digits": block})
    script = str(toy.ROOT / "pipeline/fetch.py")
    modules = _modules_of([script, "digits"], tmp_path)
    assert (tmp_path / "data/raw/digits/dataset_info.json").is_file()
    assert {"tensorflow_datasets", "engram.datasets.digits"} <= modules
    assert not {"tensorflow", "keras", "mlflow"} & modules


def test_checking_params_needs_no_tensorflow(tmp_path):
    toy.write_params(tmp_path, SUITE)
    (tmp_path / "script.py").write_text(
        "import runpy; runpy.run_module('engram.params', run_name='__main__')"
    )
    modules = _modules_of(["script.py"], tmp_path)
    assert "pydantic" in modules
    assert not {"tensorflow", "keras", "mlflow", "numpy"} & modules


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_a_misspelt_key_stops_a_stage_before_tensorflow(tmp_path, script):
    block = toy.experiment("gru")
    toy.write_params(tmp_path, {"toy-gru": {**block, "args": {"unit": 64}}})
    record = tmp_path / "modules.json"
    env = toy.environment(toy.ROOT, RECORD_MODULES=record)
    path = str(toy.ROOT / f"pipeline/{script}.py")
    before = _seconds_of_children()
    command = [sys.executable, str(toy.WARM), "once", path, "toy-gru"]
    done = toy.call(command, tmp_path, env)
    spent = _seconds_of_children() - before
    assert done.returncode == 1
    message = "experiments.toy-gru.args: unknown 'unit'. Did you mean 'units'?"
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "tensorflow" not in json.loads(record.read_text())
    assert not (tmp_path / "runs").exists()
    assert spent < 2


def _seconds_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
