"""Do the measures tell texts apart that a reader tells apart? Verdicts, tables, page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from lightning_prompts.files.amounts import NONE, count
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.metrics.panel.frames import TaskKind
from lightning_prompts.report import page, tables
from lightning_prompts.report.figures.validity import dots
from lightning_prompts.report.separation import BAR, DRAWS, Separation, failed, separation, spearman
from lightning_prompts.report.tables import Table
from lightning_prompts.report.text import MINUS, large

PAGE, NUMBERS, FIGURES = "validity.html", "validity.json", "figures"
WRITTEN, SHUFFLED, OTHER, NOTHING = "written", "shuffled", "other task", "nothing"
COMMON, RANDOM, ANSWERS, REPEATED = "first ids", "all ids", "answers", "repeated"
LEARNED = "learned, "  # before the name of what learned a text
GROUPS = (SHUFFLED, COMMON, RANDOM, OTHER, NOTHING, ANSWERS, REPEATED)
"""What written texts are compared with."""
NEEDED = GROUPS[:4]
"""What a measure has to tell from written texts to be valid; the last by those that ask."""
PASSES = "passes"  # head of the column of verdicts
TITLE = "Do the measures tell what a reader would tell?"


class Value(NamedTuple):
    """A value that is looked at.

    Attributes:
        name: As it is logged.
        measure: By which it is asked for.
        sign: 1 where more is better, -1 where less is.
        asks: Whether it asks for which task a text is.
    """

    name: str
    measure: str
    sign: int = 1
    asks: bool = False


_TASK = "task_identification"
VALUES = (
    Value("perplexity", "perplexity", -1),
    Value("natural_percentile", "natural_percentile"),
    Value("grammar", "grammar"),
    Value("repetition", "repetition", -1),
    Value("real_words", "real_words"),
    Value("task_rank", _TASK, -1, True),
    Value("task_reciprocal_rank", _TASK, 1, True),
    Value("task_margin", _TASK, 1, True),
    Value("task_margin_over_shuffled", _TASK, 1, True),
    Value("task_margin_over_answers", _TASK, 1, True),
)
MEASURES = tuple(dict.fromkeys(value.measure for value in VALUES))


class Asked(NamedTuple):
    """A text that is read.

    Attributes:
        group: What it is.
        kind: The task that it is taken for.
        source: Number of the written text that it was made of, or its own where of none.
        ids: Its tokens in the reading model.
        text: The same written out.
        accuracy: Of a learned prompt, where it is known.
    """

    group: str
    kind: TaskKind
    source: int
    ids: tuple[int, ...]
    text: str
    accuracy: float | None = None


@dataclass
class Reading:
    """What one model's measures say.

    Attributes:
        model: Its label.
        asked: The texts.
        values: By a value's name, one for each text.
        left_out: Why, by the name of a measure that this model could not take.
    """

    model: str
    asked: list[Asked]
    values: dict[str, list[float]]
    left_out: dict[str, str]

    @cached_property
    def looked_at(self) -> list[Value]:
        """Those of which there are values."""
        return [value for value in VALUES if value.name in self.values]

    @cached_property
    def groups(self) -> list[str]:
        """What written texts are compared with; learned prompts last."""
        return list(dict.fromkeys((*GROUPS, *(a.group for a in self.asked if a.group != WRITTEN))))

    @cached_property
    def separations(self) -> dict[str, dict[str, Separation]]:
        """By the value's name, then by the group's; without what a measure does not ask."""
        return {
            value.name: {
                group: self._separation(value, group)
                for group in self.groups
                if _asks(value, group)
            }
            for value in self.looked_at
        }

    def of(self, value: Value, group: str) -> list[float]:
        """The values of a group's texts."""
        each = zip(self.asked, self.values[value.name], strict=True)
        return [number for asked, number in each if asked.group == group]

    def failed(self, value: Value) -> list[str]:
        """The groups that a measure would have to tell from written texts, and does not."""
        return failed(self.separations[value.name], NEEDED)

    @cached_property
    def correlations(self) -> list[list[float | None]]:
        """Spearman's, of each value with each, over all texts with a task of their own."""
        rows = [
            [n for a, n in zip(self.asked, self.values[v.name], strict=True) if a.group != OTHER]
            for v in self.looked_at
        ]
        return [[spearman(first, second) for second in rows] for first in rows]

    def _separation(self, value: Value, group: str) -> Separation:
        better, worse = (
            [value.sign * number for number in self.of(value, name)] for name in (WRITTEN, group)
        )
        sources = [asked.source for asked in self.asked if asked.group == group]
        own = group == NOTHING or group.startswith(LEARNED)
        return separation(better, worse, None if own else sources)


READING = (
    "Each number is the share of pairs, a written prompt and a text of the other group, in which "
    "the measure says that the written one is better (area under the ROC curve; of equal values "
    "half). 1 tells all apart, 0.5 none, and near 0 the measure says the contrary. Pairs are of "
    "all tasks together.",
    "Better is: less perplexity, less repetition, a lower rank, more of all others.",
    f"In brackets 95 % intervals by {DRAWS:,} bootstrap draws of written texts; what was made of a "
    "text goes with it. Texts about nothing and learned ones are drawn for themselves.",
    f"The rule, written down before: a measure separates where the interval's lower end is above "
    f"{BAR} against shuffled texts, against random tokens of the first ids and of all, and, if it "
    "asks for the task, against texts of another task. The other columns say what deceives it.",
    "Shuffled: the same tokens in other orders. First ids, all ids: as many random tokens. Other "
    "task: the same texts, each taken for every task that it is not for. Nothing: fluent texts "
    "about none of the tasks. Answers: the task's answer words again and again. Repeated: one of "
    "the text's tokens, as often as it has tokens.",
    "Texts, rule and signs were fixed before any measure was run on a text. The texts were written "
    "by one hand; another hand's may be told apart better or worse.",
)


@dataclass
class Validity:
    """What each model's measures say of the same texts."""

    readings: list[Reading]

    def tables(self, wide: bool) -> Iterator[Table]:
        """Of each model what the verdict needs, then the other comparisons.

        Args:
            wide: With intervals, and with what a measure fails at.
        """
        for reading in self.readings:
            values = reading.looked_at
            strong = frozenset(i for i, value in enumerate(values) if not reading.failed(value))
            rows = [
                [*_areas(reading, value, NEEDED, wide), _verdict(reading, value, wide)]
                for value in values
            ]
            title = f"{reading.model}: written prompts against"
            yield Table(title, ["measure", *NEEDED, PASSES], rows, strong=strong)
            learned = [group for group in reading.groups if group.startswith(LEARNED)]
            for groups in (GROUPS[len(NEEDED) :], learned):
                rows = [_areas(reading, value, groups, wide) for value in values]
                heads = [group.removeprefix(LEARNED) for group in groups]
                what = "those of learners" if groups is learned else "others, beside the verdict"
                if groups:
                    yield Table(f"{title} {what}", ["measure", *heads], rows)

    def medians(self) -> Iterator[Table]:
        """Of each model, of each measure's values in each group, in their own units."""
        for reading in self.readings:
            groups = [WRITTEN, *reading.groups]
            rows = [
                [value.name]
                + [
                    _number(median(reading.of(value, g))) if _asks(value, g) else NONE
                    for g in groups
                ]
                for value in reading.looked_at
            ]
            yield Table(f"{reading.model}: medians", ["measure", *groups], rows)

    def correlations(self) -> Iterator[Table]:
        """Of each model, of each measure with each."""
        for reading in self.readings:
            names = [value.name for value in reading.looked_at]
            heads = ["measure", *(str(i) for i in range(1, 1 + len(names)))]
            each = zip(names, reading.correlations, strict=True)
            rows = [
                [f"{i} {name}", *(NONE if r is None else _signed(r) for r in row)]
                for i, (name, row) in enumerate(each, start=1)
            ]
            yield Table(f"{reading.model}: rank correlations", heads, rows)

    def findings(self) -> Iterator[str]:
        """What the numbers say."""
        for reading in self.readings:
            good = [value.name for value in reading.looked_at if not reading.failed(value)]
            yield (
                f"{reading.model}: by the rule {len(good)} of {len(reading.looked_at)} separate"
                + (f": {', '.join(good)}." if good else ".")
            )

    def limits(self) -> Iterator[str]:
        """What the numbers must not be taken for."""
        for reading in self.readings:
            for measure, why in reading.left_out.items():
                yield f"{reading.model}: {measure} is left out: {why}."
        groups = [asked.group for asked in self.readings[0].asked]
        yield (
            f"{count(groups.count(WRITTEN), 'written text')} and {groups.count(NOTHING)} about "
            "nothing, by one hand, in English; verdicts are of these."
        )


def write(found: Validity, folder: Path) -> Path:
    """Write the numbers, the figure and the page.

    Returns:
        The page.
    """
    panels = {
        group: [
            [reading.separations.get(value.name, {}).get(group) for reading in found.readings]
            for value in _looked_at(found)
        ]
        for group in found.readings[0].groups
    }
    drawn = dots(
        [value.name for value in _looked_at(found)],
        [reading.model for reading in found.readings],
        panels,
        NEEDED,
        BAR,
    )
    sections = [
        page.Section("Separation", [*page.figure(drawn), *map(page.table, found.tables(True))]),
        page.Section("Values", list(map(page.table, found.medians()))),
        page.Section("Which say the same", list(map(page.table, found.correlations()))),
        page.Section("How to read this", [page.reading(READING)]),
    ]
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    drawn.save(folder / FIGURES)
    says, limits = list(found.findings()), list(found.limits())
    tables.write(folder / PAGE, page.render(TITLE, [], says, limits, sections))
    write_json(folder / NUMBERS, _numbers(found))
    return folder / PAGE


def _looked_at(found: Validity) -> list[Value]:
    """Values that one model at least has."""
    return [value for value in VALUES if any(value in r.looked_at for r in found.readings)]


def _numbers(found: Validity) -> dict[str, Any]:
    """All of them."""
    return {
        "bar": BAR,
        "needed": list(NEEDED),
        "draws": DRAWS,
        "models": [
            {
                "model": reading.model,
                "left_out": reading.left_out,
                "measures": [
                    {
                        "name": value.name,
                        "less_is_better": value.sign < 0,
                        "asks_for_the_task": value.asks,
                        "separates": not reading.failed(value),
                        "fails": reading.failed(value),
                        "written_against": {
                            group: area._asdict()
                            for group, area in reading.separations[value.name].items()
                        },
                    }
                    for value in reading.looked_at
                ],
                "rank_correlations": reading.correlations,
                "texts": [
                    asked._asdict()
                    | {"ids": list(asked.ids)}
                    | {"values": {name: row[i] for name, row in reading.values.items()}}
                    for i, asked in enumerate(reading.asked)
                ],
            }
            for reading in found.readings
        ],
    }


def _asks(value: Value, group: str) -> bool:
    return value.asks or group != OTHER


def _areas(reading: Reading, value: Value, groups: Sequence[str], wide: bool) -> list[str]:
    found = [reading.separations[value.name].get(group) for group in groups]
    return [value.name, *(NONE if area is None else _area(area, wide) for area in found)]


def _area(area: Separation, wide: bool) -> str:
    interval = f" [{area.low:.2f}, {area.high:.2f}]" if wide else ""
    return f"{area.auc:.2f}{interval}"


def _verdict(reading: Reading, value: Value, wide: bool) -> str:
    fails = reading.failed(value)
    return "yes" if not fails else f"no: {', '.join(fails)}" if wide else "no"


def _number(value: float) -> str:
    return large(value) if value >= 0 else _signed(value)


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)
