"""Repetitions in a JSON-lines file, so that a benchmark that was stopped goes on where it was."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Record:
    """One repetition of one side of a comparison.

    Attributes:
        line: The comparison's name.
        group: What was run: only repetitions of one group are compared with one another.
        side: `ours`, `theirs`, or another of the project's ways.
        repetition: Its number, from 0.
        values: Numbers by name.
        found: What came of it, to compare.
    """

    line: str
    group: str
    side: str
    repetition: int
    values: dict[str, float] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)


class Records:
    """All repetitions in a file.

    Args:
        path: It need not be there. Half a line, of a run that was killed, is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        self._all = [Record(**json.loads(line)) for line in whole.splitlines()]

    def add(self, record: Record) -> None:
        """Keep one, at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        self._all.append(record)

    def has(self, line: str, group: str, side: str, repetition: int) -> bool:
        """Whether a repetition was made."""
        wanted = (line, group, side, repetition)
        return any((r.line, r.group, r.side, r.repetition) == wanted for r in self._all)

    def latest_group(self, line: str, kind: str) -> str | None:
        """The group of a comparison's latest record, of those that begin with `kind`."""
        found = [r.group for r in self._all if r.line == line and r.group.startswith(kind)]
        return found[-1] if found else None

    def of(self, line: str, group: str | None, sides: Iterable[str]) -> dict[str, list[Record]]:
        """The repetitions of each side, in order; only those that all sides have made."""
        by_side = {
            side: {
                r.repetition: r
                for r in self._all
                if (r.line, r.group, r.side) == (line, group, side)
            }
            for side in sides
        }
        common = set.intersection(*(set(made) for made in by_side.values()))
        return {side: [made[i] for i in sorted(common)] for side, made in by_side.items()}
