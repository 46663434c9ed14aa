"""A request is read as its fields say, or refused in words."""

import numpy as np
import pytest

from engram.serving.fields import Field, Refused, checked

PIXELS = Field("images", "float32", (2, 2), "pixels", 0, 16)
COUNT = Field("count", "int64", (), "how many", 1)
WORDS = Field("sentence", "text", (), "in English")
READINGS = Field("readings", "float32", (2,), "km/h", gaps=True)


def test_lists_become_arrays_of_the_fields_kinds():
    given = {"images": [[[0, 16], [1.5, 2]]], "count": [3.0]}
    found = checked([PIXELS, COUNT], given)
    assert found["images"].dtype == np.float32
    np.testing.assert_array_equal(found["images"], given["images"])
    assert found["count"].dtype == np.int64
    assert found["count"].tolist() == [3]


def test_a_missing_number_is_nan_where_gaps_are_allowed():
    found = checked([READINGS], {"readings": [[None, 1], [float("nan"), 2]]})
    np.testing.assert_array_equal(found["readings"], [[np.nan, 1], [np.nan, 2]])


def test_texts_stay_texts():
    assert checked([WORDS], {"sentence": ["a", "b"]})["sentence"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (PIXELS, [[[0, 17], [1, 2]]], r"from 0 to 16\. Received: 17"),
        (PIXELS, [[[0, -1], [1, 2]]], r"\(B, 2, 2\) from 0 to 16\. Received: -1"),
        (PIXELS, [[0, 1, 1, 2]], r"\(B, 2, 2\) from 0 to 16\. Received: shape \(1, 4\)"),
        (PIXELS, 3, r"Received: shape \(\)"),
        (PIXELS, [[[0, None], [1, 2]]], "Received: nan"),
        (PIXELS, [[[0, float("inf")], [1, 2]]], "Received: inf"),
        (PIXELS, [[[0, 1], [2]]], "Received: rows of other sizes, or no numbers"),
        (PIXELS, [[["a", "b"], ["c", "d"]]], "Received: rows of other sizes, or no"),
        (PIXELS, np.zeros((0, 2, 2)), "Received: no row"),
        (COUNT, [0], r"`count` must be whole numbers \(B,\) from 1 on\. Received: 0"),
        (COUNT, [1.5], "Received: 1.5"),
        (COUNT, [10**400], "Received: rows of other sizes, or no numbers"),
        (READINGS, [[1e39, 1]], "Received: 1e\\+39"),
        (WORDS, "abc", "must be texts, one a row. Received: 'abc'"),
        (WORDS, 5, "Received: 5"),
        (READINGS, [[float("inf"), 1]], "Received: inf"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(field, value, message):
    with pytest.raises(Refused, match=message):
        checked([field], {field.name: value})


def test_other_names_and_other_counts_are_refused():
    with pytest.raises(Refused, match=r"must hold images, count\. Received: images, n"):
        checked([PIXELS, COUNT], {"images": [], "n": []})
    with pytest.raises(Refused, match=r"as many rows\. Received: {'images': 1, 'count'"):
        checked([PIXELS, COUNT], {"images": [[[0, 0], [0, 0]]], "count": [1, 2]})
