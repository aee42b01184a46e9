"""A line of the table: two ways of one piece of work, timed in turn, and found to be the same."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class NotTheSameError(SystemExit):
    """Two ways do not compute the same, so that no comparison of them means anything."""


class Measured(NamedTuple):
    """One number of each repetition, in `unit`."""

    values: list[float]
    unit: Literal["s", "MiB"] = "s"

    @property
    def median(self) -> float:
        """In the unit."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        in_ms = self.unit == "s" and self.median < 1
        middle, low, high = (
            f"{1000 * value if in_ms else value:#.3g}".rstrip(".")
            for value in (self.median, min(self.values), max(self.values))
        )
        return f"{middle} ({low} to {high}) {'ms' if in_ms else self.unit}"


@dataclass(frozen=True)
class Line:
    """What is compared, what is asked, and what came out.

    Attributes:
        work: What both ways do.
        peer: The other way.
        asked: The bar on the ratio, None where there is none.
        cost: Whether the ratio is ours by theirs, at most `asked`; else theirs by ours, at least.
        theirs: Of the other way.
        ours: Of the project's way.
        same: In what the results of the two were compared, and how far they are apart.
        besides: Whether what is asked beside the ratio holds.
        why_not: Why it was not run.
    """

    work: str
    peer: str
    asked: float | None = None
    cost: bool = False
    theirs: Measured | None = None
    ours: Measured | None = None
    same: str = ""
    besides: bool = True
    why_not: str | None = None

    def not_run(self, why: str) -> "Line":
        """The line without numbers."""
        return replace(self, why_not=why)

    def result(self, theirs: Measured, ours: Measured, same: str, besides: bool = True) -> "Line":
        """The line with its numbers."""
        return replace(self, theirs=theirs, ours=ours, same=same, besides=besides)

    @property
    def ratio(self) -> float | None:
        """Of the medians."""
        if self.theirs is None or self.ours is None:
            return None
        above, below = (self.ours, self.theirs) if self.cost else (self.theirs, self.ours)
        return above.median / below.median

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is no bar or no number."""
        if self.asked is None or self.ratio is None:
            return None
        within = self.ratio <= self.asked if self.cost else self.ratio >= self.asked
        return within and self.besides


def alternate(
    ways: Mapping[str, Callable[[], object]],
    repetitions: int,
    *,
    calls: int = 1,
    warm_up: int = 1,
    prepare: Callable[[int], None] = lambda repetition: None,
) -> dict[str, Measured]:
    """Seconds of each way, timed in turn, each repetition beginning with another one.

    Args:
        ways: By name.
        repetitions: Timed ones.
        calls: Of a way in a row, of which the mean is taken.
        warm_up: Repetitions before, not timed.
        prepare: Called before each repetition with its number, from 0; not timed.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(warm_up + repetitions):
        prepare(repetition)
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            _wait()
            start = time.perf_counter()
            for _ in range(calls):
                ways[name]()
            _wait()
            if repetition >= warm_up:
                seconds[name].append((time.perf_counter() - start) / calls)
    return {name: Measured(values) for name, values in seconds.items()}


def apart(work: str, what: str, ours: Tensor, theirs: Tensor, most: float) -> str:
    """Relative difference |ours - theirs| / |theirs| in words.

    Raises:
        NotTheSameError: If it is above `most`, or no number.
    """
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    relative = float((ours - theirs).norm() / theirs.norm())
    if not relative <= most:
        raise NotTheSameError(
            f"{work}: the {what} of the two ways differ by {relative:.2g}, more than {most:.0e}: "
            "they do not compute the same."
        )
    return f"{what} {relative:.0e}" if relative else f"{what} equal"


def _wait() -> None:
    """Until the GPU, if there is one, has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
