"""What one model's measures say of the texts of a study of validity, and the verdicts on them."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from lightning_prompts.metrics.panel.frames import TaskKind
from lightning_prompts.report.separation import Separation, failed, separation, spearman

WRITTEN, SHUFFLED, OTHER, NOTHING = "written", "shuffled", "other task", "nothing"
COMMON, RANDOM, ANSWERS, REPEATED = "first ids", "all ids", "answers", "repeated"
LEARNED = "learned, "  # before the name of what learned a text
GROUPS = (SHUFFLED, COMMON, RANDOM, OTHER, NOTHING, ANSWERS, REPEATED)
"""What written texts are compared with."""
NEEDED = GROUPS[:4]
"""What a measure has to tell from written texts to be valid; the last by those that ask."""


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

    def compares(self, group: str) -> bool:
        """Whether it can tell a group from written texts: other tasks only where it asks."""
        return self.asks or group != OTHER


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
        shuffles: Of each text that `task_identification` read beside it.
    """

    model: str
    asked: list[Asked]
    values: dict[str, list[float]]
    left_out: dict[str, str]
    shuffles: int = 8

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
                if value.compares(group)
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
