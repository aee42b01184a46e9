"""What people say of prompts, beside what the measures say: means, agreement, rank correlations."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

from lightning_prompts.files.amounts import NONE, count
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.stages import Stage
from lightning_prompts.files.text import shorten_middle
from lightning_prompts.report.comparison import MEASURES
from lightning_prompts.report.panel import MEANINGS, OVER_ROWS, value_of
from lightning_prompts.report.rated_sheets import SCALES, Sheet
from lightning_prompts.report.raters import Agreement, alpha, mean_kappa
from lightning_prompts.report.rating_sheet import Item, Key
from lightning_prompts.report.separation import LEAST, spearman
from lightning_prompts.report.tables import Table
from lightning_prompts.report.text import coefficient
from lightning_prompts.runs.record import RunRecord

JSON = "ratings.json"
TASK = "task named"
SAID = (TASK, *SCALES)
COEFFICIENT = {TASK: "Cohen's kappa", **dict.fromkeys(SCALES, "Krippendorff's alpha")}
PERFORMANCE = tuple(measure.name for measure in MEASURES)
MEASURED = (*PERFORMANCE, *MEANINGS)
ON_ROWS = (*PERFORMANCE, *OVER_ROWS)
READING = (
    "Raters saw the texts in random order under neutral ids, without tuner, measure or accuracy. A "
    "soft prompt's text is that of its nearest tokens: the ratings are of it and not of the "
    "vectors.",
    "Task named: the share of raters, of those that gave an answer, who named the task that the "
    "prompt is for. Read and use: means of ratings from 1 to 5. Beside each stands n, the raters.",
    "Agreement: of the task the mean Cohen's kappa of all pairs of raters, of the scales "
    "Krippendorff's alpha for ordered ratings; 1 is full agreement, 0 is chance. Of few prompts or "
    "raters both scatter widely. Ratings that are all equal have none.",
    f"Rank correlations (Spearman) are over prompts of one task and one model, from {LEAST} on: of "
    "the prompts' mean ratings with a measure, the mean of the runs that have this text.",
)


@dataclass(frozen=True)
class Rated:
    """A text with the mean ratings of n raters; None where there was none.

    Attributes:
        named: Share of raters who named its task, 0 to 1; None too where the task is not known.
        most_named: The task that most raters named; several where as many did.
        comments: By the rater.
    """

    item: Item
    made_by: str
    named: float | None
    named_n: int
    most_named: str
    read: float | None
    read_n: int
    use: float | None
    use_n: int
    comments: dict[str, str]

    def value(self, name: str) -> float | None:
        """One of `SAID`."""
        found: float | None = self.named if name == TASK else getattr(self, name)
        return found


class Correlation(NamedTuple):
    """Of a rating with a measure, over n prompts; None where all values of one are equal."""

    task: str
    model: str
    measure: str
    rating: str
    value: float | None
    n: int


@dataclass(frozen=True)
class Ratings:
    """What filled sheets say of runs.

    Args:
        key: Of the sheets.
        sheets: One a rater; those without a rating count for nothing.
        records: Of the runs.

    Raises:
        PromptError: If none of the sheet's prompts is one of these runs.
    """

    key: Key
    sheets: Sequence[Sheet]
    records: Sequence[RunRecord]

    def __post_init__(self) -> None:
        texts = {record.text for record in self.records}
        if not any(item.origin == "run" and item.text in texts for item in self.key.items):
            raise PromptError(
                "No prompt of the sheet is one of these runs; give the runs that it was written of."
            )

    @cached_property
    def raters(self) -> list[Sheet]:
        """Those who rated something."""
        return [sheet for sheet in self.sheets if sheet.filled]

    @cached_property
    def prompts(self) -> list[Rated]:
        """Those of runs first, the easily read ones before the others."""
        found = [self._rated(item) for item in self.key.items]
        return sorted(found, key=lambda each: (each.item.origin != "run", -(each.read or 0)))

    @cached_property
    def agreement(self) -> dict[str, Agreement]:
        """Between raters, by `SAID`."""

        def given(name: str) -> list[dict[str, Any]]:
            return [
                {i: v for i, said in s.ratings.items() if (v := getattr(said, name)) is not None}
                for s in self.raters
            ]

        return {TASK: mean_kappa(given("task")), **{s: alpha(given(s)) for s in SCALES}}

    @cached_property
    def correlations(self) -> list[Correlation]:
        """Of each rating with each measure that five rated prompts of a task and a model have."""
        settings = dict.fromkeys((run.task, run.lm.label) for run in self.records)
        return [
            found
            for task, model in settings
            for measure in MEASURED
            for rating in SAID
            if (found := self._correlation(task, model, measure, rating)).n >= LEAST
        ]

    def tables(self, length: int) -> Iterator[Table]:
        """Means, agreement and correlations.

        Args:
            length: Characters of a text.
        """
        yield self._means(length)
        yield self._origins()
        rows = [
            [
                name,
                COEFFICIENT[name],
                coefficient(found.value),
                str(found.prompts),
                str(found.raters),
            ]
            for name, found in self.agreement.items()
        ]
        heads = ["agreement on", "by", "value", "prompts", "raters"]
        yield Table("Agreement between raters", heads, rows, 2)
        if self.correlations:
            yield self._ranks()

    def findings(self) -> Iterator[str]:
        """What was rated by whom."""
        names = ", ".join(sheet.rater for sheet in self.raters)
        rated = sum(any(p.value(name) is not None for name in SAID) for p in self.prompts)
        yield (
            f"{count(len(self.raters), 'rater')} ({names}); {rated} of "
            f"{count(len(self.prompts), 'prompt')} have a rating."
        )
        if empty := [sheet.rater for sheet in self.sheets if not sheet.filled]:
            yield f"Without a filled cell, and left out: {', '.join(empty)}."
        if len(self.raters) > 1:
            first = self.raters[0]
            alike = [s.rater for s in self.raters[1:] if s.ratings == first.ratings]
            if alike:
                yield (
                    f"{first.rater} and {', '.join(alike)} have the same in every cell: is one a "
                    "copy of the other?"
                )
        if not self.correlations:
            yield (
                f"No rank correlation: fewer than {LEAST} rated prompts of one task and one model "
                "have a measure."
            )

    def numbers(self) -> dict[str, Any]:
        """All of them, for JSON."""
        return {
            "sheet": self.key.name,
            "raters": [sheet.rater for sheet in self.raters],
            "prompts": [asdict(each) for each in self.prompts],
            "agreement": {name: found._asdict() for name, found in self.agreement.items()},
            "rank_correlations": [found._asdict() for found in self.correlations],
            "ratings": {
                sheet.rater: {name: rating._asdict() for name, rating in sheet.ratings.items()}
                for sheet in self.raters
            },
        }

    # ---- details

    def _rated(self, item: Item) -> Rated:
        given = {s.rater: s.ratings[item.id] for s in self.raters if item.id in s.ratings}
        tasks = [rating.task for rating in given.values() if rating.task is not None]
        counts = Counter(tasks)
        most = [name for name, n in counts.items() if n == max(counts.values())]
        read, use = (
            [float(v) for rating in given.values() if (v := getattr(rating, scale)) is not None]
            for scale in SCALES
        )
        tuners = Counter(record.tuner for record in self.records if record.text == item.text)
        of = ", ".join(f"{name} ({n})" if n > 1 else name for name, n in tuners.items())
        return Rated(
            item,
            made_by=item.origin if item.origin != "run" else of or "another run",
            named=counts[item.task] / len(tasks) if tasks and item.task else None,
            named_n=len(tasks),
            most_named=", ".join(sorted(most)),
            read=_fmean(read),
            read_n=len(read),
            use=_fmean(use),
            use_n=len(use),
            comments={rater: rating.comment for rater, rating in given.items() if rating.comment},
        )

    def _correlation(self, task: str, model: str, measure: str, rating: str) -> Correlation:
        pairs = []
        runs = [run for run in self.records if (run.task, run.lm.label) == (task, model)]
        measured = list(zip(runs, _measured(runs, measure), strict=True))
        for prompt in self.prompts:
            values = [v for run, v in measured if v is not None and run.text == prompt.item.text]
            said = prompt.value(rating)
            if values and said is not None:
                pairs.append((fmean(values), said))
        value = spearman(*zip(*pairs, strict=True)) if len(pairs) >= LEAST else None
        return Correlation(task, model, measure, rating, value, len(pairs))

    def _means(self, length: int) -> Table:
        rows = [
            [
                shorten_middle(_between_quotes(prompt), length),
                prompt.made_by,
                prompt.item.task or NONE,
                prompt.most_named or NONE,
                _mean(prompt.named, prompt.named_n),
                *(_mean(prompt.value(s), getattr(prompt, f"{s}_n")) for s in SCALES),
            ]
            for prompt in self.prompts
        ]
        heads = ["text", "made by", "task", "most named", TASK, *SCALES]
        return Table("What people say of the prompts, with n", heads, rows, 4)

    def _origins(self) -> Table:
        rows = []
        for origin in dict.fromkeys(prompt.item.origin for prompt in self.prompts):
            prompts = [prompt for prompt in self.prompts if prompt.item.origin == origin]
            cells = []
            for name in SAID:
                values = [v for prompt in prompts if (v := prompt.value(name)) is not None]
                cells.append(_mean(_fmean(values), len(values)))
            rows.append([origin, *cells])
        return Table("Means over prompts, with n", ["prompts", *SAID], rows)

    def _ranks(self) -> Table:
        found: dict[tuple[str, str, str], dict[str, Correlation]] = {}
        for each in self.correlations:
            found.setdefault(each[:3], {})[each.rating] = each
        rows = [
            [*names, *(_rank(of.get(rating)) for rating in SAID)] for names, of in found.items()
        ]
        heads = ["task", "model", "measure", *SAID]
        return Table("Rank correlation with each measure, with n", heads, rows, 3)


def comments(found: Ratings) -> Table | None:
    """What raters wrote beside their ratings; None where nobody did."""
    rows = [
        [_between_quotes(prompt), rater, comment]
        for prompt in found.prompts
        for rater, comment in prompt.comments.items()
    ]
    return Table("Comments", ["text", "rater", "comment"], rows, 3) if rows else None


def _between_quotes(prompt: Rated) -> str:
    """Its text so that spaces at its ends are seen; what shows it escapes it."""
    return f'"{prompt.item.text}"'


def _measured(runs: Sequence[RunRecord], name: str) -> list[float | None]:
    """A measure of each run's prompt: of the test rows, where rows matter only if all have them."""
    if name not in ON_ROWS:
        return [value_of(run, name, "test") for run in runs]
    split: Stage = "test" if all(f"test/{name}" in run.metrics for run in runs) else "val"
    return [run.metrics.get(f"{split}/{name}") for run in runs]


def _fmean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _mean(value: float | None, n: int) -> str:
    return NONE if value is None else f"{value:.2f} ({n})"


def _rank(found: Correlation | None) -> str:
    known = found is not None and found.value is not None
    return f"{coefficient(found.value)} ({found.n})" if found and known else NONE
