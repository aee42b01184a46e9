"""Rows to predict that are read while they are predicted: a window of them at a time.

A window is tokenized as a whole and its batches are of rows of similar length, so that little is
padded, and a file of any size takes the memory of one window.
"""

import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Example
from lightning_prompts.tasks import loading
from lightning_prompts.tasks.left_out import listed
from lightning_prompts.tasks.rows import Rows, TaskReport

log = logging.getLogger(__name__)
PROGRESS_AFTER_SECONDS = 2.0
WINDOW = "window"  # the key in a batch of what its window is
MOST_LISTED = 1000  # rows that are left out, whose reasons are counted
# The kinds of names that rows have, as a table of one type a column has to know before its end.
KINDS = {bool: "bool", int: "int", float: "float", str: "str", type(None): "none"}


class Window(NamedTuple):
    """What is known of a window before its rows are predicted.

    Attributes:
        rows: Rows to predict.
        lines: These, and those that are left out.
        digest: Names its rows, their numbers and their names.
    """

    rows: int
    lines: int
    digest: str


class WindowRows:
    """What the predictions of a window are written with; no container, which would be copied.

    Attributes:
        index: Of the window.
        numbers: Of the rows to predict, in the file's order.
        left_out, ids: As in `Rows`.
        cut: Rows whose text was cut to fit.
    """

    def __init__(self, index: int, rows: Rows, cut: int = 0) -> None:
        self.index, self.numbers, self.cut = index, rows.numbers, cut
        self.left_out, self.ids = rows.left_out, rows.ids


class ReadsParts(Protocol):
    """What a task does for its windows."""

    val_batch_size: int
    report: TaskReport

    def predict_parts(self, size: int) -> Iterator[Rows]:
        """The rows to predict, in parts."""

    def encoded_examples(self, rows: Rows) -> list[Example]:
        """Rows in the template."""


class Windows(IterableDataset[Any]):
    """The rows of a task to predict as batches, window by window.

    Args:
        task: Reads and tokenizes them.
        size: Rows of a window.

    Attributes:
        plan: All windows, once `look` has been through them.
        without_rows: Those of the plan in which every row is left out.
        kinds: Kinds of the names that rows have, of `KINDS`.
    """

    def __init__(self, task: ReadsParts, size: int) -> None:
        self.task, self.size = task, size
        self.plan: list[Window] = []
        self.without_rows: list[WindowRows] = []
        self.kinds: set[str] = set()
        self._wanted: frozenset[int] = frozenset()

    @property
    def num_rows(self) -> int:
        """Rows to predict, of all windows."""
        return sum(window.rows for window in self.plan)

    def look(self, show: bool = True) -> None:
        """Go once through all rows, so that a bad one is found before the first is predicted.

        Args:
            show: Whether to show progress.

        Raises:
            PromptError: At the first bad row, or where none can be predicted.
        """
        left_out: dict[int, str] = {}
        source, num_left_out = "", 0
        bar = tqdm(
            desc="Looking through the rows",
            unit=" rows",
            leave=False,
            delay=PROGRESS_AFTER_SECONDS,
            disable=not show,
        )
        with bar:
            for rows in self.task.predict_parts(self.size):
                source = source or rows.source
                num_left_out += len(rows.left_out)
                if len(left_out) < MOST_LISTED:
                    left_out |= rows.left_out
                if not len(rows):
                    self.without_rows.append(WindowRows(len(self.plan), rows))
                lines = len(rows) + len(rows.left_out)
                self.plan.append(Window(len(rows), lines, _digest(rows)))
                self.kinds |= {KINDS[type(name)] for name in rows.ids.values()}
                bar.update(lines)
        reasons = listed(left_out) + (", ..." if num_left_out > len(left_out) else "")
        if not self.num_rows:
            raise PromptError(
                f"{source or 'The file'} has no row to predict"
                f"{f': {num_left_out} left out: {reasons}' if left_out else ''}; fill in its texts."
            )
        if left_out:
            of_rows = self.num_rows + num_left_out
            log.info("%s: %s of %s rows left out: %s.", source, num_left_out, of_rows, reasons)
        self.task.report.sources["predict"] = source
        self.task.report.rows["predict"] = self.num_rows
        self.task.report.left_out["predict"] = num_left_out

    def want(self, windows: Collection[int]) -> None:
        """Choose the windows that this process reads; the others are only passed over."""
        self._wanted = frozenset(windows)

    @property
    def wanted_rows(self) -> int:
        """Rows of the windows that were chosen."""
        return sum(self.plan[index].rows for index in self._wanted)

    def __len__(self) -> int:
        size = self.task.val_batch_size
        return sum(-(-self.plan[index].rows // size) for index in self._wanted)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        turns = sorted(self._wanted)
        if worker is not None:
            turns = turns[worker.id :: worker.num_workers]
        wanted = {index for index in turns if self.plan[index].rows}
        last = max(wanted, default=-1)
        for index, rows in enumerate(self.task.predict_parts(self.size)):
            if index > last:
                return
            if index in wanted:
                yield from self._batches(index, rows)

    def _batches(self, index: int, rows: Rows) -> Iterator[Any]:
        if _digest(rows) != self.plan[index].digest:
            raise PromptError(
                f"{rows.source} was changed while it was read; predict again once it stays."
            )
        examples = self.task.encoded_examples(rows)
        of_window = WindowRows(index, rows, sum(example.cut for example in examples))
        encoded = loading.EncodedRows(examples, [-1] * len(rows), rows.numbers)
        for batch in loading.batches_of(encoded, self.task.val_batch_size):
            yield {**batch, WINDOW: of_window}


def slices(rows: Rows, size: int) -> Iterator[Rows]:
    """Rows that are in memory, so many at a time, each part with the rows left out between its own.

    Args:
        rows: All of them.
        size: Of a part.
    """
    starts = range(0, len(rows), size)
    for start in starts:
        part = rows.take(range(start, min(start + size, len(rows))))
        low = part.numbers[0] if start else 0
        after = rows.numbers[start + size] if start + size < len(rows) else None
        yield _within(part, low, after)


def _within(rows: Rows, low: int, after: int | None) -> Rows:
    def inside(number: int) -> bool:
        return low <= number and (after is None or number < after)

    rows.left_out = {n: reason for n, reason in rows.left_out.items() if inside(n)}
    rows.ids = {n: name for n, name in rows.ids.items() if inside(n)}
    return rows


def _digest(rows: Rows) -> str:
    known: Sequence[Any] = (rows.fingerprint, rows.numbers, rows.left_out, rows.ids)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]
