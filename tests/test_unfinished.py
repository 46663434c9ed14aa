"""What a stopped measurement left is used by one of the same kind, and by no other."""

import json

import pytest

from engram import unfinished

BLOCK = {"depths": [1, 2]}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data/deep"
    folder.mkdir(parents=True)
    (folder / "inputs.npy").write_bytes(b"numbers")
    return folder.parent


def measure(known, depths=(1, 2, 3)):
    """Yields what is known, then a row of each other depth; the third one is stopped."""
    yield from known
    for depth in depths[len(known) :]:
        if depth == 3:
            raise KeyboardInterrupt
        yield {"depth": depth}


@pytest.fixture
def stopped(tmp_path, data):
    """A file of two rows, as a measurement leaves it that is stopped in its third."""
    file = tmp_path / "runs/map/unfinished.json"
    like = unfinished.like(BLOCK, [data], [unfinished])
    with pytest.raises(KeyboardInterrupt), unfinished.rows(file, like, measure) as rows:
        for count, row in enumerate(rows, start=1):
            assert row == {"depth": count}
            assert json.loads(file.read_text())["rows"][-1] == row
    return file


def test_a_stopped_one_goes_on_and_a_finished_one_leaves_nothing(stopped, data, capsys):
    like = unfinished.like(BLOCK, [data], [unfinished])
    asked = []

    def rest(known):
        asked.extend(known)
        return measure(known, [1, 2, 4])

    with unfinished.rows(stopped, like, rest) as rows:
        assert list(rows) == [{"depth": 1}, {"depth": 2}, {"depth": 4}]
        assert stopped.is_file()  # until what becomes of the rows is written
    assert asked == [{"depth": 1}, {"depth": 2}]
    assert "goes on after 2 rows" in capsys.readouterr().out
    assert list(stopped.parent.iterdir()) == []


@pytest.mark.parametrize("what", ["params", "data", "code"])
def test_rows_of_other_params_data_or_code_are_not_used(stopped, data, capsys, what):
    block, code = BLOCK, [unfinished]
    if what == "params":
        block = {"depths": [1, 3]}
    elif what == "code":
        code = [json]
    else:
        (data / "deep/inputs.npy").write_bytes(b"others")
    like = unfinished.like(block, [data], code)
    with unfinished.rows(stopped, like, lambda known: iter(known)) as rows:
        assert list(rows) == []
    assert "from other params, data or code, so not used" in capsys.readouterr().out


def test_a_fault_leaves_the_file_as_it_was(stopped, data):
    """As before the first row, so after the last one."""
    before = stopped.read_bytes()
    like = unfinished.like(BLOCK, [data], [unfinished])
    for some in (0, 2):
        with (
            pytest.raises(ZeroDivisionError),
            unfinished.rows(stopped, like, lambda known: iter(known)) as rows,
        ):
            for _ in range(some):
                next(rows)
            raise ZeroDivisionError
        assert stopped.read_bytes() == before
