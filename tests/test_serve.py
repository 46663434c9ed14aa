"""`python -m engram.serve` puts a translator into MLflow; text answers text."""

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pytest
import toy
from translator_suite import PAIRS

from engram import serve, tracking

# MLflow 3.17 warns of its own type hints as it is loaded, and SQLAlchemy of its tables.
pytestmark = pytest.mark.filterwarnings("default")
SPEC = {"dataset": "tiny_french", "fingerprint": "f"}


@pytest.fixture(scope="module")
def served(translator_suite, tmp_path_factory):
    """The run that was trained, the model's address, and the command that serves it."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(translator_suite, root / "suite")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DVC_", "MLFLOW_T")):
                patch.delenv(name)
        patch.setattr(tracking.delivery, "STORE_OF_ONES_OWN", None)
        patch.setenv("DVC_ROOT", str(root))
        patch.chdir(root / "suite")
        with tracking.run("trained", "tiny_french", {}, {}, SPEC) as (run_id, _):
            pass
        about = {"10": {"run_id": run_id, "rate": 0.02}}
        Path("runs/trained/run.json").write_text(json.dumps(about))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            serve.main(["runs/trained"])
        yield run_id, *said.getvalue().splitlines()
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def model(served):
    return mlflow.pyfunc.load_model(served[1])


def test_the_model_is_in_the_run_of_the_first_seed(served):
    run_id, uri, _ = served
    run = mlflow.get_run(run_id)
    (output,) = run.outputs.model_outputs
    assert f"models:/{output.model_id}" == uri
    assert run.info.status == "FINISHED"
    tags = {name.split(".")[0] for name in run.data.tags if name.endswith("git.commit")}
    assert tags == {"git", "serve"}  # nobody evaluated it


def test_nothing_is_pickled_and_no_package_of_our_name_is_asked_for(served):
    folder = Path(mlflow.artifacts.download_artifacts(served[1]))
    files = {str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()}
    files = {one for one in files if "__pycache__" not in one}  # of code that was run
    assert {one for one in files if one.startswith("artifacts/")} == {
        "artifacts/seed-10.keras",
        "artifacts/spec.json",
        "artifacts/source.model",
        "artifacts/target.model",
    }
    assert {Path(one).suffix for one in files if not one.startswith("artifacts/")} == {
        "",  # MLmodel
        ".json",
        ".py",
        ".txt",
        ".yaml",
    }
    assert "engram" not in (folder / "requirements.txt").read_text()


def test_the_signature_is_text_to_translation(model):
    signature = model.metadata.signature.to_dict()
    (given,), (answer,) = map(json.loads, (signature["inputs"], signature["outputs"]))
    assert given["type"] == answer["type"] == "string"
    assert answer["name"] == "translation"
    assert model.input_example == ["the cat sleeps"]


def test_the_loaded_model_translates_many_sentences(model):
    sentences = [*PAIRS, *reversed(PAIRS)]
    found = model.predict(sentences)
    assert list(found.columns) == ["translation"]
    assert found["translation"].tolist() == [PAIRS[one] for one in sentences]


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (["the cat sleeps", " "], "sentence 2 is empty"),
        (["the cat sleeps", None], "sentence 2 must be text. Received: "),
        (["the cat \ud800"], "surrogates not allowed"),
        ([5], "Failed to enforce schema"),
        ([], "Failed to enforce schema"),
    ],
)
def test_what_is_no_sentence_is_told_as_the_clients_error(model, sentences, message):
    with pytest.raises(mlflow.MlflowException, match=message) as told:
        model.predict(sentences)
    assert told.value.get_http_status_code() == 400


@contextlib.contextmanager
def started(command, folder):
    """Runs the command on a free port, in another folder; yields the server's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = shlex.split(command)
    assert words[-2:] == ["--port", "5001"]
    name, _, store = words.pop(0).partition("=")
    assert (name, words[0]) == ("MLFLOW_TRACKING_URI", "mlflow")
    env = toy.environment(toy.ROOT, **{name: store})
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*words[:-1], str(port), "--timeout", "600"],  # other work may slow us down
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(2400):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/ping", timeout=60).close()
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def asked(address, question):
    """Returns the status and the answer of the server."""
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_printed_command_answers_text_with_text(served, tmp_path):
    expected = [{"translation": text} for text in PAIRS.values()]
    records = [{"sentence": text} for text in PAIRS]
    with started(served[2], tmp_path) as address:
        many = {"predictions": expected}
        assert asked(address, {"inputs": [*PAIRS]}) == (200, many)
        assert asked(address, {"dataframe_records": records}) == (200, many)
        for wrong, message in (
            ({"inputs": ["the cat sleeps", ""]}, "sentence 2 is empty"),
            ({"dataframe_records": [{"sentence": None}]}, "sentence 1 must be text"),
            ({"sentences": ["the cat sleeps"]}, "exactly one of the input fields"),
        ):
            status, told = asked(address, wrong)
            assert status == 400
            assert message in told["message"]
            assert "Traceback" not in json.dumps(told)


def test_mlflow_is_not_loaded_for_an_experiment_that_is_not_there(tmp_path):
    code = (
        "import sys; from engram import serve\n"
        "try: serve.main(['runs/x'])\n"
        "except SystemExit as end: print(end, 'mlflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "params.yaml: there is no such file" in done.stdout
    assert done.stdout.endswith("False\n")
