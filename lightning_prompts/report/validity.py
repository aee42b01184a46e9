"""Do the measures tell texts apart that a reader tells apart? Verdicts, tables, page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lightning_prompts.files.amounts import NONE, count
from lightning_prompts.files.drawing import DRAWS
from lightning_prompts.report import page
from lightning_prompts.report.figures.validity import dots
from lightning_prompts.report.separation import BAR, Separation
from lightning_prompts.report.tables import Table
from lightning_prompts.report.text import coefficient, large
from lightning_prompts.report.validity_readings import (
    GROUPS,
    LEARNED,
    NEEDED,
    NOTHING,
    VALUES,
    WRITTEN,
    Reading,
    Value,
)

PAGE = "validity.html"
OVER_SHUFFLED = "task_margin_over_shuffled"
PASSES = "passes"  # head of the column of verdicts
TITLE = "Do the measures tell what a reader would tell?"
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
                    _number(median(reading.of(value, g))) if value.compares(g) else NONE
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
                [f"{i} {name}", *map(coefficient, row)]
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
            if OVER_SHUFFLED in reading.values:
                yield (
                    f"{reading.model}: {OVER_SHUFFLED} is over "
                    f"{count(reading.shuffles, 'shuffle')} of each text."
                )
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
    says, limits = list(found.findings()), list(found.limits())
    text = page.render(TITLE, [], says, limits, sections)
    return page.write(folder / PAGE, text, drawn, _numbers(found))


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
    return large(value) if value >= 0 else coefficient(value)
