"""What a comparison of whole commands is made of, and where its commands run."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.builds import Build
from benchmarks.lines import Line, Measured
from benchmarks.processes import Ran, run
from benchmarks.records import Record

THEIRS, OURS = "theirs", "ours"
PEFT = "PEFT as shipped"
ONE_STEP = ("--trainer.max_steps", "1", "--trainer.limit_val_batches", "0")


class Measure(NamedTuple):
    """One repetition of one side: numbers, and what came of it."""

    values: dict[str, float]
    found: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A comparison: its sides, and the lines that their repetitions make.

    Attributes:
        name: For `--only`.
        ways: Of each side, by the number of a repetition.
        lines: Makes the lines of the table of all sides' repetitions.
        most: Repetitions at most.
        peer: `build` for the older build, `peft` for PEFT.
    """

    name: str
    ways: Mapping[str, Callable[[int], Measure]]
    lines: Callable[[Mapping[str, Sequence[Record]]], Iterator[Line]]
    most: int | None = None
    peer: Literal["build", "peft"] = "build"


@dataclass
class Place:
    """Builds, data and a folder for the runs.

    Attributes:
        ours: The working tree.
        theirs: The older build.
        data: SST-2's folder.
        scratch: Every command gets a folder below it.
        model: Name of the language model, or the folder of a tiny one.
        weights: Folder of its weights, for those who do not know its name.
        small: Whether only the script is tried.
    """

    ours: Build
    theirs: Build
    data: Path
    scratch: Path
    model: str
    weights: Callable[[], Path]
    small: bool = False
    count: int = field(default=0, init=False)
    warmed: set[str] = field(default_factory=set, init=False)

    @property
    def builds(self) -> dict[str, Build]:
        """By side."""
        return {THEIRS: self.theirs, OURS: self.ours}

    @property
    def base(self) -> str:
        """The older build in words."""
        return f"this project at {self.theirs.name}"

    def folder(self, name: str) -> Path:
        """A new one."""
        self.count += 1
        return self.scratch / f"{self.count:03d}-{name}"

    def fit(self, build: Build, folder: Path, tuner: str, *args: str, **more: Any) -> Ran:
        """Run `fit` on SST-2; what is given last counts.

        Args:
            build: Whose.
            folder: To run in.
            tuner: Its configuration's name.
            args: Options.
            more: Of `processes.run`.
        """
        configs = build.folder / "configs"
        return run(
            build.command(
                *("fit", "--config", str(configs / f"tuner/{tuner}.yaml")),
                *("--config", str(configs / "task/sst2.yaml"), "--lm.name", self.model),
                *("--data.path", str(self.data), "--trainer.enable_progress_bar", "false"),
                *(("--trainer.accelerator", "cpu") if self.small else ()),
                *args,
            ),
            folder,
            build.environment,
            **more,
        )

    def script(self, name: str, *args: str, **more: Any) -> Ran:
        """Run one of the benchmarks' own scripts."""
        command = [sys.executable, "-m", f"benchmarks.{name}", *args]
        environment = {**self.ours.environment, "TRANSFORMERS_VERBOSITY": "error"}
        return run(command, self.folder(name), environment, **more)

    def warm(self, build: Build) -> None:
        """Run a step of a build once, unmeasured: it fills caches and compiles modules."""
        if build.name not in self.warmed:
            self.fit(build, self.folder("warm"), "soft", *ONE_STEP)
            self.warmed.add(build.name)


def compared(
    line: Line,
    records: Mapping[str, Sequence[Record]],
    value: str,
    same: str,
    *,
    ours: str = OURS,
    unit: Literal["s", "MiB"] = "s",
    besides: bool = True,
) -> Line:
    """The line with one value of each repetition, where there are any."""
    if not records[ours]:
        return line.not_run("not measured yet")
    theirs, own = (
        Measured([record.values[value] for record in records[side]], unit)
        for side in (THEIRS, ours)
    )
    return line.result(theirs, own, same, besides)


def pairs(
    records: Mapping[str, Sequence[Record]], name: str, ours: str = OURS
) -> list[tuple[Any, Any]]:
    """What both sides found, of each repetition: theirs, ours."""
    both = zip(records[THEIRS], records[ours], strict=True)
    return [(their.found.get(name), own.found.get(name)) for their, own in both]


def furthest(of_pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """The largest relative difference of numbers in pairs of lists; infinite for other counts."""
    most = 0.0
    for theirs, ours in of_pairs:
        if len(theirs) != len(ours):
            return math.inf
        for a, b in zip(theirs, ours, strict=True):
            most = max(most, abs(a - b) / max(abs(a), 1e-12))
    return most


def span(values: Sequence[float]) -> str:
    """Numbers in words: one, or the least and the greatest."""
    low, high = (f"{value:.3f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
