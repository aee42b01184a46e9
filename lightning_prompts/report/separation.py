"""Does a measure tell two groups of texts apart? Areas under ROC curves, and a rule for a verdict.

No library for them, as in `statistics.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.files.drawing import drawn_counts, percentile_interval

BAR = 0.75
"""Written down before any measure was run; `failed` says what it is for."""
LEAST = 5
"""Prompts, below which a rank correlation says nothing."""


class Separation(NamedTuple):
    """How often a measure says that a written text is better than one of another group."""

    auc: float
    low: float
    """Of the 95 % bootstrap interval, like `high`."""
    high: float
    n: int
    """Written texts."""
    others: int
    """Texts of the other group."""


def separation(
    written: Sequence[float], others: Sequence[float], clusters: Sequence[int] | None = None
) -> Separation:
    """Area under the ROC curve (Mann-Whitney) with a percentile bootstrap interval.

    (#{i, j: written_i > others_j} + #{i, j: written_i = others_j} / 2) / (n m)

    The bootstrap draws written texts, and what was made of one goes with it; a group that was not
    made of them is drawn for itself. The same draws at each call.

    Args:
        written: [n] Values, more is better.
        others: [m] Values of the other group.
        clusters: [m] Of which written text each was made; None where of none.

    Raises:
        ValueError: If there is nothing to compare.
    """
    if not written or not others:
        raise ValueError("A separation is of one text at least on each side.")
    better = torch.tensor(written, dtype=torch.float64)
    worse = torch.tensor(others, dtype=torch.float64)
    above, equal = better[:, None] > worse, better[:, None] == worse
    wins = above.double() + equal.double() / 2  # (n, m)
    n, m = wins.shape
    generator = torch.Generator().manual_seed(0)
    drawn = drawn_counts(n, generator)
    made_of = None if clusters is None else torch.tensor(clusters)
    of_others = drawn_counts(m, generator) if made_of is None else drawn[:, made_of]  # (draws, m)
    # A draw may have none of the texts that the others were made of.
    sizes = of_others.sum(1)
    aucs = ((drawn @ wins) * of_others).sum(1)[sizes > 0] / (n * sizes[sizes > 0])
    return Separation(float(wins.mean()), *percentile_interval(aucs), n, m)


def failed(found: Mapping[str, Separation], needed: Sequence[str]) -> list[str]:
    """The comparisons that a measure needs for its verdict, and does not pass.

    It separates where the interval's lower end is above 0.75 in each of them.

    Args:
        found: By the other group's name.
        needed: Names; those that a measure does not ask are left out of `found`.
    """
    return [name for name in needed if name in found and found[name].low <= BAR]


def ranks(values: Sequence[float], times: Tensor | None = None) -> Tensor:
    """[n], or [..., n], Ranks from 1, equal values sharing the mean of theirs.

    Args:
        values: [n]
        times: [..., n] How often each stands among those that are ranked; by default once.

    >>> ranks([5.0, 1.0, 5.0]).tolist()
    [2.5, 1.0, 2.5]
    """
    given = torch.tensor(values, dtype=torch.float64)
    times = torch.ones_like(given) if times is None else times
    below, equal = (given[:, None] > given).double(), (given[:, None] == given).double()
    return times @ below.T + (times @ equal + 1) / 2


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation, -1 to 1; None where all values of one are equal.

    Args:
        first: [n] Values.
        second: [n] Of the same texts.
    """
    (value,) = _spearman(first, second, torch.ones(1, len(first), dtype=torch.float64)).tolist()
    return None if math.isnan(value) else value


def spearman_interval(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of `spearman`, over texts; the same draws at each call.

    A draw in which all values of one are equal says nothing and is left out.

    Args:
        first: [n] Values.
        second: [n] Of the same texts.

    Returns:
        None where all values of one are equal.
    """
    found = _spearman(first, second, drawn_counts(len(first)))
    known = found[~found.isnan()]
    return percentile_interval(known) if len(known) else None


def _spearman(first: Sequence[float], second: Sequence[float], times: Tensor) -> Tensor:
    """[draws] Of each text as often as `times` [draws, n] says; NaN where it has no value."""
    n = len(first)
    a, b = (
        (r := ranks(values, times)) - (times * r).sum(1, keepdim=True) / n
        for values in (first, second)
    )
    return (times * a * b).sum(1) / ((times * a**2).sum(1) * (times * b**2).sum(1)).sqrt()
