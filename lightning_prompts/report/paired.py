"""Settings compared two by two, on the seeds that both have and the rows that both scored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import fmean

from lightning_prompts.report.comparison import Comparison, Problem, Setting, perplexity
from lightning_prompts.report.labels import chance
from lightning_prompts.report.statistics import McNemar, Paired, holm, log_estimate, mcnemar, paired

# So many settings are compared each with each; of more, each one with the best.
EACH_WITH_EACH = 5
MOST = 15


@dataclass(frozen=True)
class Pair:
    """Two settings.

    Args:
        first: The better one, by its mean.
        second: The other one.
        difference: Mean of first less second over their common seeds.
        seeds: How many seeds they have in common.
        over_seeds: Paired over them, None below two or where all differ equally.
        over_rows: Of each common seed, by its number, whose test rows both answered.
        p_seeds: Of `over_seeds`, adjusted for the number of all pairs that there are.
        p_rows: The largest of `over_rows`, adjusted likewise.
        likelier: The first one's perplexity over the second one's, over their common seeds.
    """

    first: Setting
    second: Setting
    difference: float
    seeds: int
    over_seeds: Paired | None
    over_rows: list[McNemar] = field(default_factory=list)
    p_seeds: float | None = None
    p_rows: float | None = None
    likelier: float | None = None


def pairs(comparison: Comparison, problem: Problem) -> list[Pair]:
    """Each setting with each, or of many settings each with the best by its mean.

    Pairs without a common seed are left out.
    """
    scored = [(s, e.mean) for s in problem.settings if (e := comparison.score(s)) is not None]
    ranked = [setting for setting, _ in sorted(scored, key=lambda entry: -entry[1])]
    if len(ranked) <= EACH_WITH_EACH:
        chosen, among = list(combinations(ranked, 2)), None
    else:
        chosen = [(ranked[0], other) for other in ranked[1 : MOST + 1]]
        # All pairs count: the best one was chosen by the same numbers that it is tested by.
        among = math.comb(len(ranked), 2)
    found = [pair for first, second in chosen if (pair := _pair(comparison, first, second))]
    return _adjusted(found, among)


def _pair(comparison: Comparison, first: Setting, second: Setting) -> Pair | None:
    name = f"{comparison.split}/{comparison.measure.name}"
    by_seed = [
        {chance(r): r for r in setting.records if name in r.metrics} for setting in (first, second)
    ]
    common = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not common:
        return None
    runs = [[of_seed[seed] for seed in common] for of_seed in by_seed]
    values = [[run.metrics[name] for run in of_setting] for of_setting in runs]
    tested = comparison.split == "test"
    both = ((a.correct or "", b.correct or "") for a, b in zip(*runs, strict=True))
    answers = [mcnemar(a, b) for a, b in both if tested and 0 < len(a) == len(b)]
    perplexities = [
        log_estimate(perplexity(run, comparison.split) for run in of_setting) for of_setting in runs
    ]
    likelier = None
    if perplexities[0] is not None and perplexities[1] is not None:
        likelier = perplexities[0].mean / perplexities[1].mean
    return Pair(
        first,
        second,
        fmean(a - b for a, b in zip(*values, strict=True)),
        len(common),
        paired(*values),
        answers,
        likelier=likelier,
    )


def _adjusted(found: Sequence[Pair], among: int | None) -> list[Pair]:
    """With p values for all pairs looked at together; of so many, where these are some of them."""
    done = list(found)
    over_seeds = {i: p.over_seeds.p for i, p in enumerate(found) if p.over_seeds is not None}
    for i, p in zip(over_seeds, holm([*over_seeds.values()], among), strict=True):
        done[i] = replace(done[i], p_seeds=p)
    over_rows = {i: max(t.p for t in p.over_rows) for i, p in enumerate(found) if p.over_rows}
    for i, p in zip(over_rows, holm([*over_rows.values()], among), strict=True):
        done[i] = replace(done[i], p_rows=p)
    return done
