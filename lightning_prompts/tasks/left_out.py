"""Bad rows that are left out: counted, listed, never in silence."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightning_prompts.files.text import first_few
from lightning_prompts.tasks.rows import Rows

log = logging.getLogger(__name__)

REASONS = 6  # kinds that are listed, the most frequent first
NUMBERS = 5  # rows that are listed of each kind


def leave_out(rows: Rows, reasons: Mapping[int, str], say: bool = True) -> Rows:
    """The other rows; which are missing and why is said, and goes with them.

    Args:
        rows: Of a source.
        reasons: Index of each row that is left out to what is wrong with it.
        say: Whether to say it.
    """
    if not reasons:
        return rows
    numbers = {rows.numbers[i]: reason for i, reason in reasons.items()}
    counts = f"{len(reasons)} of {len(rows)}"
    if say:
        log.info("%s: %s rows left out: %s.", rows.source, counts, listed(numbers))
    kept = rows.take([i for i in range(len(rows)) if i not in reasons])
    return replace(kept, left_out={**rows.left_out, **numbers})


def listed(reasons: Mapping[int, str]) -> str:
    """What is wrong with which rows, by kind.

    Args:
        reasons: Number of a row, from 0, to what is wrong with it.

    >>> listed({3: "no label", 7: "an empty 'text'", 9: "no label"})
    "no label (rows 4, 10); an empty 'text' (row 8)"
    """
    kinds: dict[str, list[int]] = {}
    for number, reason in reasons.items():
        kinds.setdefault(reason, []).append(number + 1)
    by_count = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    shown = [f"{reason} ({_rows(numbers)})" for reason, numbers in by_count[:REASONS]]
    if rest := sum(len(numbers) for _, numbers in by_count[REASONS:]):
        shown.append(f"other reasons ({rest} rows)")
    return "; ".join(shown)


def _rows(numbers: Sequence[int]) -> str:
    return f"row{'s' if len(numbers) > 1 else ''} {first_few(map(str, numbers), NUMBERS)}"
