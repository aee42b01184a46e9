"""Labels as data has them find the verbalizer's."""

from typing import Any

import pytest

from lightning_prompts.tasks.labels import class_index, is_missing

NUMBERS, WORDS, NAMES = ["0", "1"], ["negative", "positive"], ["false", "true"]


@pytest.mark.parametrize(
    ("value", "labels", "expected"),
    [
        (1, NUMBERS, 1),
        ("1", NUMBERS, 1),
        (" 1 ", NUMBERS, 1),
        (1.0, NUMBERS, 1),
        (1.5, NUMBERS, None),
        (True, NUMBERS, 1),
        (False, NAMES, 0),
        ("True", NAMES, 1),
        ("FALSE", NUMBERS, 0),
        ("positive", WORDS, 1),
        ("Positive", WORDS, None),
        (" a", ["a", " a"], 1),
        (-1, ["-1", "1"], 0),
        (None, NUMBERS, None),
        ("01", NUMBERS, None),
    ],
)
def test_class_of_a_label(value: Any, labels: list[str], expected: int | None) -> None:
    assert class_index(value, labels) == expected


def test_class_numbers_match_all_by_number_or_all_by_name() -> None:
    assert [class_index(i, NUMBERS, ["negative", "positive"]) for i in (0, 1)] == [0, 1]
    assert [class_index(i, ["positive", "negative"], ["negative", "positive"]) for i in (0, 1)] == [
        1,
        0,
    ]
    # Yelp polarity's classes 0 and 1 are named "1" and "2".
    assert [class_index(i, NUMBERS, ["1", "2"]) for i in (0, 1)] == [0, 1]
    assert [class_index(i, ["1", "2"], ["1", "2"]) for i in (0, 1)] == [0, 1]
    assert class_index(-1, WORDS, ["negative", "positive"]) is None


def test_missing_labels() -> None:
    assert all(is_missing(value) for value in (None, -1, "-1", "", " ", float("nan"), -1.0))
    assert not any(is_missing(value) for value in (0, "0", False, "none", 7))
