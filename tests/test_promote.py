"""What is promoted: the seed that validation prefers, of an experiment that is done."""

import json
from pathlib import Path

import pytest
import toy

from engram import model_card, promote
from engram.serving import Field

RUN = {"run_id": "f" * 32, "rate": 0.01, "best_epoch": 2, "seconds": 1, "fitted": "train"}
METRICS = {
    "parameters": 1234,
    "fitted": "train",
    "seeds": [1, 2, 3],
    "headline": ["rmse_to_60"],
    "sort_by": "rmse_to_60",
    "better": "lower",
    "unit": "km/h",
    "learning_rate": 0.01,
    "metrics": {"mae_to_60": 6.5, "rmse_to_60": 12.16},
    "std": {"mae_to_60": 0.25, "rmse_to_60": 0.5},
}


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A suite with an experiment of three seeds, and one that was not trained."""
    names = "toy-gru", "toy-persistence"
    experiments = {name: toy.experiment(name.split("-")[1]) for name in names}
    toy.write_params(tmp_path, experiments)
    seeds = {
        str(n): {**RUN, "held_loss": loss} for n, loss in ((1, 3.0), (2, 1.5), (3, 2))
    }
    for file, content in (
        ("runs/toy-gru/run.json", seeds),
        ("data/prepared/toy/spec.json", {}),
        ("runs/toy-gru/models/seed-2.keras", ""),
        ("runs/toy-gru/models/seed-3.keras", ""),
        ("metrics/toy-gru.json", METRICS),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*arguments):
    with pytest.raises(SystemExit) as end:
        promote.main(list(arguments))
    return str(end.value)


def test_the_seed_with_the_least_loss_on_validation_is_taken(suite):
    found = promote.trained("toy-gru")
    assert found.seed == "2"
    assert found.file == Path("runs/toy-gru/models/seed-2.keras")


def test_without_a_loss_on_validation_it_is_the_first_seed(suite):
    seeds = {"3": {**RUN, "held_loss": None}, "1": RUN}
    (suite / "runs/toy-gru/run.json").write_text(json.dumps(seeds))
    assert promote.trained("toy-gru").seed == "3"


def test_what_is_missing_is_said_with_the_command_that_makes_it(suite):
    assert "no such experiment. Known: toy-gru, toy-persistence" in said("toy")
    where = "runs/toy-persistence/run.json is not there"
    assert said("toy-persistence").endswith(f"{where}: dvc repro train@toy-persistence")
    for file, stage in (
        ("runs/toy-gru/models/seed-2.keras", "train@toy-gru"),
        ("data/prepared/toy/spec.json", "prepare@toy"),
        ("metrics/toy-gru.json", "evaluate@toy-gru"),
    ):
        (suite / file).unlink()
        assert said("toy-gru").endswith(f"{file} is not there: dvc repro {stage}")
    (suite / "params.yaml").unlink()
    assert "params.yaml: there is no such file" in said("toy-gru")


@pytest.mark.parametrize("alias", ["v1", "V1", "Latest", "the best", "", 256 * "a"])
def test_an_alias_that_mlflow_does_not_take_is_said_before_anything_is_done(suite, alias):
    assert f"Received: {alias!r}" in said("toy-gru", alias)


def test_a_name_that_is_no_part_of_an_address_is_refused(suite):
    assert "without / : or @. Received: 'a/b'" in said("toy-gru", "--name", "a/b")


def test_a_model_without_lineage_is_not_promoted(suite):
    assert "no dvc.yaml in the folders above it" in said("toy-gru")


def test_the_card_says_what_whose_how_good_and_where_it_ends():
    block = toy.experiment("gru")
    about = {
        "experiment": "toy-gru",
        "block": block,
        "seed": "2",
        "held_loss": 1.5,
        **RUN,
    }
    spec = {"dataset": "toy", "fingerprint": "abc", "parts": {"train": [0, 1500]}}
    fields = (
        [Field("readings", "float32", (4, 2), "km/h, the last")],
        [Field("forecast", "float32", (-1,), "km/h, the next")],
    )
    run = ("f" * 32, {"git.commit": "0123", "dvc.stage": "train@toy-gru"})
    text = model_card.card(
        "toy", "champion", about, spec, METRICS, fields, "It ends\nhere.", run
    )
    for line in (
        "# toy: toy-gru",
        "A model `gru` of 1,234 parameters for the task `forecasting`, trained on `toy`.",
        "| request | `readings` | float32 | 4 x 2 | km/h, the last |",
        "| answer | `forecast` | float32 | any | km/h, the next |",
        "mlflow models serve -m models:/toy@champion --env-manager local --port 5001",
        "| fingerprint | `abc` |",
        "| rows of the parts | train 1,500 |",
        "| `units` | `3` |",
        "| learning rate | 0.01 |",
        "| MAE to 60 | 6.500 ± 0.250 |",
        "It ends here.",
        f"| MLflow run | `{'f' * 32}` |",
        "| git.commit | `0123` |",
    ):
        assert line in text.splitlines()
    assert "seeds 1, 2, 3; this model is of seed 2, whose loss" in text
    assert "RMSE to 60, in km/h, is what models are ranked by: lower is better." in text
    refitted = about | {"held_loss": None, "seed": "1"}
    text = model_card.card(
        "toy", "champion", refitted, spec, METRICS, fields, "It ends.", run
    )
    assert "this model is of seed 1, the first." in text
    solved = METRICS | {"learning_rate": None}
    text = model_card.card("toy", "a", about, spec, solved, fields, "", run)
    assert "learning rate" not in text and "epoch kept" not in text
    one = METRICS | {"seeds": [2], "std": dict.fromkeys(METRICS["std"])}
    text = model_card.card("toy", "a", about, spec, one, fields, "", run)
    assert "One seed, 2: nothing tells how much another would differ." in text
    assert "| MAE to 60 | 6.500 |" in text
