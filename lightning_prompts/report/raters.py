"""How nearly raters agree: Cohen's kappa of names, Krippendorff's alpha of ordered ratings.

No library for alpha: torchmetrics has none, and its kappas know no missing ratings.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

import torch

from lightning_prompts.metrics.agreement import kappa


class Agreement(NamedTuple):
    """An agreement beyond chance, at most 1; 0 is chance.

    Attributes:
        value: None where it is not defined: nothing was rated twice, or all ratings are equal.
        prompts: That two raters or more rated.
        raters: Who rated one of these.
    """

    value: float | None
    prompts: int
    raters: int


def mean_kappa(ratings: Sequence[Mapping[Any, str]]) -> Agreement:
    """Mean Cohen's kappa of all pairs of raters (Light 1971), each on what both named.

    A pair that has one name for everything has no kappa, and is left out.

    Args:
        ratings: Of each rater, the name of each thing that was named.
    """
    found = []
    for one, other in combinations(ratings, 2):
        both = [thing for thing in one if thing in other]
        names = sorted({rater[thing] for rater in (one, other) for thing in both})
        if len(names) > 1:
            sides = [[names.index(rater[thing]) for thing in both] for rater in (one, other)]
            found.append(kappa(*map(torch.tensor, sides)))
    return Agreement(fmean(found) if found else None, *_counts(ratings))


def alpha(ratings: Sequence[Mapping[Any, int]]) -> Agreement:
    """Krippendorff's alpha of ordinal ratings, any of which may be missing.

    1 - (n - 1) sum_ck o_ck d_ck / sum_ck n_c n_k d_ck, with o_ck the pairs of ratings c and k that
    two raters gave one thing, each pair of a thing with m ratings counted 1 / (m - 1);
    n_c = sum_k o_ck, n their sum, and d_ck = (sum_{c <= g <= k} n_g - (n_c + n_k) / 2)^2.
    (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability")

    Args:
        ratings: Of each rater, the rating of each thing that was rated.
    """
    counts = _counts(ratings)
    values = sorted({value for rater in ratings for value in rater.values()})
    place = {value: i for i, value in enumerate(values)}
    pairs = torch.zeros(len(values), len(values), dtype=torch.float64)  # o_ck
    for thing in dict.fromkeys(thing for rater in ratings for thing in rater):
        given = [place[rater[thing]] for rater in ratings if thing in rater]
        for i, c in enumerate(given):
            for k in given[:i] + given[i + 1 :]:
                pairs[c, k] += 1 / (len(given) - 1)
    sizes = pairs.sum(1)  # n_c
    upto = sizes.cumsum(0)
    # Of c <= k; the other half mirrors it.
    between = (upto[None] - upto[:, None] + sizes[:, None]) - (sizes[:, None] + sizes[None]) / 2
    apart = between.triu().square()
    apart = apart + apart.T
    expected = float((sizes[:, None] * sizes[None] * apart).sum())
    if not expected:
        return Agreement(None, *counts)
    observed = float((pairs * apart).sum())
    return Agreement(1 - (float(sizes.sum()) - 1) * observed / expected, *counts)


def _counts(ratings: Sequence[Mapping[Any, object]]) -> tuple[int, int]:
    """Things that two raters or more rated, and who rated one of them."""
    things = [thing for rater in ratings for thing in rater]
    twice = {thing for thing in things if things.count(thing) > 1}
    return len(twice), sum(bool(twice & set(rater)) for rater in ratings)
