"""A store that was moved or copied opens its artifacts where they are now."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys

import pytest

from engram import store

TABLES = """
CREATE TABLE experiments (name TEXT, artifact_location TEXT);
CREATE TABLE runs (run_uuid TEXT, artifact_uri TEXT);
CREATE TABLE model_versions (name TEXT, source TEXT, storage_location TEXT);
"""


@pytest.fixture
def before(tmp_path):
    """A store with one run, as MLflow writes it: absolute paths, percent-encoded."""
    where = tmp_path / "first place é" / "mlruns"
    files = where / "digits" / "abc" / "artifacts"
    files.mkdir(parents=True)
    (files / "model.keras").write_text("m")
    with contextlib.closing(sqlite3.connect(where / "mlflow.db")) as tables:
        tables.executescript(TABLES)
        experiments = [("digits", (where / "digits").as_uri()), ("Default", f"{where}/0")]
        tables.executemany("INSERT INTO experiments VALUES (?, ?)", experiments)
        runs = [
            ("abc", files.as_uri()),
            ("without files", (where / "digits/def/artifacts").as_uri()),
            ("elsewhere", "s3://bucket/mlruns/ghi"),
            ("no place", None),
        ]
        tables.executemany("INSERT INTO runs VALUES (?, ?)", runs)
        versions = ("net", "models:/m-1", (where / "digits/models/m-1").as_uri())
        tables.execute("INSERT INTO model_versions VALUES (?, ?, ?)", versions)
        tables.commit()
    return where


def read(where, query="SELECT run_uuid, artifact_uri FROM runs"):
    with contextlib.closing(sqlite3.connect(where / "mlflow.db")) as tables:
        return dict(tables.execute(query).fetchall())


def moved(before, to):
    to.parent.mkdir()
    shutil.move(before, to)
    return to


def test_a_store_that_stays_is_not_touched(before):
    was = (before / "mlflow.db").read_bytes()
    assert store.mend(before) == 0
    assert (before / "mlflow.db").read_bytes() == was
    assert store.mend(before.parent) == 0  # no database there


def test_every_path_of_a_store_that_moved_is_mended_and_no_other(before, tmp_path):
    where = moved(before, tmp_path / "second place" / "mlruns")
    assert store.mend(where) == 5
    runs = read(where)
    assert runs["abc"] == (where / "digits/abc/artifacts").as_uri()
    assert runs["without files"] == (where / "digits/def/artifacts").as_uri()
    assert runs["elsewhere"] == "s3://bucket/mlruns/ghi" and runs["no place"] is None
    assert read(where, "SELECT * FROM experiments") == {
        "digits": (where / "digits").as_uri(),
        "Default": f"{where}/0",
    }
    assert read(where, "SELECT source, storage_location FROM model_versions") == {
        "models:/m-1": (where / "digits/models/m-1").as_uri()
    }
    assert store.mend(where) == 0


def test_the_database_before_is_kept(before, tmp_path):
    was = read(before)
    where = moved(before, tmp_path / "second" / "mlruns")
    store.mend(where)
    (kept,) = where.glob("mlflow-*.db")
    shutil.copy(kept, tmp_path / "mlflow.db")
    assert read(tmp_path) == was


def test_a_copy_reads_its_own_files_and_the_first_store_stays(before, tmp_path):
    was = (before / "mlflow.db").read_bytes()
    where = tmp_path / "copy" / "mlruns"
    shutil.copytree(before, where)
    store.mend(where)
    assert read(where)["abc"] == (where / "digits/abc/artifacts").as_uri()
    assert (before / "mlflow.db").read_bytes() == was


def test_files_that_stay_where_they_are_keep_their_address(before, tmp_path):
    where = tmp_path / "database alone" / "mlruns"
    where.mkdir(parents=True)
    shutil.copy(before / "mlflow.db", where)
    store.mend(where)
    assert read(where)["abc"] == (before / "digits/abc/artifacts").as_uri()


def test_all_paths_change_or_none(before, tmp_path, monkeypatch):
    where = moved(before, tmp_path / "second" / "mlruns")
    was = read(where)
    monkeypatch.setattr(
        store, "_keep", lambda path: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        store.mend(where)
    with contextlib.closing(sqlite3.connect(where / "mlflow.db")) as tables:
        tables.execute(
            "CREATE TRIGGER no BEFORE UPDATE ON model_versions"
            " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    monkeypatch.undo()
    with pytest.raises(sqlite3.IntegrityError, match="not this one"):
        store.mend(where)
    assert read(where) == was


def test_two_processes_mend_it_once(before, tmp_path):
    where = moved(before, tmp_path / "second" / "mlruns")
    code = "import sys, pathlib; from engram import store;"
    code += "print(store.mend(pathlib.Path(sys.argv[1])))"
    both = [
        subprocess.Popen([sys.executable, "-c", code, where], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    found = sorted(int(one.communicate()[0]) for one in both)
    assert found == [0, 5]
    assert len(list(where.glob("mlflow-*.db"))) == 1


def test_the_command_prints_the_address_of_the_mended_store(
    before, tmp_path, monkeypatch, capsys
):
    where = moved(before, tmp_path / "second" / "mlruns")
    monkeypatch.setenv("DVC_ROOT", str(where.parent))
    store.main()
    said = capsys.readouterr()
    assert said.out == f"sqlite:///{where}/mlflow.db\n"
    assert said.err == "mlruns: 5 paths of artifacts mended\n"
