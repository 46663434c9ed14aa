"""dvc.yaml declares exactly what the stages load, and every copy of it agrees."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toy
import yaml

from engram import params

STUDIES = sorted(path.parent.name for path in toy.ROOT.glob("studies/*/dvc.yaml"))
SUITES = [".", *(f"studies/{name}" for name in STUDIES)]
# Not declared, so that an edit of them reruns nothing: a package's __init__ goes from a
# word to the module of that name and hands over what it needs, params returns the file's
# own values, tracking and what it uses write the record. Other tests hold what they do.
RECORD = ("tracking", "recorded", "delivery", "outbox", "store", "transcript")
RECORD += ("open_runs", "repository")
# Which checkpoints are used: with all, the result is the same.
RECORD += ("restarts", "stage_key", "code_changes", "locked")
EXEMPT = ("params.py", "param_forms/", *(f"{name}.py" for name in RECORD))
MODELS = list(params.MODELS)
PREPARED = (
    "toy",
    "adding",
    "moving_digits",
    "digits",
    "bars_and_stripes",
    "pictures",
    "tiny_french",
    "gaussian_mixture",
    "judged",
)  # one dataset of each task
IMAGES = {"dataset": "digits", "task": "classification"}
PICTURES = {"dataset": "pictures", "task": "reconstruction"}
SENTENCES = {"dataset": "tiny_french", "task": "translation", "train": toy.BY_TOKENS}
ON_A_GRID = ("conv_lstm", "conv_stlm")  # words of another task, too
OF_ONES_OWN = ("detector_csv", "picture_folder")
DOWNLOADS = {
    f"fetch@{source}"
    for source in (
        "los_loop",
        "mnist",
        "fashion_mnist",
        "stacked_mnist",
        "cat_or_not",
        "nyc_taxi",
        "montevideo_bus",
        "multi30k",
        "fra_eng",
    )
}


def _is_exempt(file):
    exempt = tuple(f"src/engram/{name}" for name in EXEMPT)
    return file.endswith("/__init__.py") or file.startswith(exempt)


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """What DVC makes of every dvc.yaml, from a copy of the repository's YAML files."""
    copy = tmp_path_factory.mktemp("yaml")
    for suite in SUITES:
        (copy / suite).mkdir(parents=True, exist_ok=True)
        for name in ("dvc.yaml", "params.yaml"):
            shutil.copy(toy.ROOT / suite / name, copy / suite / name)
    toy.write_dvc_config(copy)
    return toy.stages(copy)


def test_there_is_a_dvc_yaml_in_the_root_and_in_every_study():
    ignored = {".venv", ".dvc", ".git"}
    paths = [p.relative_to(toy.ROOT) for p in toy.ROOT.rglob("dvc.yaml")]
    found = {str(p.parent) for p in paths if not ignored & set(p.parts)}
    assert found == set(SUITES)
    studies = {
        str(p.relative_to(toy.ROOT).parent) for p in toy.ROOT.glob("studies/*/*.yaml")
    }
    assert studies == {f"studies/{name}" for name in STUDIES}


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_resolves_to_the_stages_of_its_params(resolved, suite):
    values = yaml.safe_load((toy.ROOT / suite / "params.yaml").read_text())
    expected = {"compare"}
    expected |= {f"{s}@{n}" for s in ("fetch", "prepare") for n in values["datasets"]}
    expected |= {f"pretrain@{n}" for n in values["pretraining"]}
    expected |= {f"depth_cliff@{n}" for n in values["depth_cliffs"]}
    expected |= {f"trainability_map@{n}" for n in values["trainability_maps"]}
    expected |= {f"{s}@{n}" for s in ("train", "evaluate") for n in values["experiments"]}
    assert set(resolved[suite]) == expected


@pytest.mark.parametrize("suite", SUITES)
def test_no_suite_has_too_many_stages(resolved, suite):
    """DVC reads all of them at each call: a repro without changes has 8 seconds.

    The tour holds every system once and has room for experiments of one's own; a study
    that grows becomes two.
    """
    assert 0 < len(resolved[suite]) <= (80 if suite == "." else 40)


@pytest.mark.parametrize("suite", SUITES)
def test_every_source_file_that_a_suite_names_exists(resolved, suite):
    files = {d for stage in resolved[suite].values() for d in stage["deps"]}
    ours = [file for file in files if file.endswith((".py", ".tsv"))]
    missing = [file for file in ours if not (toy.ROOT / suite / file).is_file()]
    assert ours and not missing


@pytest.mark.parametrize("suite", SUITES)
def test_fetch_declares_the_table_that_it_reads(resolved, suite):
    """No import tells that."""
    table = (toy.ROOT / "src/engram/datasets/mirror.tsv").resolve()
    for name, stage in resolved[suite].items():
        if name.startswith("fetch@"):
            assert table in [(toy.ROOT / suite / d).resolve() for d in stage["deps"]]


@pytest.mark.parametrize("suite", SUITES)
def test_the_params_of_every_suite_are_accepted(suite):
    params.load(toy.ROOT / suite / "params.yaml")


@pytest.mark.parametrize("suite", SUITES)
def test_every_experiment_names_the_layers_of_its_model(suite):
    """Those that the toy experiments name, whose imports other tests compare."""
    text = (toy.ROOT / suite / "params.yaml").read_text().replace("../../", "")
    for name, block in yaml.safe_load(text)["experiments"].items():
        expected = toy.experiment(block["model"])["layers"]
        if expected.startswith("src/engram/models/") and "/pretrained" in block["start"]:
            expected = "src/engram/layers/rbm"  # the weights that it starts with
        assert f"{expected}/".startswith(f"{block['layers']}/"), name  # it, or around it


def test_stages_and_scripts_have_the_same_names():
    stages = yaml.safe_load((toy.ROOT / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {path.stem for path in (toy.ROOT / "pipeline").glob("*.py")}
    for name, stage in stages.items():
        body = stage.get("do", stage)
        assert body["cmd"].split()[:2] == ["python", f"pipeline/{name}.py"]
        assert f"pipeline/{name}.py" in body["deps"]


@pytest.mark.parametrize("study", STUDIES)
def test_the_stages_of_a_study_are_those_of_the_root(study):
    text = (toy.ROOT / "studies" / study / "dvc.yaml").read_text()
    here = yaml.safe_load(text.replace("../../", ""))
    assert here == yaml.safe_load((toy.ROOT / "dvc.yaml").read_text())
    for path in ("pipeline/", "src/engram/"):
        lines = [n for n in text.splitlines() if path in n and not n.startswith("#")]
        assert lines and all(f"../../{path}" in line for line in lines)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Runs every stage kind with every word; returns (declared, loaded) by stage."""
    copy = tmp_path_factory.mktemp("loaded")
    toy.copy_repository(copy)
    toy.write_pictures(copy / "mine")
    tables = "src/engram/datasets/checksums.tsv"
    toy.write_params(
        copy,
        {f"toy-{word}": toy.experiment(word, **_place(word)) for word in MODELS}
        | {f"grid-{word}": toy.experiment(word) for word in ON_A_GRID}
        | {
            "stacked": toy.experiment("deep_net", start="runs/stack/pretrained", **IMAGES)
            | {"layers": "src/engram/layers/rbm"}
        }
        | {
            "coded": toy.experiment(
                "deep_autoencoder", start="runs/coded-stack/pretrained", **PICTURES
            )
            | {"layers": "src/engram/layers/rbm"}
        }
        | {"adding-gru": toy.experiment("gru", dataset="adding", task="sequences")},
        {"toy": toy.dataset()}
        | {s: toy.dataset(tables, s) for s in params.SOURCES if s not in OF_ONES_OWN}
        | {"picture_folder": toy.dataset("mine", "picture_folder")}
        | {"adding": toy.dataset(tables, "adding", task="sequences")}
        | {"moving_digits": toy.dataset(tables, "moving_digits", task="video")}
        | {"digits": toy.dataset(tables, "digits", task="classification")}
        | {"bars_and_stripes": toy.dataset(tables, "bars_and_stripes", task="density")}
        | {"pictures": toy.dataset(tables, "digits", task="reconstruction")}
        | {"gaussian_mixture": toy.dataset(tables, "gaussian_mixture", task="generation")}
        | {"judged": toy.dataset(tables, "digits", task="image_generation")}
        | {"tiny_french": toy.tiny_french()},
        pretraining={
            "stack": toy.stack(),
            "coded-stack": toy.stack("deep_autoencoder", **PICTURES),
        },
        depth_cliffs={"cliff": toy.cliff()},
        trainability_maps={"map": toy.trainability_map()},
    )
    toy.write_dvc_config(copy)
    found = {}
    with toy.warm_python() as warm:
        order = "fetch prepare pretrain train evaluate depth_cliff".split()
        order += ["trainability_map", "compare"]
        stages = toy.stages(copy)["."]
        for name in sorted(stages, key=lambda name: order.index(name.split("@")[0])):
            kind, _, key = name.partition("@")
            if kind == "prepare" and key not in PREPARED:
                continue
            record = copy / "modules.json"
            record.unlink(missing_ok=True)
            # These fetches end at once for want of a mirror, their module loaded.
            more = {"RECORD_MODULES": record, "ENGRAM_MIRROR": copy / "no-mirror"}
            if name in ("fetch@toy", "fetch@ring_road"):
                del more["ENGRAM_MIRROR"]
            env = toy.environment(copy, warm, DVC_ROOT=copy, **more)
            done = toy.call(stages[name]["cmd"].split(), copy, env)
            expected = name in DOWNLOADS
            assert (done.returncode != 0) == expected, (name, done.stdout, done.stderr)
            found[name] = stages[name]["deps"], _of_engram(record, copy)
            if name == "prepare@toy":  # four detectors
                spec = copy / "data/prepared/toy/spec.json"
                spec.write_text(spec.read_text().replace("network", "grid 2 x 2"))
    return found


def _place(word):
    if word in toy.IMAGES:
        return IMAGES
    if word in toy.DENSITIES:
        return {"dataset": "bars_and_stripes", "task": "density"}
    if word in toy.RECONSTRUCTIONS:
        return PICTURES
    if word in toy.GENERATORS:
        return {"dataset": "gaussian_mixture", "task": "generation"}
    if word in toy.IMAGE_GENERATORS:
        return {"dataset": "judged", "task": "image_generation"}
    if word in toy.TRANSLATIONS:
        return SENTENCES
    return {"dataset": "moving_digits", "task": "video"} if word in toy.VIDEO else {}


def _of_engram(record, copy):
    modules = json.loads(record.read_text())
    ours = {n: f for n, f in modules.items() if n.split(".")[0] == "engram"}
    return {str(Path(file).relative_to(copy)) for file in ours.values()}


KINDS = ["fetch@toy", *(f"fetch@{s}" for s in params.SOURCES if s != "detector_csv")]
KINDS += ["compare", *(f"prepare@{name}" for name in PREPARED)]
KINDS += ["train@adding-gru", "evaluate@adding-gru"]
KINDS += ["pretrain@stack", "train@stacked", "evaluate@stacked"]
KINDS += ["pretrain@coded-stack", "train@coded", "evaluate@coded"]
KINDS += ["depth_cliff@cliff", "trainability_map@map"]
KINDS += [f"{kind}@toy-{word}" for kind in ("train", "evaluate") for word in MODELS]
KINDS += [f"{kind}@grid-{word}" for kind in ("train", "evaluate") for word in ON_A_GRID]


@pytest.mark.parametrize("name", KINDS)
def test_a_stage_declares_every_module_that_it_loads(loaded, name):
    declared, files = loaded[name]
    assert files  # something of ours was loaded, and recorded
    found = [file for file in files if not _is_exempt(file)]
    folders = tuple(f"{path}/" for path in declared)
    assert [f for f in found if f not in declared and not f.startswith(folders)] == []


@pytest.mark.parametrize("name", KINDS)
def test_a_stage_declares_no_module_that_it_does_not_load(loaded, name):
    declared, files = loaded[name]
    modules = {f for f in declared if f.startswith("src/") and f.endswith(".py")}
    assert {file for file in modules if not _is_exempt(file)} <= files


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_stage_of_a_model_loads_no_other_model(loaded, kind):
    shared = {f"src/engram/models/{name}.py" for name in ("__init__", *params.PREPARE)}
    for word in MODELS:
        _, files = loaded[f"{kind}@toy-{word}"]
        models = {file for file in files if file.startswith("src/engram/models/")}
        assert models - shared == {f"src/engram/models/{word}.py"}


def test_every_model_task_and_source_word_loads_the_module_of_its_name(tmp_path):
    toy.write_pictures(tmp_path / "mine")
    code = (
        "import json, pathlib, sys; from engram import datasets, models, params, tasks\n"
        "at, form = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])\n"
        "def builder(word):\n"
        "    built = datasets.builder(word, at, at / 'mine', **form.get(word, {}))\n"
        "    module, ours = type(built).__module__, f'engram.datasets.{word}'\n"
        "    catalogue = module.startswith('tensorflow_datasets.')\n"
        "    return ours if catalogue and ours in sys.modules else module\n"
        "print(json.dumps({\n"
        "  'models': {w: models._module(w).__name__ for w in params.MODELS},\n"
        "  'tasks': {w: tasks.task(w).__name__ for w in params.PREPARE},\n"
        "  'datasets': {w: builder(w) for w in params.SOURCES}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(toy.FETCH)],
        env=toy.environment(toy.ROOT),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["models"]) == set(MODELS)
    for folder, words in found.items():
        assert words == {word: f"engram.{folder}.{word}" for word in words}


def test_every_module_of_a_word_has_its_word():
    shared = {
        "models": set(params.PREPARE),
        "tasks": {
            f"{task}_{kind}" for task in params.PREPARE for kind in ("metrics", "figures")
        },
        "datasets": {"mirror", "readings", "parallel_text"},
    }
    words = {"models": MODELS, "tasks": params.PREPARE, "datasets": params.SOURCES}
    for folder, known in words.items():
        files = (toy.ROOT / "src/engram" / folder).glob("*.py")
        assert {f.stem for f in files} - {"__init__"} == set(known) | shared[folder]
