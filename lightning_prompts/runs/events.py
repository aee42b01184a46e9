"""Runs of before history.jsonl: their TensorBoard event files as one timeline."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lightning_prompts.runs.record import Validation, finite

# Of the files of one run these are only in those of `fit`.
OF_A_FIT = ("train/", "prompt/", "best/")
SCALARS = ("train/", "val/")
FORWARD_TOKENS = "train/forward_tokens"
EVENT_FILES = "events.out.tfevents.*"


class Point(NamedTuple):
    """One logged value, and the seconds of training before it."""

    value: float
    seconds: float


@dataclass
class Timeline:
    """Everything that a run logged.

    Attributes:
        values: Name to step to the value that was logged last.
        seconds: That the run took, without the time between a stop and a restart.
        steps: The last step.
    """

    values: dict[str, dict[int, Point]] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0

    def latest(self, name: str, step: int | None = None) -> float | None:
        """The last value of a name, at or before a step; None where there is none."""
        points = self.values.get(name, {})
        steps = [s for s in points if step is None or s <= step]
        return points[max(steps)].value if steps else None


def read_events(run: Path) -> list[Validation]:
    """The validations that a run logged, then one without metrics where the run ends."""
    timeline, found = read_timeline(run), []
    measured = {name: at for name, at in timeline.values.items() if name.startswith("val/")}
    for step in sorted({step for at in measured.values() for step in at}):
        points = {name: at[step] for name, at in measured.items() if step in at}
        metrics = {name: point.value for name, point in points.items()}
        seconds = max(point.seconds for point in points.values())
        tokens = timeline.latest(FORWARD_TOKENS, step)
        found.append(Validation(step, seconds, tokens, finite(metrics)))
    end = Validation(timeline.steps, timeline.seconds, timeline.latest(FORWARD_TOKENS))
    return [*found, end] if timeline.values else []


def read_timeline(run: Path) -> Timeline:
    """Read the event files of a run's `fit`; those of `validate` and `test` are left out.

    A run that was stopped goes on in another file, from the step of a checkpoint: its time goes on
    from there, and what it logs replaces what the stopped process had logged beyond that step.

    Args:
        run: The run's folder; without event files the timeline is empty.
    """
    timeline = Timeline()
    files = [logged for path in run.glob(EVENT_FILES) if (logged := _read(path)).of_a_fit]
    for logged in sorted(files, key=lambda logged: logged.begin):
        steps = [step for points in logged.scalars.values() for step in points]
        first = min(steps, default=timeline.steps + 1)
        offset = timeline.seconds
        if timeline.values:
            offset = _forget(timeline, first)
        for name, points in logged.scalars.items():
            known = timeline.values.setdefault(name, {})
            for step, (value, wall) in points.items():
                known[step] = Point(value, offset + wall - logged.begin)
        timeline.seconds = offset + logged.end - logged.begin
        timeline.steps = max([timeline.steps, *steps])
    return timeline


@dataclass
class _File:
    """One event file: its first and last wall time, and name to step to (value, wall time)."""

    begin: float = math.inf
    end: float = 0.0
    of_a_fit: bool = False
    scalars: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)


def _forget(timeline: Timeline, first: int) -> float:
    """Drop what was logged at a step or after it; return the seconds of what is left."""
    for name, points in timeline.values.items():
        timeline.values[name] = {step: p for step, p in points.items() if step < first}
    left = [point.seconds for points in timeline.values.values() for point in points.values()]
    timeline.steps = max((s for p in timeline.values.values() for s in p), default=0)
    return max(left, default=0.0)


def _read(path: Path) -> _File:
    """A file as far as it is whole: a killed process leaves half a record."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found = _File()
    for event in LegacyEventFileLoader(str(path)).Load():
        found.begin = min(found.begin, event.wall_time)
        found.end = max(found.end, event.wall_time)
        for each in event.summary.value:
            found.of_a_fit |= each.tag.startswith(OF_A_FIT)
            if each.HasField("simple_value") and each.tag.startswith(SCALARS):
                at = found.scalars.setdefault(each.tag, {})
                at[event.step] = (each.simple_value, event.wall_time)
    return found
