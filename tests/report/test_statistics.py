"""Against tables, enumeration and hand-computed values."""

import itertools
import math
import random

import pytest

from lightning_prompts.report.statistics import (
    estimate,
    holm,
    log_estimate,
    mcnemar,
    non_dominated,
    paired,
    t_quantile,
    t_within,
    wilson,
)


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # printed in any table of Student's t
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)],
)
def test_quantiles_are_those_of_the_tables(freedom: int, quantile: float):
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)
    assert t_within(t_quantile(freedom), freedom) == pytest.approx(0.95)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 13])
def test_probabilities_are_those_of_the_density(freedom: int):
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    scale = math.exp(log_scale) / math.sqrt(freedom * math.pi)
    steps, t = 20_000, 1.7
    width = t / steps
    middles = (width * (i + 0.5) for i in range(steps))
    area = sum(scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2) * width for x in middles)
    assert t_within(t, freedom) == pytest.approx(2 * area, abs=1e-7)


def test_the_interval_over_seeds():
    found = estimate([0.8, 0.9, 1.0])
    half = 4.302653 * 0.1 / math.sqrt(3)  # by hand: their standard deviation is 0.1
    assert found[:3] == pytest.approx((0.9, 0.9 - half, 0.9 + half), abs=1e-6)
    assert found[3:] == (3, "seeds")


def test_one_value_has_the_interval_over_rows():
    assert estimate([0.8], 100)[1:] == (*wilson(0.8, 100), 1, "rows")
    assert estimate([0.8, 0.8, None, math.nan], 100).over == "rows"
    assert estimate([0.8])[1:] == (None, None, 1, "none")
    assert estimate([None]) is None


@pytest.mark.parametrize(("share", "rows"), [(0.0, 10), (0.3, 7), (0.5, 1000), (1.0, 25)])
def test_wilson_is_where_the_normal_test_just_accepts(share: float, rows: int):
    for end in wilson(share, rows):
        if 0 < end < 1:
            error = math.sqrt(end * (1 - end) / rows)
            assert abs(share - end) / error == pytest.approx(1.959964, abs=1e-5)


def test_perplexities_have_a_geometric_mean():
    found = log_estimate([10.0, 1000.0])
    assert found.mean == pytest.approx(100.0)
    assert found.low * found.high == pytest.approx(100.0**2)
    assert log_estimate([1e-300, 1e300]).high == math.inf
    assert log_estimate([1000.0, 1000.0])[:3] == (1000.0, None, None)


def test_pairs():
    found = paired([0.9, 0.8, 0.9], [0.7, 0.7, 0.6])  # differences 0.2, 0.1, 0.3
    assert found.mean == pytest.approx(0.2)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)  # t = 3.4641, two degrees of freedom
    assert paired([1.0], [0.5]) is None


@pytest.mark.parametrize("second", [(0.773, 0.773, 0.773), (0.807, 0.807, 0.807)])
def test_equal_differences_say_nothing_of_the_spread(second):
    assert paired([0.773, 0.773, 0.773], second) is None
    assert paired([0.9, 0.8], [0.7, 0.6]) is None  # equal but for rounding
    assert paired([0.9, 0.8], [0.7, 0.61]) is not None


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (2, 9), (0, 8)])
def test_mcnemar_counts_all_ways_to_fall(first: int, second: int):
    found = mcnemar("1" * first + "0" * second + "10", "0" * first + "1" * second + "10")
    n, least = first + second, min(first, second)
    falls = [sum(way) for way in itertools.product((0, 1), repeat=n)]
    tail = sum(fall <= least for fall in falls) / len(falls)
    assert (found.first, found.second) == (first, second)
    assert found.p == pytest.approx(min(1, 2 * tail))


def test_mcnemar_wants_the_same_rows():
    with pytest.raises(ValueError, match="shorter"):
        mcnemar("101", "10")


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.02, 0.9]) == pytest.approx([0.08, 0.04, 0.06, 0.9])
    assert holm([]) == []


def test_holm_of_some_is_no_smaller_than_of_all():
    draw = random.Random(0)
    for _ in range(50):
        p = [draw.random() ** 3 for _ in range(12)]
        of_all = holm(p)
        some = draw.sample(range(12), 5)
        found = holm([p[i] for i in some], of=12)
        for value, i in zip(found, some, strict=True):
            assert value >= of_all[i] - 1e-12
    assert holm([0.01], of=10) == [0.1]


def test_the_front_against_all_pairs():
    draw = random.Random(0)
    for _ in range(50):
        points = [(draw.randrange(6), draw.randrange(6)) for _ in range(draw.randrange(1, 30))]
        beaten = {
            i
            for i, (x, y) in enumerate(points)
            for a, b in points
            if a <= x and b >= y and (a, b) != (x, y)
        }
        assert sorted(non_dominated(points)) == sorted(set(range(len(points))) - beaten)
