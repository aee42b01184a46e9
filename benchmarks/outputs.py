"""What a command leaves: numbers on its output, and what its runs logged and wrote."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# Of the demo's table: its baselines, its written prompt, and what it learns.
ROW = re.compile(
    r"^\W*(majority|no prompt, calibrated|no prompt|written prompt"
    r"|SoftPrompt|PEZ|its nearest tokens)"
    r"(?: \([^)]*\))?:?[^\d(]*?\s(0?\.\d+|1\.0+)\b"
)
EVENTS = "events.out.tfevents.*"


class Logged(NamedTuple):
    """A logged value, and when it was logged, as `time.time()` has it."""

    step: int
    value: float
    when: float


def numbers(line: str) -> tuple[str, float] | None:
    """A prompt's or baseline's name and the first number behind it, where a line has both."""
    match = ROW.match(line)
    return None if match is None else (match[1], float(match[2]))


def first_number(lines: Iterable[tuple[float, str]]) -> float | None:
    """Seconds until the first line with a number for a person, None where there is none."""
    return next((seconds for seconds, line in lines if numbers(line)), None)


def table(lines: Iterable[tuple[float, str]]) -> dict[str, float]:
    """The last number of each prompt and baseline."""
    return dict(found for _, line in lines if (found := numbers(line)))


def logged(folder: Path, name: str) -> list[Logged]:
    """All values of a name in the event files below a folder, in the order of their steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for path in folder.rglob(EVENTS):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        if name in events.Tags()["scalars"]:
            found += [Logged(e.step, e.value, e.wall_time) for e in events.Scalars(name)]
    return sorted(found, key=lambda event: (event.when, event.step))


def prompts(folder: Path) -> dict[str, str]:
    """The text of each run's best prompt, by the run's folder below this one."""
    return {
        str(path.parent.relative_to(folder)): json.loads(path.read_text(encoding="utf-8"))["text"]
        for path in sorted(folder.rglob("prompt.json"))
    }


def json_lines(lines: Iterable[tuple[float, str]]) -> list[dict[str, float]]:
    """What a script of the benchmarks' own says, an object a line."""
    return [json.loads(line) for _, line in lines if line.startswith("{")]
