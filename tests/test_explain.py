"""What `engram explain` says is what `dvc repro` then does."""

import json
import subprocess
import sys

import mlflow
import pytest
import toy

from engram import __main__, code_changes, explain

PARAMS = "sizes:\n  small: {n: 3, kind: even}\n  large: {n: 9, kind: even}\n"
STAGES = """
stages:
  write:
    foreach: ${sizes}
    do:
      cmd: python write.py ${key}
      deps: [write.py, parts]
      params: ["sizes.${key}"]
      outs: ["out/${key}.txt"]
  count:
    cmd: python count.py
    deps: [count.py, out]
    outs:
      - total.txt: {cache: false}
"""
WRITE = '''"""Writes."""
import sys
import yaml
sys.path.append("parts")
from letter import LETTER

def main(name):
    n = yaml.safe_load(open("params.yaml"))["sizes"][name]["n"]
    open(f"out/{name}.txt", "w").write(LETTER * n)

main(sys.argv[1])
'''
COUNT = """
import pathlib
texts = [file.read_text() for file in pathlib.Path("out").glob("*.txt")]
pathlib.Path("total.txt").write_text(str(sum(len(text) for text in texts)))
"""


def run(folder, *command):
    command = [f"{sys.prefix}/bin/{command[0]}", *command[1:]]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


def git(folder, *arguments):
    ours = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(
        ["git", *ours, *arguments], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A pipeline that has run: two stages that write, one that counts what they wrote."""
    files = {
        "params.yaml": PARAMS,
        "dvc.yaml": STAGES,
        "write.py": WRITE,
        "count.py": COUNT,
        "parts/letter.py": 'LETTER = "a"\n',
        "parts/other.py": "",
        ".gitignore": "__pycache__/\n",
        ".dvcignore": "__pycache__/\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "out").mkdir()
    git(tmp_path, "init", "-q")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:/usr/bin:/bin")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    run(tmp_path, "dvc", "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    run(tmp_path, "dvc", "repro", "-q")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def told():
    return {one.stage: one for one in explain.explained()}


def fates():
    return {name: one.fate for name, one in told().items()}


def really_run(suite):
    said = run(suite, "dvc", "repro").stdout
    ran = [line for line in said.splitlines() if line.startswith("Running stage")]
    return {line.split("'")[1] for line in ran}


def test_nothing_changed_says_so_and_counts(suite, capsys):
    __main__.main(["explain"])
    assert capsys.readouterr().out == "Of 3 stages 3 as they are.\n"
    assert really_run(suite) == set()


def test_a_param_is_told_from_its_old_value_to_the_new_one(suite):
    edit(suite / "params.yaml", "n: 3", "n: 4")
    found = told()
    assert found["write@small"].reasons == ["sizes.small.n: 3 -> 4"]
    assert found["write@large"].fate == "as they are"
    assert found["count"].fate == "may follow"
    assert found["count"].after == ["write@small"]
    assert really_run(suite) == {"write@small", "count"}


def test_params_that_change_alike_share_a_line(suite):
    edit(suite / "params.yaml", "kind: even", "kind: [odd, 1]")
    edit(suite / "params.yaml", "n: 9, ", "")
    found = told()
    assert found["write@small"].reasons == ['sizes.small.kind: "even" -> ["odd", 1]']
    assert found["write@large"].reasons == [
        "sizes.large.n: 9 is gone",
        'sizes.large.kind: "even" -> ["odd", 1]',
    ]
    both = {"a.x.n": "1 -> 2", "a.y.n": "1 -> 2", "a.z.n": "1 -> 3", "a.x.k": "1 -> 2"}
    assert explain._grouped(both) == [
        "a.x.n and 1 alike: 1 -> 2",
        "a.z.n: 1 -> 3",
        "a.x.k: 1 -> 2",
    ]


def test_a_function_a_constant_and_a_file_of_a_folder_are_told_by_name(suite):
    edit(suite / "write.py", "LETTER * n", "2 * LETTER * n")
    edit(suite / "parts/letter.py", '"a"', '"b"')
    (suite / "parts/more.txt").write_text("x")
    (suite / "parts/other.py").unlink()
    assert told()["write@small"].reasons == [
        "write.py: main() changed",
        "parts/letter.py: LETTER: 'a' -> 'b'",
        "parts/more.txt is new",
        "parts/other.py is gone",
    ]


def test_what_git_does_not_have_is_said(suite):
    edit(suite / "count.py", "sum(", "max(")
    run(suite, "dvc", "repro")
    edit(suite / "count.py", "max(", "min(")
    assert told()["count"].reasons == ["count.py changed; git does not have what it was"]


def test_outputs_that_dvc_has_are_put_back_and_others_written_anew(suite):
    (suite / "out/small.txt").unlink()
    (suite / "total.txt").unlink()
    found = told()
    assert found["write@small"].reasons == ["missing: out/small.txt"]
    assert fates() == {
        "write@small": "put back from DVC's cache",
        "write@large": "as they are",
        "count": "will run",
    }
    assert really_run(suite) == {"count"}


def test_inputs_of_an_earlier_run_are_known_again(suite):
    edit(suite / "params.yaml", "n: 3", "n: 4")
    run(suite, "dvc", "repro")
    edit(suite / "params.yaml", "n: 4", "n: 3")
    found = told()["write@small"]
    assert found.reasons == ["sizes.small.n: 4 -> 3"]
    assert found.fate == "put back from DVC's cache"
    assert fates()["count"] == "may follow"  # it reads what is put back
    assert really_run(suite) == {"count"}


def test_an_output_that_was_changed_by_hand_and_a_stage_that_never_ran(suite):
    (suite / "total.txt").write_text("999")
    params = suite / "params.yaml"
    params.write_text(params.read_text() + "  huge: {n: 99, kind: even}\n")
    found = told()
    assert found["count"].reasons == ["total.txt was changed by hand"]
    assert found["write@huge"].reasons == ["it has not run yet"]
    assert found["write@huge"].fate == "will run"


def test_nothing_is_run_or_changed(suite):
    edit(suite / "params.yaml", "n: 3", "n: 4")
    (suite / "out/large.txt").unlink()
    lock = (suite / "dvc.lock").read_bytes()
    before = {str(one) for one in suite.rglob("*") if ".dvc/tmp" not in str(one)}
    explain.explained()
    after = {str(one) for one in suite.rglob("*") if ".dvc/tmp" not in str(one)}
    assert after == before and (suite / "dvc.lock").read_bytes() == lock


def test_the_time_is_that_of_the_last_runs(suite, capsys):
    edit(suite / "params.yaml", "n: 3", "n: 4")
    book = suite / ".dvc/tmp/seconds.json"
    book.write_text(json.dumps({"write@small": 61, "count": 5}))
    __main__.main(["explain"])
    said = capsys.readouterr().out
    assert "write@small: will run, about 1:01\n    sizes.small.n: 3 -> 4\n" in said
    assert "count: may follow, about 0:05\n    after write@small, if what" in said
    assert said.endswith("1 will run, 1 may follow, 1 as they are; about 1:06 at most.\n")


def test_params_that_do_not_pass_the_check_are_said_with_the_rest(suite, capsys):
    edit(suite / "params.yaml", "n: 3", "n: 4")
    edit(suite / "dvc.yaml", "stages:", "# as in pipeline/train.py\nstages:")
    with pytest.raises(SystemExit, match="check of params.yaml will stop it first"):
        __main__.main(["explain"])
    assert "write@small: will run" in capsys.readouterr().out


def test_who_reads_no_further_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "engram", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=toy.ROOT,
    ) as asked:
        assert asked.stdout and asked.stderr
        asked.stdout.close()
        assert asked.stderr.read() == b""
    assert asked.returncode == 1


def test_a_store_that_does_not_answer_is_one_line(monkeypatch, capsys):
    def asked(words):
        raise mlflow.MlflowException("no answer\nin many lines")

    monkeypatch.setattr("engram.diff.main", asked)
    monkeypatch.setattr("engram.store.ELSEWHERE", None)
    with pytest.raises(mlflow.MlflowException):  # of a file, which always answers
        __main__.main(["diff", "a", "b"])
    monkeypatch.setattr("engram.store.ELSEWHERE", "http://127.0.0.1:1")
    said = "engram diff: the store of runs does not answer: no answer$"
    with pytest.raises(SystemExit, match=said):
        __main__.main(["diff", "a", "b"])


def test_one_stage_can_be_asked_for_and_wrong_words_are_told(suite, capsys, tmp_path):
    __main__.main(["explain", "write@small"])
    assert capsys.readouterr().out == "Of 1 stage 1 as they are.\n"
    with pytest.raises(
        SystemExit, match="write@smal: no such stage. Near it: write@small"
    ):
        explain.main(["write@smal"])
    with pytest.raises(SystemExit, match="nowhere/dvc.yaml: no such file"):
        explain.main(["--suite", "nowhere"])
    with pytest.raises(SystemExit, match="no command 'explian'"):
        __main__.main(["explian"])
    (suite / "dvc.yaml").write_text("stages:\n  a: {cmd: [}\n")
    with pytest.raises(SystemExit, match="dvc.yaml"):
        explain.main([])


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ("def f():\n    return 1", "def f():\n    # one\n    return 1", "comments, "),
        ('def f():\n    "a"\n    return 1', "def f():\n\n    return 1", "comments, "),
        ("X = 1", "X = 2", "X: 1 -> 2"),
        ("X: int = 1", "X: float = 1", "comments, "),
        (f"X = {list(range(40))}", "X = []", "X changed"),
        ("def f(): pass", "def g(): pass", "f() is gone, g() is new"),
        ("import a", "import b", "the imports changed"),
        ("a.b(1)", "a.b(2)", "the code outside functions changed"),
        ("class A:\n  n = 1", "class A(B):\n  n = 1", "A itself changed"),
        (
            "class A:\n  def f(self): return 1\n  def g(self): return 1",
            "class A:\n  def f(self): return 2\n  def g(self): return 1",
            "A.f() changed",
        ),
        (
            "class A:\n  @property\n  def f(self): return 1\n  @f.setter\n"
            "  def f(self, x): pass",
            "class A:\n  @property\n  def f(self): return 2\n  @f.setter\n"
            "  def f(self, x): pass",
            "A.f() changed",
        ),
        ("X = 1\nX = 3", "X = 2\nX = 3", "X: 1, then 3 -> 2, then 3"),
        ("@a\ndef f(): pass", "@b\ndef f(): pass", "f() changed"),
    ],
)
def test_code_that_changed_is_told_by_name(old, new, expected):
    assert ", ".join(code_changes.told(old, new)).startswith(expected)


def test_the_digest_of_a_folder_is_that_of_dvc(suite):
    lock = (suite / "dvc.lock").read_text()
    for name in ("write.py", "parts"):
        assert code_changes.digest_of(code_changes.read(suite / name)) in lock
