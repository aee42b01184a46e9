"""Runs put together: seeds of one setting, settings of one problem, problems of one task."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from lightning_prompts.files.amounts import NONE
from lightning_prompts.files.stages import SPLIT_OF, Stage
from lightning_prompts.report.labels import (
    any_setting,
    by_number,
    chance,
    frozen,
    labels,
    of_problem,
    of_setting,
)
from lightning_prompts.report.statistics import Estimate, estimate, log_estimate
from lightning_prompts.runs.record import RunRecord

T = TypeVar("T")


class Measure(NamedTuple):
    """How well a prompt does a task: the more the better."""

    name: str
    label: str
    unit: str
    top: float
    """The best value that there can be."""

    @property
    def share(self) -> bool:
        """Whether it is a share of rows."""
        return self.top == 1

    def axis(self, split: Stage) -> str:
        """What stands at an axis."""
        return f"{SPLIT_OF[split]} {self.label} ({self.unit})"

    def shown(self, value: float | None) -> str:
        """A value to as many digits as are meant; a dash where there is none."""
        return NONE if value is None else f"{value:.3f}" if self.share else f"{value:.1f}"


# Where a task has several, the first one that was measured counts.
MEASURES = (
    Measure("accuracy", "accuracy", "share of rows", 1),
    Measure("joint", "joint", "mean of content times judged style, 0 to 100", 100),
    Measure("reward", "reward", "mean of content and style, 0 to 100", 100),
)


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone, in the order of their seeds."""

    label: str
    tuner: str
    """What it calls itself; with the variant's name where a study has several variants of it."""
    records: tuple[RunRecord, ...]

    @property
    def vectors(self) -> bool:
        """Whether vectors, not tokens, are the prompt in use."""
        return self.records[0].soft_in_use

    @property
    def learned(self) -> bool:
        """Whether its runs learned their prompts."""
        return self.records[0].learned

    def values(self, metric: str) -> list[float | None]:
        """A metric of each seed's best prompt, by its logged name."""
        return [record.metrics.get(metric) for record in self.records]

    def rows(self, split: Stage) -> int | None:
        """Rows that a split has, where it is known."""
        known = (record.rows.get(SPLIT_OF[split]) for record in self.records)
        # Of runs that were scored on different numbers the fewest: their interval is the widest.
        return min((rows for rows in known if rows is not None), default=None)

    def estimate(self, metric: str, split: Stage, share: bool = True) -> Estimate | None:
        """Mean and interval of a metric over the seeds, or of one seed over the rows."""
        rows = self.rows(split) if share else None
        return estimate(self.values(f"{split}/{metric}"), rows)

    def perplexities(self, split: Stage) -> list[float | None]:
        """Of each seed's tokens; the rows do not matter, so validation stands in for test."""
        return [perplexity(record, split) for record in self.records]

    def perplexity(self, split: Stage) -> Estimate | None:
        """Geometric mean and interval over the seeds."""
        return log_estimate(self.perplexities(split))


@dataclass(frozen=True)
class Problem:
    """What is asked of all its settings alike: the rows, the template, the answer words."""

    label: str
    """What tells it from the other problems of its task; empty where there is no other."""
    template: str
    settings: tuple[Setting, ...]

    @property
    def records(self) -> list[RunRecord]:
        """All runs."""
        return [record for setting in self.settings for record in setting.records]

    def baselines(self, split: Stage, measure: str) -> dict[str, tuple[float, float]]:
        """Lowest and highest value over the runs of what every prompt has to beat, by name."""
        found: dict[str, list[float]] = defaultdict(list)
        for record in self.records:
            for name, values in of_split(record, split).items():
                if measure in values:
                    found[name].append(values[measure])
        return {name: (min(values), max(values)) for name, values in found.items()}


@dataclass(frozen=True)
class Comparison:
    """Everything that is known of one task with one language model."""

    task: str
    lm: str
    split: Stage
    """Whose rows score the prompts: the test rows, where most runs have them."""
    measure: Measure
    problems: tuple[Problem, ...]
    unmeasured: tuple[RunRecord, ...]
    """Runs that are left out: they were not measured on these rows."""

    @property
    def settings(self) -> list[Setting]:
        """All settings of all problems."""
        return [setting for problem in self.problems for setting in problem.settings]

    @property
    def rows(self) -> str:
        """The rows that score the prompts, in words."""
        records = [record for setting in self.settings for record in setting.records]
        known = (record.rows.get(SPLIT_OF[self.split]) for record in records)
        counts = {rows for rows in known if rows is not None}
        numbers = " or ".join(f"{n:,}" for n in sorted(counts))
        return f"{numbers} {SPLIT_OF[self.split]} row{'s' * (counts != {1})}".strip()

    def score(self, setting: Setting) -> Estimate | None:
        """Performance of a setting's prompts in use."""
        return setting.estimate(self.measure.name, self.split, self.measure.share)

    def mean(self, setting: Setting) -> float:
        """Its mean, to sort by; the lowest there is where nothing was measured."""
        score = self.score(setting)
        return -math.inf if score is None else score.mean


def perplexity(record: RunRecord, split: Stage) -> float | None:
    """Of the tokens of a run's best prompt."""
    return record.metrics.get(f"{split}/perplexity", record.metrics.get("val/perplexity"))


def of_split(record: RunRecord, split: Stage) -> dict[str, dict[str, float]]:
    """A run's baselines on validation or test rows."""
    return record.baselines if split == "val" else record.test_baselines


def compare(records: Iterable[RunRecord]) -> tuple[list[Comparison], list[RunRecord]]:
    """Group runs by task and model, then by problem, then by setting.

    Args:
        records: In any order; the result does not depend on it.

    Returns:
        The comparisons, and the runs left out because another one, with a later name, has the same
        setting and the same seed.
    """

    def place(run: RunRecord) -> tuple[Any, ...]:
        # version_9 comes before version_10.
        name = by_number(run.name)
        return run.task, run.lm.label, run.tuner, run.perplexity_weight, chance(run), name

    def same(run: RunRecord) -> tuple[Any, ...]:
        return run.task, run.lm.label, _key(run, any_setting), chance(run)

    known = sorted(records, key=place)
    latest = {same(run): run for run in known}
    repeated = [run for run in known if latest[same(run)] is not run]
    by_task = _grouped(latest.values(), lambda r: (r.task, r.lm.label))
    return [_comparison(runs) for runs in by_task], repeated


def _comparison(runs: Sequence[RunRecord]) -> Comparison:
    split, measure = _scored_by(runs)
    measured = [r for r in runs if f"{split}/{measure.name}" in r.metrics]
    groups = _grouped(measured, lambda r: _key(r, of_problem))
    names = labels([group[0] for group in groups], of_problem)
    problems = tuple(
        Problem(label, group[0].template_text, _settings(group))
        for label, group in zip(names, groups, strict=True)
    )
    problems = tuple(sorted(problems, key=lambda problem: by_number(problem.label)))
    unmeasured = tuple(r for r in runs if f"{split}/{measure.name}" not in r.metrics)
    return Comparison(runs[0].task, runs[0].lm.label, split, measure, problems, unmeasured)


def _scored_by(runs: Sequence[RunRecord]) -> tuple[Stage, Measure]:
    """Test rows if most runs have them, and the first measure that most have on these rows."""
    splits: tuple[Stage, ...] = ("test", "val")
    for split in splits:
        for measure in MEASURES:
            if 2 * sum(f"{split}/{measure.name}" in r.metrics for r in runs) > len(runs):
                return split, measure
    return "val", MEASURES[0]


def _settings(runs: Sequence[RunRecord]) -> tuple[Setting, ...]:
    groups = _grouped(runs, lambda r: _key(r, any_setting))
    settings: list[Setting] = []
    families = _grouped(groups, lambda group: (*_variant(group), group[0].label))
    variants = Counter(tuner for tuner, _ in set(map(_variant, groups)))
    for family in families:
        first = family[0][0]
        # A variant's name tells more than all options in which it differs from another.
        told = first.variant and variants[first.tuner] > 1
        name = (first.label or first.tuner) + (f" ({first.variant})" if told else "")
        known = labels([group[0] for group in family], of_setting)
        for label, group in zip(known, family, strict=True):
            full = ", ".join(part for part in (name, label) if part)
            settings.append(Setting(full, name, tuple(group)))
    # Not in the order in which a study came to run them.
    settings.sort(key=lambda s: (s.tuner, s.records[0].perplexity_weight, by_number(s.label)))
    return tuple(_numbered(settings))


def _variant(group: Sequence[RunRecord]) -> tuple[str, str]:
    return group[0].tuner, group[0].variant


def _numbered(settings: Sequence[Setting]) -> list[Setting]:
    """The settings, a number after labels that are not unique because they were shortened."""
    total = Counter(setting.label for setting in settings)
    seen: Counter[str] = Counter()
    named = []
    for setting in settings:
        seen[setting.label] += 1
        number = f" ({seen[setting.label]})" if total[setting.label] > 1 else ""
        named.append(replace(setting, label=setting.label + number))
    return named


def _key(run: RunRecord, relevant: Callable[[str], bool]) -> Hashable:
    """What two runs have alike, if they are of one problem or one setting."""
    settings = tuple((key, frozen(run, key)) for key in sorted(run.settings) if relevant(key))
    own = (run.tuner, run.perplexity_weight) if relevant is any_setting else ()
    return run.template_text, own, settings


def _grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """The items of each key, in the order in which keys are met."""
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())
