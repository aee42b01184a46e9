"""Intervals, paired comparisons and the Pareto front, without a library for them.

scipy has most of it; where it is installed torchmetrics imports its `signal`, and every command
would begin half a second later.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean, stdev
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
        half = t_quantile(n - 1) * stdev(known) / math.sqrt(n)
        return Estimate(mean, mean - half, mean + half, n, "seeds")
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
    mean, n = fmean(differences), len(differences)
    # Equal but for rounding: 0.9 - 0.7 is not 0.8 - 0.6.
    if max(differences) - min(differences) <= ROUNDING * max(map(abs, (*first, *second))):
        return None
    error = stdev(differences) / math.sqrt(n)
    half = t_quantile(n - 1) * error
    return Paired(mean, mean - half, mean + half, 1 - t_within(abs(mean) / error, n - 1), n)


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
    tail = sum(math.comb(a + b, i) for i in range(min(a, b) + 1))
    return McNemar(a, b, min(1.0, 2 * tail / 2 ** (a + b)))


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


def t_within(t: float, freedom: int) -> float:
    """P(|T| <= t) of Student's T, in closed form for whole degrees of freedom.

    The finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):  # k: the power of the cosine, plus 1
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(freedom: int) -> float:
    """The t that |T| stays within in 95 % of cases.

    >>> [round(t_quantile(n), 3) for n in (1, 2, 10)]
    [12.706, 4.303, 2.228]
    """
    low, high = 0.0, 1.0
    while t_within(high, freedom) < LEVEL:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < LEVEL else (low, middle)
    return high


def _finite(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _exp(value: float) -> float:
    """An interval of two seeds can reach beyond what a float holds."""
    return math.exp(value) if value < 700 else math.inf
