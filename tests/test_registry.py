"""A registered model answers over HTTP, and a malformed request is the client's error."""

import json
import os
from pathlib import Path

import mlflow
import numpy as np
import pytest
import small_models
from fastapi.testclient import TestClient

from engram import promote, registry, serving, tracking

# MLflow 3.17 warns of its own type hints as it is loaded, and SQLAlchemy of its tables.
pytestmark = pytest.mark.filterwarnings("default")
TASKS = list(small_models.MODELS)
SPEC = {"dataset": "data", "fingerprint": "f"}
CODE = Path(promote.__file__).with_name("served_model.py")


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DVC_", "MLFLOW_T")):
                patch.delenv(name)
        patch.setattr(tracking.store, "ELSEWHERE", None)
        patch.setenv("DVC_ROOT", str(root))
        patch.chdir(root)
        yield root
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def run_id():
    with tracking.run("trained", "data", {}, {}, SPEC) as (run_id, _):
        pass
    return run_id


@pytest.fixture(scope="module")
def registered(store, run_id):
    """Of each task the served model and a client of the server of `<task>@champion`."""
    from mlflow.pyfunc import scoring_server  # warns as it is imported

    tracking.open_store("another experiment")
    found = {}
    for task in TASKS:
        file, prepared, about = small_models.write(store / task, task)
        folder = store / task / "served"
        served = serving.keep(folder, file, prepared, about)
        packages = getattr(serving.TASKS[task], "PACKAGES", ())
        address = registry.log_model(run_id, CODE, folder, served, packages)
        told = registry.register(address, task, "champion", "# A card", {"task": task})
        assert told == ("1", None)
        model = mlflow.pyfunc.load_model(f"models:/{task}@champion")
        app = scoring_server.init(model)
        found[task] = served, TestClient(app, raise_server_exceptions=False)
    return found


def asked(client, question):
    """Returns the status and what the server says."""
    answer = client.post("/invocations", json=question)
    assert "Traceback" not in answer.text
    return answer.status_code, answer.json()


@pytest.mark.parametrize("task", TASKS)
def test_the_example_in_the_folder_is_answered_as_it_was(registered, task):
    served, client = registered[task]
    uri = f"models:/{task}@champion/serving_input_example.json"
    body = json.loads(Path(mlflow.artifacts.download_artifacts(uri)).read_text())
    status, told = asked(client, body)
    assert status == 200
    for name, values in served.example["answer"].items():
        found = [row[name] for row in told["predictions"]]
        if isinstance(values[0], str):
            assert found == values
        else:
            np.testing.assert_allclose(found, values, rtol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_malformed_request_is_told_what_was_expected(registered, task):
    served, client = registered[task]
    for wrong in (
        {"inputs": {"nothing": [1]}},
        {"inputs": []},
        {"dataframe_records": [{"a": None}]},
        {"rows": [1]},
        {},
    ):
        status, told = asked(client, wrong)
        assert status == 400, (wrong, told)
        assert told["message"]
    answer = client.post(
        "/invocations", content="{", headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    first = served.given[0]
    rows = {first.name: [[1, 2], [3, 4]]} if len(served.given) > 1 else [[1, 2], [3, 4]]
    _, told = asked(client, {"inputs": rows})
    if first.shape:  # names and shapes are in MLflow's words
        assert ", ".join(map(str, first.shape)) in told["message"]
    elif first.dtype != "text":
        assert first.name in told["message"]


@pytest.mark.parametrize(
    ("task", "changed", "message"),
    [
        ("classification", lambda a: a + 99, "from 0 to 16. Received: "),
        ("classification", lambda a: a[:, :4], "does not match expected shape (-1, 8, 8"),
        ("video", lambda a: a - 300, "from 0 to 255. Received: -300"),
        ("density", lambda a: a + 2, "from 0 to 1. Received: 2"),
        ("sequences", lambda a: a[..., :1], "does not match expected shape (-1, 8, 2)"),
        ("reconstruction", lambda a: a * np.nan, "from 0 to 16. Received: nan"),
    ],
)
def test_numbers_that_the_model_does_not_know_are_told(
    registered, task, changed, message
):
    served, client = registered[task]
    (request,) = served.example["request"].values()
    wrong = changed(np.array(request, np.float64)).tolist()
    text = json.dumps({"inputs": wrong})  # Python's own JSON has NaN
    answer = client.post(
        "/invocations", content=text, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert message in answer.json()["message"]


def test_a_missing_reading_is_null_and_a_slot_is_of_the_day(registered):
    served, client = registered["forecasting"]
    request = json.loads(json.dumps(served.example["request"]))
    request["readings"][0][1][2] = None
    status, told = asked(client, {"inputs": request})
    expected = served.answer(request)["forecast"]
    assert status == 200
    found = [row["forecast"] for row in told["predictions"]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    request["slot"][0] = 48
    status, told = asked(client, {"inputs": request})
    assert status == 400
    assert "`slot` must be whole numbers (B,) from 0 to 47. Received: 48" in str(told)


def test_generators_make_what_rows_ask_for_and_no_more(registered):
    served, client = registered["generation"]
    rows = [{"seed": 3, "count": 2}, {"seed": 3, "count": 1}]  # in any order
    status, told = asked(client, {"dataframe_records": rows})
    assert status == 200
    assert [len(row["points"]) for row in told["predictions"]] == [2, 1]
    status, told = asked(client, {"dataframe_records": [{"count": 9999, "seed": 1}]})
    assert status == 400
    assert "from 1 to 2500. Received: 9999" in told["message"]


def test_sentences_are_told_by_number(registered):
    _, client = registered["translation"]
    for rows, message in (
        (["a dog", ""], "sentence 2 is empty"),
        ([None], "sentence 1 must be text. Received: None"),
    ):
        records = [{"sentence": one} for one in rows]
        status, told = asked(client, {"dataframe_records": records})
        assert status == 400
        assert message in told["message"]


def test_nothing_is_pickled_and_no_package_of_our_name_is_asked_for(registered):
    folder = Path(mlflow.artifacts.download_artifacts("models:/translation@champion"))
    files = [one for one in folder.rglob("*") if one.is_file()]
    files = [one for one in files if "__pycache__" not in one.parts]
    kept = {"", ".json", ".py", ".txt", ".yaml", ".keras", ".model"}
    assert {one.suffix for one in files} <= kept
    needed = (folder / "requirements.txt").read_text()
    assert "engram" not in needed and "sacrebleu" in needed
    other = Path(mlflow.artifacts.download_artifacts("models:/density@champion"))
    assert "sacrebleu" not in (other / "requirements.txt").read_text()


def test_an_alias_moves_and_the_version_says_what_it_is(registered, run_id):
    client = mlflow.MlflowClient()
    first = client.get_model_version_by_alias("video", "champion")
    assert (first.description, first.tags) == ("# A card", {"task": "video"})
    told = registry.register(first.source, "video", "champion", "# Another", {})
    assert told == ("2", "1")
    assert client.get_model_version_by_alias("video", "champion").version == 2
    assert client.get_model_version("video", 1).aliases == []


def test_the_run_stays_as_it_ended_and_names_its_models(registered, run_id):
    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert (
        run.info.end_time
        < mlflow.MlflowClient().get_model_version("video", 1).creation_timestamp
    )
    assert len(run.outputs.model_outputs) == len(TASKS)
    models = [mlflow.get_logged_model(m.model_id) for m in run.outputs.model_outputs]
    assert {one.experiment_id for one in models} == {run.info.experiment_id}
    assert mlflow.active_run() is None


def test_a_name_is_of_one_task_and_one_dataset(registered):
    was = registry.has_alias("sequences", "champion")
    assert was == {"task": "sequences"}
    assert registry.has_alias("sequences", "challenger") is None
    assert registry.has_alias("nothing", "champion") is None
    same = {"task": "sequences", "fingerprint": "f"}
    promote._check_sameness(None, same, "toy@champion")
    promote._check_sameness(same, same, "toy@champion")
    promote._check_sameness(was, same, "toy@champion")  # its fingerprint is not known
    with pytest.raises(ValueError, match="another task. Expected sequences, received v"):
        promote._check_sameness(was, {"task": "video"}, "toy@champion")
    with pytest.raises(ValueError, match=r"another fingerprint\. Expected g, received f"):
        promote._check_sameness(same | {"fingerprint": "g"}, same, "toy@champion")
