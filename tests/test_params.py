"""`params.yaml` is checked before anything runs, and the check changes no value."""

import ast
import copy
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy
import yaml

from engram import params

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "params.yaml", *sorted(ROOT.glob("studies/*/params.yaml"))]
STLM = "experiments.traffic-stlm"
REFIT = {"batch_size": 8, "seeds": [1], "strategy": "auto", "jit_compile": True}


@pytest.fixture
def tour():
    """The tour's params, every block a dict of its own."""
    return json.loads(json.dumps(yaml.safe_load(FILES[0].read_text())))


@pytest.fixture
def stlm(tour):
    return tour["experiments"]["traffic-stlm"]


@pytest.fixture
def road(tour):
    return tour["datasets"]["ring_road"]


@pytest.fixture
def fault(tmp_path):
    """Returns the message with which `load` refuses values, or a file's text."""

    def refused(values):
        file = tmp_path / "params.yaml"
        if isinstance(values, bytes):
            file.write_bytes(values)
        else:
            text = values if isinstance(values, str) else yaml.safe_dump(values)
            file.write_text(text, encoding="utf-8")
        with pytest.raises(params.ParamsError) as error:
            params.load(file)
        message = str(error.value)
        assert message.startswith(str(file))
        return message

    return refused


def test_words_of_training_that_need_each_other_are_checked(tour, stlm, fault):
    stlm["train"] |= {"decay": "inverse_sqrt"}
    assert "decay inverse_sqrt needs `warmup`. Received: none" in fault(tour)
    stlm["train"] |= {"warmup": 10, "average": 11}
    assert "average must be at most 10, the epochs. Received: 11" in fault(tour)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_load_returns_the_values_of_the_file_and_no_default(file):
    # `repr`, for 1 == 1.0 == True
    assert repr(params.load(file)) == repr(yaml.safe_load(file.read_text()))


def test_a_misspelt_key_names_its_experiment_itself_and_the_nearest_known_one(
    tour, stlm, fault
):
    stlm["args"]["unit"] = stlm["args"].pop("units")
    message = fault(tour)
    assert f"{STLM}.args: unknown 'unit'. Did you mean 'units'?" in message
    assert f"{STLM}.args.units: is missing" in message


def test_an_argument_of_another_model_is_unknown_to_this_one(tour, stlm, fault):
    stlm["args"] |= {"alpha": [1]}
    assert "unknown 'alpha'. Known: combine, long_horizon, short_horizon, units" in fault(
        tour
    )


def test_a_model_without_arguments_takes_none(tour, fault):
    tour["experiments"]["traffic-persistence"]["args"]["units"] = 3
    assert "unknown 'units'. Known: nothing (write {})" in fault(tour)


def test_a_misspelt_model_names_the_nearest_one(tour, stlm, fault):
    stlm["model"] = "stml"
    assert f"{STLM}.model: unknown 'stml'. Did you mean 'stlm'?" in fault(tour)


def test_a_misspelt_dataset_names_the_nearest_one(tour, stlm, fault):
    stlm["dataset"] = "ringroad"
    assert f"{STLM}.dataset: unknown 'ringroad'. Did you mean 'ring_road'?" in fault(tour)


def test_a_misspelt_top_level_key_names_the_nearest_one(tour, fault):
    tour["experiment"] = tour.pop("experiments")
    message = fault(tour)
    assert "the file: unknown 'experiment'. Did you mean 'experiments'?" in message
    assert "experiments: is missing" in message


@pytest.mark.parametrize("block", ["prepare", "train", "fetch", "own"])
def test_a_key_that_no_block_knows_is_refused_in_every_block(
    tour, stlm, road, fault, block
):
    place = {"prepare": road["prepare"], "train": stlm["train"], "fetch": road["fetch"]}
    place.get(block, stlm)["nonsense"] = 1
    assert "unknown 'nonsense'" in fault(tour)


def test_a_misspelt_key_of_a_published_number_names_the_nearest_one(tour, fault):
    row = {"experimnt": "a", "metric": "b", "published": 1.0, "source": "c"}
    tour["compare"]["published"] = [row | {"difference": "d"}]
    message = fault(tour)
    assert (
        "compare.published.0: unknown 'experimnt'. Did you mean 'experiment'?" in message
    )


@pytest.mark.parametrize(
    ("block", "key", "value"),
    [
        ("train", "epochs", "10"),
        ("train", "epochs", True),
        ("train", "epochs", 1.5),
        ("train", "epochs", -1),
        ("train", "epochs", 0),
        ("train", "batch_size", None),
        ("train", "learning_rate", 0),
        ("train", "learning_rate", -0.1),
        ("train", "learning_rate", 1.5),
        ("train", "learning_rate", []),
        ("train", "learning_rate", [0.1, -0.1]),
        ("train", "learning_rate", "0.003"),
        ("train", "learning_rate", True),
        ("train", "learning_rate", float("nan")),
        ("train", "decay", "linear"),
        ("train", "warmup", 0),
        ("train", "average", 1),
        ("train", "seeds", []),
        ("train", "seeds", [-1]),
        ("train", "seeds", 1),
        ("train", "seeds", [True]),
        ("train", "seeds", ["1"]),
        ("train", "strategy", "mirorred"),
        ("train", "jit_compile", "maybe"),
        ("train", "jit_compile", "yes"),
        ("train", "jit_compile", 1),
        ("args", "units", "64"),
        ("args", "units", False),
        ("args", "units", -64),
        ("args", "units", 0),
        ("args", "combine", "conct"),
        ("args", "long_horizon", 0.5),
        ("args", "long_horizon", "24"),
        ("args", "long_horizon", float("inf")),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_key_and_what_was_received(
    tour, stlm, fault, block, key, value
):
    stlm[block][key] = value
    message = fault(tour)
    assert f"{STLM}.{block}.{key}" in message
    received = value[-1] if isinstance(value, list) and value else value
    assert f"Received: {received!r}" in message


def test_a_rate_that_yaml_reads_as_text_is_refused(tour, fault):
    text = yaml.safe_dump(tour).replace("0.03", "1e-3")  # YAML 1.1 wants 1.0e-3
    read = yaml.safe_load(text)["experiments"]["traffic-stlm"]["train"]
    assert read["learning_rate"] == "1e-3"
    said = "Received: '1e-3'. YAML reads that as text: write 1.0e-3"
    assert said in fault(text)
    assert yaml.safe_load("1.0e-3") == 0.001


@pytest.mark.parametrize("text", ["1e-3", "1e3", "1.5E3", "-1e+2"])
def test_the_hint_is_a_number_to_yaml(text):
    assert isinstance(yaml.safe_load(text), str)
    hint = params._exponent(text).removeprefix(". YAML reads that as text: write ")
    assert yaml.safe_load(hint) == float(text)


def test_a_fault_is_told_in_words_of_the_file_not_of_the_checker(tour, stlm, fault):
    stlm["train"]["learning_rate"] = 0
    message = fault(tour)
    assert "constrained" not in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "split",
    [[0.6, 0.2, 0.3], [0.6, 0.4], [0.6, 0.4, 0], [1.2, -0.1, -0.1], ["0.6", 0.2, 0.2]],
)
def test_a_split_is_three_positive_shares_that_sum_to_one(tour, road, fault, split):
    road["prepare"]["split"] = split
    assert "datasets.ring_road.prepare" in fault(tour)


def test_the_split_that_does_not_sum_to_one_is_shown(tour, road, fault):
    road["prepare"]["split"] = [0.6, 0.2, 0.3]
    assert "split must sum to 1. Received: [0.6, 0.2, 0.3]" in fault(tour)


@pytest.mark.parametrize("key", ["history", "horizon"])
@pytest.mark.parametrize("value", [0, -3, "12", True, None])
def test_windows_have_a_whole_positive_length(tour, road, fault, key, value):
    road["prepare"][key] = value
    message = fault(tour)
    assert f"datasets.ring_road.prepare.{key}: " in message
    assert f"Received: {value!r}" in message


@pytest.mark.parametrize("time", ["24:00", "6:00", "06:60", "noon"])
def test_the_first_reading_has_a_time_of_day(tour, road, fault, time):
    road["source"] = "detector_csv"
    road["fetch"] = {
        "interval_minutes": 5,
        "unit": "km/h",
        "missing": [],
        "first_reading": time,
    }
    message = fault(tour)
    assert "datasets.ring_road.fetch.first_reading" in message
    assert f"Received: {time!r}" in message


@pytest.mark.parametrize("key", ["task", "model", "start", "args", "train", "layers"])
def test_a_missing_key_of_an_experiment_is_named(tour, stlm, fault, key):
    del stlm[key]
    assert fault(tour).endswith(f"{STLM}.{key}: is missing")


def test_every_fault_is_told_at_once(tour, stlm, road, fault):
    stlm["train"]["epochs"] = 0
    stlm["args"]["units"] = "18"
    road["prepare"]["horizon"] = -1
    message = fault(tour)
    assert len(message.splitlines()) == 3
    assert all(key in message for key in ("epochs", "units", "horizon"))


def test_an_unknown_source_is_told_the_known_ones(tour, road, fault):
    road["source"] = "ringroad"
    message = fault(tour)
    assert "datasets.ring_road.source" in message
    assert "unknown 'ringroad'. Did you mean 'ring_road'?" in message
    assert f"Known: {', '.join(sorted(params.SOURCES))}" in message


@pytest.mark.parametrize(
    ("key", "value"), [("read", "columns"), ("read", None), ("validation", 0)]
)
def test_sequences_are_read_in_a_known_way_and_some_are_set_aside(
    tour, road, fault, key, value
):
    road["task"], road["source"] = "sequences", "mnist"
    road["prepare"] = {"read": "rows", "validation": 5000} | {key: value}
    message = fault(tour)
    assert f"datasets.ring_road.prepare.{key}: " in message
    assert f"Received: {value!r}" in message


@pytest.mark.parametrize(
    ("source", "key", "value"),
    [("adding", "steps", 1), ("adding", "steps", 65_536), ("copy_memory", "delay", 0)],
)
def test_sequences_have_a_length_that_can_be(tour, road, fault, source, key, value):
    lengths = {"adding": {"steps": 400}, "copy_memory": {"delay": 100}}
    road["source"] = source
    road["fetch"] = {"train": 100, "test": 10, **lengths[source], key: value}
    message = fault(tour)
    assert f"datasets.ring_road.fetch.{key}: " in message
    assert f"Received: {value!r}" in message


def test_an_experiment_is_of_the_task_of_its_dataset(tour, stlm):
    tour["datasets"]["ring_road"]["task"] = "translation"
    (fault,) = params._experiment_faults("traffic-stlm", stlm, tour)
    assert fault == (
        f"{STLM}.task: dataset 'ring_road' is for task 'translation'."
        " Received: 'forecasting'"
    )


@pytest.mark.parametrize(
    "start", ["data/prepared/los_loop", "runs/traffic-gru/models", "", "chosen.json"]
)
def test_an_experiment_starts_from_its_prepared_data_or_from_a_choice(
    tour, stlm, fault, start
):
    stlm["start"] = start
    message = fault(tour)
    assert f"{STLM}.start: expected 'data/prepared/ring_road'" in message
    assert "'runs/<experiment>/chosen.json'" in message
    assert f"Received: {start!r}" in message


def test_a_choice_is_one_of_an_experiment_that_exists(tour, stlm, fault):
    stlm["start"] = "runs/traffic-gur/chosen.json"
    stlm["train"] = REFIT
    message = fault(tour)
    assert f"{STLM}.start: unknown 'traffic-gur'. Did you mean 'traffic-gru'?" in message


def test_an_experiment_does_not_start_from_its_own_choice(tour, stlm, fault):
    stlm["start"] = "runs/traffic-stlm/chosen.json"
    stlm["train"] = REFIT
    assert f"{STLM}.start" in fault(tour)


def test_a_refit_takes_rate_and_epochs_from_what_was_chosen(tour, stlm, fault, tmp_path):
    again = copy.deepcopy({**stlm, "start": "runs/traffic-stlm/chosen.json"})
    tour["experiments"]["stlm-again"] = again
    message = fault(tour)
    assert "experiments.stlm-again.train: unknown 'epochs'" in message
    assert "experiments.stlm-again.train: unknown 'learning_rate'" in message
    again["train"] = {**REFIT, "batch_size": stlm["train"]["batch_size"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tour))
    assert params.load(tmp_path / "params.yaml") == tour


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "gru"),
        ("args", {"units": 19, "combine": "sum", "short_horizon": 4, "long_horizon": 24}),
        ("layers", "src/engram/models/ridge.py"),
        ("train", {**REFIT, "batch_size": 7}),
    ],
)
def test_a_refit_is_of_the_same_model_and_batches(tour, stlm, fault, key, value):
    size = stlm["train"]["batch_size"]
    again = {**stlm, "start": "runs/traffic-stlm/chosen.json"}
    again["train"] = {**REFIT, "batch_size": size}
    tour["experiments"]["stlm-again"] = {**again, key: value}
    where = "train.batch_size" if key == "train" else key
    assert f"experiments.stlm-again.{where}: a refit takes over" in fault(tour)


def test_a_misspelt_reference_or_published_experiment_names_the_nearest(tour, fault):
    tour["compare"]["reference"] = "stml"
    assert "compare.reference: unknown 'stml'. Did you mean 'stlm'?" in fault(tour)
    tour["compare"]["reference"] = "stlm"
    about = {"metric": "rmse_to_60", "published": 1.0, "source": "s", "difference": "d"}
    tour["compare"]["published"] = [{"experiment": "traffic-gruu", **about}]
    message = fault(tour)
    assert "compare.published.0.experiment: unknown 'traffic-gruu'" in message
    assert "Did you mean 'traffic-gru'?" in message


def test_one_of_several_references_that_is_misspelt_names_the_nearest(tour, fault):
    tour["compare"]["reference"] = ["stlm", "conv_stml"]
    message = fault(tour)
    assert "unknown 'conv_stml'. Did you mean 'conv_stlm'?" in message


def test_a_name_with_a_dot_which_dvc_takes_for_a_level_is_refused(tour, stlm, fault):
    tour["experiments"]["stlm.v2"] = stlm
    assert "stlm.v2" in fault(tour)


def test_the_command_checks_every_file_it_is_given(tmp_path, tour):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(tour))
    bad.write_text("datasets: {}")
    command = [sys.executable, "-m", "engram.params", good, bad]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and str(bad) in done.stderr


def test_a_training_from_the_start_needs_rate_and_epochs(tour, stlm, fault):
    stlm["train"] = REFIT
    message = fault(tour)
    assert f"{STLM}.train.epochs: is missing" in message
    assert f"{STLM}.train.learning_rate: is missing" in message


def test_a_name_that_could_not_be_a_folder_is_refused(tour, road, fault):
    tour["datasets"]["../ring"] = road
    assert "Received: '../ring'" in fault(tour)


def test_a_missing_file_is_named_with_the_folder_it_was_looked_for_in(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(params.ParamsError, match="params.yaml: there is no such file in"):
        params.load()


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(params.ParamsError, match=tmp_path.name):
        params.load(tmp_path)


def test_unreadable_yaml_names_the_line(fault):
    message = fault("datasets:\n\tring_road: {}\n")
    assert "not readable as YAML" in message
    assert "line 2" in message


def test_a_file_that_is_not_utf_8_is_refused(fault):
    assert "UTF-8" in fault("# café\n".encode("latin-1")).upper()


@pytest.mark.parametrize("text", ["", "# nothing\n", "- datasets\n", "datasets"])
def test_a_file_without_blocks_is_refused(fault, text):
    assert f"Received: {yaml.safe_load(text)!r}" in fault(text)


def test_a_repeated_key_is_refused_and_named_with_its_line(fault):
    message = fault("datasets: {}\nexperiments:\n  twin: 1\n  twin: 2\n")
    assert "line 3" in message
    assert "two keys 'twin'" in message


def test_yaml_cannot_make_objects(fault, tmp_path):
    fault(f"datasets: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    assert not (tmp_path / "made").exists()


def test_the_command_accepts_every_params_file_of_the_repository():
    for file in FILES:
        done = _command(file.parent, "-m", "engram.params")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_refuses_a_typo_within_two_seconds_and_without_a_traceback(
    tour, stlm, tmp_path
):
    stlm["args"]["unit"] = stlm["args"].pop("units")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tour))
    seconds = []
    for _ in range(2):  # the faster one: other processes share this machine
        begin = time.perf_counter()
        done = _command(tmp_path, "-m", "engram.params")
        seconds.append(time.perf_counter() - begin)
    assert done.returncode != 0
    assert "Did you mean 'units'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert min(seconds) < 2


def test_the_command_loads_neither_tensorflow_nor_keras():
    code = (
        "import runpy, sys; runpy.run_module('engram.params', run_name='__main__');"
        "heavy = {'tensorflow', 'keras', 'numpy', 'mlflow'};"
        "print(sorted(heavy.intersection(sys.modules)))"
    )
    done = _command(ROOT, "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("word", params.MODELS)
def test_the_arguments_of_a_model_are_the_parameters_of_its_build(word):
    tree = ast.parse((ROOT / f"src/engram/models/{word}.py").read_text())
    (build,) = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "build"
    ]
    names = [argument.arg for argument in build.args.args]
    assert names[:2] == ["spec", "learning_rate"]
    assert set(names[2:]) == set(params.MODELS[word].model_fields)
    assert not build.args.defaults and not build.args.kwonlyargs  # params state all
    assert all(field.is_required() for field in params.MODELS[word].model_fields.values())


def test_every_model_word_is_one_that_models_builds():
    tree = ast.parse((ROOT / "src/engram/models/__init__.py").read_text())
    words = {
        node.comparators[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Name)
        and node.left.id == "word"
    }
    assert words == set(params.MODELS)


def _command(folder, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- depth cliffs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("dataset", "digit", "dataset: unknown 'digit'. Did you mean 'digits'?"),
        ("dataset", "ring_road", "dataset: must be one of task 'classification'."),
        ("start", "runs/digits-stak/pretrained", "start: unknown 'runs/digits-stak"),
        ("start", "data/prepared/digits", "start: unknown 'data/prepared/digits'"),
        ("width", 99, "width: must be that of the stack, [100]. Received: 99"),
        ("depths", [], "depths"),
        ("nets", {}, "nets"),
    ],
)
def test_a_depth_cliff_fits_its_data_and_its_stack(tour, fault, key, value, told):
    tour["depth_cliffs"]["depth-cliff"][key] = value
    assert f"depth_cliffs.depth-cliff.{told}" in fault(tour)


def test_a_depth_cliff_has_seeds_of_its_stack(tour, fault):
    tour["depth_cliffs"]["depth-cliff"]["train"]["seeds"] = [1, 9]
    message = fault(tour)
    assert "depth_cliffs.depth-cliff.train.seeds: 'digits-stack' has a stack" in message
    assert "Received: [9] besides" in message


def test_a_depth_cliff_looks_after_equally_many_epochs(tour, fault):
    tour["depth_cliffs"]["depth-cliff"]["train"]["looks"] = 4
    assert "looks must divide epochs, 15. Received: 4" in fault(tour)


def test_a_depth_cliff_without_a_pretrained_net_needs_no_stack(tour, tmp_path, fault):
    block = tour["depth_cliffs"]["depth-cliff"]
    for net in block["nets"].values():
        net["pretrained"] = False
    block |= {"start": "data/prepared/digits", "width": 7}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tour))
    assert params.load(tmp_path / "params.yaml") == tour
    block["nets"]["sigmoid"] |= {"clipnorm": 1.0, "global_clipnorm": 1.0}
    assert "nets.sigmoid: either clipnorm or global_clipnorm must be" in fault(tour)


def test_a_depth_cliff_has_names_that_mlflow_and_compare_leave_free(tour, fault):
    cliffs = tour["depth_cliffs"]
    cliffs["summary"] = cliffs["depth-cliff"]
    assert "depth_cliffs.summary: `compare` writes a file of this name" in fault(tour)
    del cliffs["summary"]
    nets = cliffs["depth-cliff"]["nets"]
    nets["ReLU (He)"] = nets.pop("ReLU He")
    assert "'ReLU (He)'" in fault(tour)


# --- trainability maps ----------------------------------------------------------------


@pytest.fixture
def mapped(tour):
    tour["trainability_maps"]["map"] = toy.trainability_map()
    return tour["trainability_maps"]["map"]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("dataset", "digit", "dataset: unknown 'digit'. Did you mean 'digits'?"),
        ("dataset", "ring_road", "dataset: must be one of task 'classification'."),
        ("activation", "tan", "activation: Input should be 'tanh'"),
        ("depths", [10], "depths"),
        ("sigma_w2", [1.0, 0.0], "sigma_w2"),
    ],
)
def test_a_trainability_map_fits_its_data(tour, mapped, fault, key, value, told):
    mapped[key] = value
    assert f"trainability_maps.map.{told}" in fault(tour)


def test_a_trainability_map_has_a_name_of_its_own(tour, mapped, fault):
    tour["trainability_maps"]["depth-cliff"] = mapped
    told = "trainability_maps.depth-cliff: depth_cliffs has a block of this name."
    assert told in fault(tour)


def test_a_depth_cliff_has_a_name_of_its_own(tour, fault):
    tour["depth_cliffs"]["digits-dbn"] = tour["depth_cliffs"]["depth-cliff"]
    told = "depth_cliffs.digits-dbn: experiments has a block of this name."
    assert told in fault(tour)


# --- pretraining ----------------------------------------------------------------------


@pytest.fixture
def stack(tour):
    return tour["pretraining"]["digits-stack"]


@pytest.fixture
def stacked(tour):
    return tour["experiments"]["digits-dbn"]


def test_an_experiment_starts_from_a_stack_that_there_is(tour, stacked, fault):
    stacked["start"] = "runs/digit-stack/pretrained"
    message = fault(tour)
    assert "start: unknown 'digit-stack'. Did you mean 'digits-stack'?" in message


def test_only_some_models_start_from_a_stack(tour, stlm, fault):
    stlm["start"] = "runs/digits-stack/pretrained"
    message = fault(tour)
    known = "deep_net or deep_autoencoder may start from a stack"
    assert f"{STLM}.model: {known}. Received: 'stlm'" in message


def test_the_first_hidden_layers_are_those_of_the_stack(tour, stacked, fault):
    stacked["args"]["units"] = [100, 50]
    message = fault(tour)
    assert "digits-dbn.args.units: must begin with those of 'digits-stack'" in message
    assert "Received: [100, 50]" in message


def test_layers_may_follow_on_the_stack(tmp_path, tour, stacked):
    stacked["args"]["units"] = [*stacked["args"]["units"], 7]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tour))
    assert params.load(tmp_path / "params.yaml") == tour


def test_every_seed_has_a_stack_of_its_own(tour, stacked, fault):
    stacked["train"]["seeds"] = [1, 4]
    message = fault(tour)
    assert "has a stack for each of the seeds [1, 2, 3]. Received: [4] besides" in message


def test_a_stack_and_an_experiment_do_not_write_the_same_folder(tour, stack, fault):
    tour["pretraining"]["traffic-stlm"] = stack
    assert "both write runs/traffic-stlm" in fault(tour)


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("dataset", "digit", "dataset: unknown 'digit'. Did you mean 'digits'?"),
        ("task", "density", "dataset 'digits' is for task 'classification'"),
    ],
)
def test_a_stack_reads_a_dataset_of_its_task(tour, stack, fault, key, value, told):
    stack[key] = value
    assert f"pretraining.digits-stack.{told}" in fault(tour) or told in fault(tour)


@pytest.mark.parametrize(
    "key, value",
    [("k", 0), ("momentum", 1.0), ("method", "cd-1"), ("epochs", 0), ("seeds", [])],
)
def test_a_number_that_no_training_can_use_is_refused(tour, stack, fault, key, value):
    stack["train"][key] = value
    assert f"pretraining.digits-stack.train.{key}" in fault(tour)


def test_a_stack_has_at_least_one_machine(tour, stack, fault):
    stack["stack"]["units"] = []
    assert "pretraining.digits-stack.stack.units" in fault(tour)


@pytest.fixture
def coded(tour, stack, stacked):
    """The tour with an autoencoder that starts from a stack with a code."""
    rows = tour["datasets"]["digits"] | {"task": "reconstruction"}
    tour["datasets"]["rows"] = rows | {"prepare": {"validation": 100}}
    place = {"task": "reconstruction", "dataset": "rows"}
    tour["pretraining"]["coded-stack"] = stack | place
    tour["pretraining"]["coded-stack"]["stack"] = {
        "units": [40, 20],
        "visible": "bernoulli",
        "code": 5,
    }
    args = {"units": [40, 20], "code": 5, "optimizer": "adam"}
    about = {"model": "deep_autoencoder", "start": "runs/coded-stack/pretrained"}
    tour["experiments"]["coded"] = stacked | place | about | {"args": args}
    return tour


def test_an_autoencoder_starts_from_a_stack_of_its_widths_and_code(tmp_path, coded):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(coded))
    assert params.load(tmp_path / "params.yaml") == coded


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("code", 6, "args.code: must be that of 'coded-stack', 5. Received: 6"),
        ("units", [40], "args.units: must be those of 'coded-stack', [40, 20]"),
        (
            "units",
            [40, 20, 9],
            "must be those of 'coded-stack', [40, 20]. Received: [40,",
        ),
    ],
)
def test_an_autoencoder_of_other_widths_than_its_stack_is_refused(
    coded, fault, key, value, told
):
    coded["experiments"]["coded"]["args"][key] = value
    message = fault(coded)
    assert message.count("\n") == 0
    assert "experiments.coded.args" in message and told in message


def test_an_autoencoder_does_not_start_from_a_stack_without_a_code(coded, fault):
    del coded["pretraining"]["coded-stack"]["stack"]["code"]
    told = "experiments.coded.args.code: must be that of 'coded-stack', none. Received: 5"
    assert told in fault(coded)


def test_an_autoencoder_does_not_start_from_gaussian_visible_units(coded, fault):
    coded["pretraining"]["coded-stack"]["stack"]["visible"] = "gaussian"
    told = "coded.start: the visible units of 'coded-stack' must be bernoulli"
    message = fault(coded)
    assert told in message and "Received: gaussian" in message


def test_a_code_is_no_wider_than_the_highest_rbm(coded, fault):
    coded["pretraining"]["coded-stack"]["stack"]["code"] = 21
    told = "code must be at most 20, the units of the highest RBM. Received: 21"
    assert told in fault(coded)


def test_a_classifier_does_not_start_from_a_stack_with_a_code(coded, stacked, fault):
    stacked["start"] = "runs/coded-stack/pretrained"
    stacked["args"]["units"] = [40, 20]
    told = "digits-dbn.args.code: must be that of 'coded-stack', 5. Received: none"
    assert told in fault(coded)


@pytest.mark.parametrize(
    "place, key, value",
    [
        ("args", "units", []),
        ("args", "code", 0),
        ("args", "code", None),
        ("args", "optimizer", "rmsprop"),
        ("stack", "code", 0),
        ("stack", "code", "30"),
        ("prepare", "validation", 0),
    ],
)
def test_a_number_that_makes_no_autoencoder_is_refused(coded, fault, place, key, value):
    block = {
        "args": coded["experiments"]["coded"]["args"],
        "stack": coded["pretraining"]["coded-stack"]["stack"],
        "prepare": coded["datasets"]["rows"]["prepare"],
    }[place]
    block[key] = value
    where = {
        "args": "experiments.coded.args",
        "stack": "pretraining.coded-stack.stack",
        "prepare": "datasets.rows.prepare",
    }[place]
    assert f"{where}.{key}: " in fault(coded)


def test_a_copied_anchor_is_told_how_to_be_copied(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    block = text[text.index("  traffic-simple-rnn:") : text.index("  traffic-gru:")]
    copied = block.replace("traffic-simple-rnn", "traffic-simple-rnn-wide")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(block, block + copied))
    with pytest.raises(params.ParamsError, match=r"says `\*name`"):
        params.load(path)
