"""Intervals, paired comparisons and the Pareto front.

scipy.stats has the distributions and the exact test; imported where they are asked for, it takes
half a second. Wilson's interval is our own, because scipy's is of counts alone.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean
from typing import Literal, NamedTuple

LEVEL = 0.95
ROUNDING = 1e-12
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


class Estimate(NamedTuple):
    """A mean with its 95 % interval, in the unit of the values."""

    mean: float
    low: float | None
    """None, like `high`, where nothing is known of the spread."""
    high: float | None
    n: int
    """Values (seeds) that the mean is of."""
    over: Literal["seeds", "rows", "none"]
    """What the interval is over: what another seed, or other rows, would have given."""


class Paired(NamedTuple):
    """The mean difference of n pairs, its 95 % interval, and its two-sided p."""

    mean: float
    low: float
    high: float
    p: float
    n: int


class McNemar(NamedTuple):
    """On how many rows only the first or only the second was right, and the exact two-sided p."""

    first: int
    second: int
    p: float


def estimate(values: Iterable[float | None], rows: int | None = None) -> Estimate | None:
    """Mean over seeds with its t interval; of one value, a share of n rows, the Wilson interval.

    Seeds that agree to the last digit say nothing of the spread (a written prompt is the same for
    every seed), so they count as one value.

    Args:
        values: One for each seed; None and what is not finite is left out.
        rows: What the values are shares of, None where they are no shares.

    Returns:
        None where there is no value.
    """
    known = _finite(values)
    if not known:
        return None
    mean, n = fmean(known), len(known)
    if n > 1 and max(known) > min(known):
        from scipy import stats

        low, high = stats.t.interval(LEVEL, n - 1, loc=mean, scale=stats.sem(known))
        return Estimate(mean, float(low), float(high), n, "seeds")
    if rows and 0 <= mean <= 1:
        return Estimate(mean, *wilson(mean, rows), n, "rows")
    return Estimate(mean, None, None, n, "none")


def log_estimate(values: Iterable[float | None]) -> Estimate | None:
    """The same of positive values on a log scale: their geometric mean."""
    positive = [v for v in _finite(values) if v > 0]
    known = estimate(map(math.log, positive))
    if known is None:
        return None
    if known.over == "none":  # all the same, and so exactly; exp(log(1000)) is a little less
        return known._replace(mean=positive[0])
    low, high = (None if end is None else _exp(end) for end in (known.low, known.high))
    return Estimate(_exp(known.mean), low, high, known.n, known.over)


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n rows.

    >>> tuple(round(end, 4) for end in wilson(0.8, 100))
    (0.7112, 0.8666)
    """
    z2 = _Z**2 / rows
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows)) / (1 + z2)
    return (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)


def paired(first: Sequence[float], second: Sequence[float]) -> Paired | None:
    """Mean of `first - second` over pairs, with its t interval; None below two pairs.

    None too where all differences are the same: as in `estimate`, they say nothing of the spread.

    Args:
        first: [n] Values.
        second: [n] Their partners (of the same seeds).
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 2:
        return None
    # Equal but for rounding: 0.9 - 0.7 is not 0.8 - 0.6.
    if max(differences) - min(differences) <= ROUNDING * max(map(abs, (*first, *second))):
        return None
    from scipy import stats

    found = stats.ttest_rel(first, second)
    low, high = map(float, found.confidence_interval(LEVEL))
    return Paired(fmean(differences), low, high, float(found.pvalue), len(differences))


def mcnemar(first: str, second: str) -> McNemar:
    """McNemar's exact test of two prompts on the same rows.

    Args:
        first: A character a row, "1" where the answer was right.
        second: The other prompt's, in the same order.

    Raises:
        ValueError: If they are not of the same rows.
    """
    pairs = list(zip(first, second, strict=True))
    a, b = pairs.count(("1", "0")), pairs.count(("0", "1"))
    if a == b:
        return McNemar(a, b, 1.0)
    from scipy import stats

    return McNemar(a, b, float(stats.binomtest(a, a + b).pvalue))


def holm(p: Sequence[float], of: int | None = None) -> list[float]:
    """The p values adjusted for all being looked at together (Holm's step-down).

    Args:
        p: The values.
        of: How many there would be with those that were not worked out, where what is shown was
            chosen by its results. Each is then no smaller than it would be among all.

    >>> [round(value, 2) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    count = max(len(p), of or 0)
    adjusted, highest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (count - place) * p[index]))
        adjusted[index] = highest
    return adjusted


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats in one coordinate without losing in the other.

    Args:
        points: (cost, gain) of each: the less and the more the better.

    Returns:
        Their indices, by rising cost. Of equal points all are kept.
    """
    kept: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        best = points[kept[-1]] if kept else None
        if best is None or points[i][1] > best[1] or points[i] == best:
            kept.append(i)
    return kept


def _finite(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _exp(value: float) -> float:
    """An interval of two seeds can reach beyond what a float holds."""
    return math.exp(value) if value < 700 else math.inf
