"""`dvc.lock` is read as DVC reads it."""

from engram import locked

LOCK = """schema: '2.0'
stages:
  train@a:
    cmd: python train.py a
    deps:
    - {path: data/b, md5: 1.dir, size: 1}
    - {path: train.py, md5: '2', size: 1}
    params:
      params.yaml:
        experiments.a: {rate: 1e-05, on: yes}
    outs:
    - {path: runs/a/models, md5: 3.dir, size: 1}
  prepare@b:
    cmd: python prepare.py b
    outs:
    - {path: data/b, md5: 1.dir, size: 1}
"""


def test_numbers_words_and_hashes_of_a_stage(tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK)
    entries = locked.read(tmp_path)
    entry = entries["train@a"]
    assert entry.item == "a"
    assert entry.params == {"experiments.a": {"rate": 1e-05, "on": "yes"}}
    assert entry.deps == {"data/b": "1.dir", "train.py": "2"}
    assert entry.wrote("runs/a/models/seed-1.keras") == "runs/a/models"
    assert entry.wrote("runs/a/history.json") is None
    assert locked.writer(entries, "data/b/spec.json") is entries["prepare@b"]
    assert locked.before(entries, entry) == [entries["prepare@b"]]
    assert locked.before(entries, entries["prepare@b"]) == []


def test_another_input_makes_another_digest(tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK)
    first = locked.read(tmp_path)["train@a"].digest
    (tmp_path / "dvc.lock").write_text(LOCK.replace("1e-05", "2e-05"))
    assert locked.read(tmp_path)["train@a"].digest != first
    (tmp_path / "dvc.lock").unlink()
    assert locked.read(tmp_path) == {}
