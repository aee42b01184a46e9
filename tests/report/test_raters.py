"""Agreement of raters against published numbers and against all pairs by hand."""

import random
from fractions import Fraction
from itertools import permutations

import pytest

from lightning_prompts.report.raters import alpha, mean_kappa

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section D: 4 observers, 12 units.
ROWS = (
    "123321412...",
    "1233224125.3",
    ".3332342251.",
    "12332441251.",
)


def observers(rows: tuple[str, ...]) -> list[dict[int, int]]:
    return [{i: int(c) for i, c in enumerate(row) if c != "."} for row in rows]


def by_pairs(raters: list[dict[int, int]]) -> float | None:
    """Alpha from all ordered pairs of ratings, without a table of coincidences."""
    units = [[r[i] for r in raters if i in r] for i in sorted({i for r in raters for i in r})]
    pairable = [values for values in units if len(values) > 1]
    every = [value for values in pairable for value in values]

    def apart(c: int, k: int) -> Fraction:
        low, high = min(c, k), max(c, k)
        between = sum(low <= value <= high for value in every)
        return (between - Fraction(every.count(c) + every.count(k), 2)) ** 2

    n = len(every)
    expected = sum((apart(c, k) for c, k in permutations(every, 2)), Fraction())
    if not expected:
        return None
    observed = sum(
        (
            apart(c, k) / (len(values) - 1)
            for values in pairable
            for c, k in permutations(values, 2)
        ),
        Fraction(),
    )
    return float(1 - (observed / n) / (expected / (n * (n - 1))))


def test_alpha_of_a_published_table():
    found = alpha(observers(ROWS))
    assert found.value == pytest.approx(0.815, abs=5e-4)
    assert (found.prompts, found.raters) == (11, 4)


def test_alpha_is_that_of_all_pairs():
    dice = random.Random(0)
    values = []
    for _ in range(40):
        count = dice.randint(2, 4)
        raters = [
            {i: dice.randint(1, 5) for i in range(7) if dice.random() < 0.7} for _ in range(count)
        ]
        expected = by_pairs(raters)
        assert alpha(raters).value == (None if expected is None else pytest.approx(expected))
        values.append(expected)
    assert sum(value is not None and value < 0 for value in values) > 3


def test_kappa_is_the_mean_of_pairs():
    dice = random.Random(1)
    raters = [{i: dice.choice("abc") for i in range(9) if dice.random() < 0.8} for _ in range(3)]
    found = []
    for one, other in ((0, 1), (0, 2), (1, 2)):
        pairs = [(raters[one][i], raters[other][i]) for i in raters[one] if i in raters[other]]
        n = len(pairs)
        agreed = Fraction(sum(a == b for a, b in pairs), n)
        chance = sum(
            Fraction(sum(a == c for a, _ in pairs) * sum(b == c for _, b in pairs), n * n)
            for c in "abc"
        )
        found.append(float((agreed - chance) / (1 - chance)))
    got = mean_kappa(raters)
    assert got.value == pytest.approx(sum(found) / 3)
    assert got.raters == 3


def test_where_there_is_no_agreement_to_speak_of():
    for nothing in ([], [{}], [{0: 1, 1: 2}], [{0: 1}, {1: 2}]):
        assert alpha(nothing) == mean_kappa(nothing) == (None, 0, 0)
    assert alpha([{0: 3, 1: 3}, {0: 3, 1: 3}]) == (None, 2, 2)
    assert mean_kappa([{0: "a"}, {0: "a"}]) == (None, 1, 2)
    assert alpha([{0: 1, 1: 5}, {0: 1, 1: 5}, {}]) == (1.0, 2, 2)
