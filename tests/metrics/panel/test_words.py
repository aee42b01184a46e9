"""Tokens and words, against loops over all pairs."""

import random

import pytest

from lightning_prompts.metrics.panel.words import (
    as_characters,
    copied_run,
    frequent_words,
    natural_words,
    real_words,
    repetition,
    words_of,
)


@pytest.mark.parametrize(
    ("ids", "expected"), [([4], 0), ([4, 4, 4, 4], 0.75), ([1, 2, 1, 3], 0.25), ([1, 2, 3], 0)]
)
def test_repetition(ids: list[int], expected: float):
    assert repetition(ids) == expected


def test_nothing_repeats_nothing():
    with pytest.raises(ValueError, match=r"^token_ids is empty"):
        repetition([])


def test_real_words():
    known = {"great", "film"}
    assert real_words(" great Film GREAT", known) == 1
    assert real_words("great zzq x 7 film-like", known) == 0.5  # great, zzq, film, like
    assert real_words("7 !! x", known) == 0
    assert words_of("Über_lang don't é à1bc") == ["über", "lang", "don", "bc"]


def test_a_word_that_stands_once_may_be_a_slip():
    assert frequent_words(["Good plot, good", "flim PLOT"]) == {"good", "plot"}


def test_natural_words_are_those_of_the_sentences(monkeypatch: pytest.MonkeyPatch):
    made = (("A bus, a Tram.",), ("Put it by 7.",))
    monkeypatch.setattr("lightning_prompts.files.sentences.registers", lambda: made)
    assert natural_words() == {"bus", "tram", "put", "it", "by"}


def longest(ids: list[int], rows: list[list[int]]) -> int:
    runs = [ids[i:j] for i in range(len(ids)) for j in range(i + 1, len(ids) + 1)]
    stand = [
        run for run in runs for row in rows for k in range(len(row)) if row[k : k + len(run)] == run
    ]
    return max(map(len, stand), default=0)


def test_longest_run_that_stands_in_a_row():
    chance = random.Random(0)
    for _ in range(200):
        rows = [chance.choices(range(4), k=chance.randint(0, 9)) for _ in range(3)]
        ids = chance.choices(range(4), k=chance.randint(0, 8))
        assert copied_run(ids, as_characters(rows)) == longest(ids, rows)


def test_no_run_goes_over_the_border_of_two_rows():
    rows = as_characters([[1, 2], [3, 4]])
    assert copied_run([2, 3], rows) == 1
    assert copied_run([1, 2], rows) == 2
    assert copied_run([9], rows) == copied_run([9], "") == 0


def test_tokens_of_all_numbers():
    """Surrogates and what lies above are characters as well."""
    rows = as_characters([[0xD800, 0xDFFF, 262_143, 0]])
    assert copied_run([0xDFFF, 262_143, 0], rows) == 3
