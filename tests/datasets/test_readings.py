"""A file of readings is read as it stands, or refused with the place of its fault."""

import numpy as np
import pytest

from engram.datasets.readings import ReadingsError, parse_csv, parse_matrix


@pytest.fixture
def file(tmp_path):
    """Returns a function that writes a CSV and returns its path."""

    def write(content):
        path = tmp_path / "speeds.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(path, parse=parse_csv):
    with pytest.raises(ReadingsError) as error:
        parse(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_a_column_is_a_detector_and_a_line_is_an_interval(file):
    names, readings = parse_csv(file("A1, B2\n61.5,58\n-3,1e2\n"))
    assert names == ["A1", "B2"]
    assert readings.dtype == np.float64
    np.testing.assert_array_equal(readings, [[61.5, 58], [-3, 100]])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "{}", "{0}{0}"])
def test_line_ends_do_not_matter(file, newline, end):
    text = newline.join(["a,b", "1,2", "3,4"]) + end.format(newline)
    np.testing.assert_array_equal(parse_csv(file(text))[1], [[1, 2], [3, 4]])


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "NAN"])
def test_an_empty_cell_and_nan_are_no_reading(file, cell):
    _, readings = parse_csv(file(f"a,b\n1,{cell}\n{cell},4\n"))
    np.testing.assert_array_equal(readings, [[1, np.nan], [np.nan, 4]])


def test_an_empty_line_of_a_single_detector_is_no_reading(file):
    _, readings = parse_csv(file("a\n1\n\n3\n"))
    np.testing.assert_array_equal(readings, [[1], [np.nan], [3]])


def test_zero_is_a_number(file):
    _, readings = parse_csv(file("a,b\n0,0.0\n"))
    np.testing.assert_array_equal(readings, [[0, 0]])


def test_the_mark_that_spreadsheets_put_first_is_not_part_of_a_name(file):
    names, readings = parse_csv(file("a,b\n1,2\n".encode("utf-8-sig")))
    assert names == ["a", "b"]
    np.testing.assert_array_equal(readings, [[1, 2]])


def test_names_may_have_accents_commas_and_quotes(file):
    names, _ = parse_csv(file('"Zürich, Nord","the ""old"" one"\n1,2\n'))
    assert names == ["Zürich, Nord", 'the "old" one']


@pytest.mark.parametrize("cell", ["slow", "1.5 km/h", "--", "0x10", '"1,5"'])
def test_text_is_refused_with_its_line_and_column(file, cell):
    message = refusal(file(f"a,b\n1,2\n3,{cell}\n"))
    assert "line 3, column 'b': expected a number or nothing" in message
    assert f"Received: {cell.strip(chr(34))!r}" in message


@pytest.mark.parametrize("cell", ["inf", "-inf", "Infinity", "1e999"])
def test_infinity_is_refused_with_its_line_and_column(file, cell):
    message = refusal(file(f"a,b\n{cell},2\n"))
    assert "line 2, column 'a'" in message
    assert f"Received: {cell!r}" in message


def test_a_number_too_large_for_float32_is_refused(file):
    assert "line 2, column 'b'" in refusal(file("a,b\n1,1e39\n"))


@pytest.mark.parametrize(("row", "cells"), [("1", 1), ("1,2,3", 3), ("1,2,", 3)])
def test_a_line_with_another_number_of_cells_is_refused(file, row, cells):
    message = refusal(file(f"a,b\n1,2\n{row}\n"))
    assert f"line 3: expected 2 cells. Received: {cells}" in message


def test_the_line_that_is_named_is_the_line_of_the_file(file):
    assert "line 4, column 'b'" in refusal(file("a,b\n1,2\n\n3,x\n"))


@pytest.mark.parametrize("text", ["", "\n", "\n\n"])
def test_an_empty_file_is_refused(file, text):
    assert "the file is empty" in refusal(file(text))


def test_a_file_of_names_alone_is_refused(file):
    assert "names in line 1 and no readings below" in refusal(file("a,b\n"))


def test_a_missing_file_is_named(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "nowhere.csv")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    refusal(tmp_path)


@pytest.mark.parametrize("code", ["latin-1", "utf-16"])
def test_a_file_in_another_encoding_is_refused(file, code):
    assert "not UTF-8 text" in refusal(file("Zürich,b\n1,2\n".encode(code)))


def test_two_equal_names_are_refused(file):
    assert "line 1: two columns are named 'a'" in refusal(file("a,b, a\n1,2,3\n"))


@pytest.mark.parametrize("names", ["a,,b", "a, ,b"])
def test_a_column_without_a_name_is_refused(file, names):
    assert "line 1: column 2 has no name" in refusal(file(f"{names}\n1,2,3\n"))


def test_columns_without_names_are_not_called_twins(file):
    assert "line 1: column 2 has no name" in refusal(file("a,,\n1,2,3\n"))


def test_semicolons_are_refused_in_words_not_as_one_strange_column(file):
    message = refusal(file("a;b\n1;2\n"))
    assert "line 1: cells must be separated by commas, not ';'" in message


def test_a_quote_that_is_never_closed_is_refused(file):
    assert "line 2" in refusal(file('a,b\n1,"2\n3,4\n'))


def test_a_quote_that_swallows_a_long_file_is_refused(file):
    refusal(file('a,b\n1,"2\n' + "3,4\n" * 40_000))


def matrix_refusal(path, size=2):
    return refusal(path, lambda path: parse_matrix(path, size))


def test_a_matrix_is_read_without_a_line_of_names(file):
    matrix = parse_matrix(file("1,0.5\n0.25,0\n\n"), 2)
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, [[1, 0.5], [0.25, 0]])


@pytest.mark.parametrize(
    ("text", "rows"), [("1,2\n", 1), ("1,2\n3,4\n5,6\n", 3), ("", 0)]
)
def test_a_matrix_has_as_many_rows_as_detectors(file, text, rows):
    assert f"expected 2 rows. Received: {rows}" in matrix_refusal(file(text))


def test_a_row_of_a_matrix_has_as_many_cells_as_detectors(file):
    message = matrix_refusal(file("1,2\n3\n"))
    assert "line 2: expected 2 cells. Received: 1" in message


@pytest.mark.parametrize("cell", ["far", "inf"])
def test_a_cell_of_a_matrix_is_a_number(file, cell):
    message = matrix_refusal(file(f"1,2\n3,{cell}\n"))
    assert "line 2, column '1'" in message
    assert f"Received: {cell!r}" in message
