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


@pytest.fixture
def stopped(tmp_path, data):
    """A file of two rows, as a measurement leaves it that is stopped in its third."""
    file = tmp_path / "runs/map/unfinished.json"
    like = unfinished.like(BLOCK, [data], [unfinished])
    with (
        pytest.raises(KeyboardInterrupt),
        unfinished.rows(file, like) as (known, keep),
    ):
        assert known == []
        keep([{"depth": 1}])
        keep([{"depth": 1}, {"depth": 2}])
        raise KeyboardInterrupt
    return file


def test_a_stopped_one_goes_on_and_a_finished_one_leaves_nothing(stopped, data, capsys):
    with unfinished.rows(stopped, unfinished.like(BLOCK, [data], [unfinished])) as (
        known,
        _,
    ):
        assert known == [{"depth": 1}, {"depth": 2}]
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
    with unfinished.rows(stopped, unfinished.like(block, [data], code)) as (known, _):
        assert known == []
    assert "from other params, data or code, so not used" in capsys.readouterr().out


def test_a_fault_before_the_first_row_leaves_the_file_as_it_was(stopped, data):
    before = stopped.read_bytes()
    with (
        pytest.raises(ZeroDivisionError),
        unfinished.rows(stopped, unfinished.like(BLOCK, [data], [unfinished])),
    ):
        raise ZeroDivisionError
    assert stopped.read_bytes() == before
