"""Rows with named columns, where they came from, and samples that keep the classes' shares."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from lightning_prompts.files.drawing import evenly
from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.reading import Reading

if TYPE_CHECKING:
    from datasets import Dataset

# One file is cut, and evaluation rows are drawn, the same way whatever a run's seed is: runs with
# other seeds are measured on the same rows, and never on rows that another seed trained on.
SPLIT_SEED = 0

Row = dict[str, Any]
ALL = Reading()  # every column
ABSENT: Any = object()
"""What a row has under a name that it does not have."""
TWICE: Any = object()
"""What a row has under a name that its source gives to two columns."""


class BadRow(PromptError):  # noqa: N818 - what is wrong is a row, which may be left out
    """One row cannot be used.

    Args:
        message: With its place and what to do.
        reason: In a few words, for a list of rows that are left out.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def bad_line(path: Path, number: int, fault: str, reason: str = "") -> BadRow:
    """What is wrong with one line of a file, and that in a few words."""
    return BadRow(f"Data file {path}, line {number} {fault}.", reason)


def refuse_line(path: Path, number: int, fault: str) -> NoReturn:
    """Refuse a file for one of its lines.

    Raises:
        PromptError: Always.
    """
    raise bad_line(path, number, fault)


@dataclass
class Rows:
    """Rows of a file or of a split on the Hub.

    Args:
        source: The file's path, or the data set and its split; for messages.
        rows: One mapping from column to value a row.
        class_names: For columns of class numbers, the names of the classes.
        labels: Class of each row, -1 where unlabelled; empty until the classes are known.
        numbers: Index of each row in its source, from 0; by default all rows in order.
        columns: The columns of the source, for messages; by default those of the first row.
        table: Whether all rows have these columns.
        advice: What to look at where a column is missing.
        files: Where the source is several files: each with the number of its rows, in order.
        faults: By index, what is wrong with rows that could not be read and stand here empty.
        ids: By number, what rows of the source are called in the data, where that was asked for.
        left_out: By number, why a row of the source is not among these.
    """

    source: str
    rows: list[Row]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    table: bool = False
    advice: str = ""
    files: tuple[tuple[str, int], ...] = ()
    faults: dict[int, BadRow] = field(default_factory=dict)
    ids: dict[int, Any] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.numbers = self.numbers or list(range(len(self.rows)))
        self.columns = self.columns or tuple(self.rows[0] if self.rows else ())

    @classmethod
    def of_dataset(cls, source: str, dataset: "Dataset", reading: Reading = ALL) -> "Rows":
        """The rows of a `datasets.Dataset`, with the names of its `ClassLabel` columns."""
        named = dict(_class_names(dataset.features))
        columns = tuple(dataset.column_names)
        rows = dataset.select_columns(reading.tops(columns)).to_list()
        return cls(source, rows, named, columns=columns, table=True)

    @classmethod
    def joined(cls, source: str, parts: "Sequence[Rows]") -> "Rows":
        """The rows of several files, one after another, which agree on the names of classes.

        Raises:
            PromptError: If they do not.
        """
        first, *others = parts
        for other in others:
            if other.class_names != first.class_names:
                raise PromptError(
                    f"{first.source} and {other.source} are one split but name their classes "
                    f"differently ({first.class_names} and {other.class_names}); make them agree."
                )
        files = tuple((part.source, len(part)) for part in parts)
        starts = [sum(count for _, count in files[:i]) for i in range(len(files))]
        return cls(
            source,
            [row for part in parts for row in part.rows],
            first.class_names,
            columns=tuple(dict.fromkeys(name for part in parts for name in part.columns)),
            table=all(part.table and part.columns == first.columns for part in parts),
            advice=first.advice,
            files=files,
            faults={
                start + i: fault
                for start, part in zip(starts, parts, strict=True)
                for i, fault in part.faults.items()
            },
        )

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of contents, classes and order, wherever the rows lie."""
        write = functools.partial(json.dumps, sort_keys=True, default=str)
        # Of `[rows, labels]`, row by row: the whole text would take more memory than the rows.
        digest = hashlib.sha256(b"[[")
        for number, row in enumerate(self.rows):
            digest.update((", " * (number > 0) + write(row)).encode())
        digest.update(f"], {write(self.labels)}]".encode())
        return digest.hexdigest()[:16]

    def place(self, index: int) -> str:
        """Where a row is, for messages: its source and its number there, from 1."""
        number = self.numbers[index]
        for file, count in self.files:
            if number < count:
                return f"{file}, row {number + 1}"
            number -= count
        return f"{self.source}, row {number + 1}"

    def take(self, indices: Sequence[int]) -> "Rows":
        """Some of the rows, in the given order."""
        return replace(
            self,
            rows=[self.rows[i] for i in indices],
            labels=[self.labels[i] for i in indices] if self.labels else [],
            numbers=[self.numbers[i] for i in indices],
            faults={},
        )


@dataclass
class TaskReport:
    """What was read, for the tables of a run.

    Attributes:
        sources: Split to file, or to data set and split on the Hub.
        rows: Split to number of rows.
        cut: Split to number of rows whose text was cut to `max_tokens`; tokenized splits only.
        left_out: Split to number of bad rows of its source that are not among them.
        classes: Split to number of rows of each label.
        majority_label: The most frequent label of the training rows, or of the first split read
            where there are none.
        max_tokens: Most tokens that an example may have beside the prompt.
    """

    sources: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    majority_label: str | None = None
    max_tokens: int = 0


def _class_names(features: Mapping[str, Any], prefix: str = "") -> "list[tuple[str, list[str]]]":
    """Columns of class numbers with the names of the classes, also within objects and lists."""
    found = []
    for name, kind in features.items():
        while getattr(kind, "feature", None) is not None:
            kind = kind.feature
        if hasattr(kind, "names"):
            found.append((prefix + name, list(kind.names)))
        elif isinstance(kind, Mapping):
            found += _class_names(kind, f"{prefix}{name}.")
    return found


def find(row: Any, name: str) -> Any:
    """What a row has under a name, `ABSENT` where it has nothing of that name.

    A column of that very name comes first. Else the dots lead into objects, by key, and into lists,
    by number from 0.

    >>> find({"answer": {"text": ["yes", "no"]}}, "answer.text.1")
    'no'
    >>> find({"a.b": 1, "a": {"b": 2}}, "a.b")
    1
    """
    if isinstance(row, Mapping):
        if name in row:
            return row[name]
        for dot in (i for i, character in enumerate(name) if character == "."):
            inner = row.get(name[:dot], ABSENT)
            if inner is not ABSENT and (found := find(inner, name[dot + 1 :])) is not ABSENT:
                return found
    elif isinstance(row, list | tuple):
        number, _, rest = name.partition(".")
        if number.isdecimal() and int(number) < len(row):
            return find(row[int(number)], rest) if rest else row[int(number)]
    return ABSENT


def has(row: Any, name: str) -> bool:
    """Whether a row has something of that name."""
    return find(row, name) is not ABSENT


def stratified_order(labels: Sequence[int], seed: int) -> list[int]:
    """A shuffled order in which every stretch has the classes in nearly their shares.

    So its first n are a stratified sample (and part of the sample of any larger n), and cutting it
    into stretches splits the rows without losing a class.

    Args:
        labels: Class of each row.
        seed: Chooses the shuffle.

    Returns:
        Each index into `labels` once.

    >>> order = stratified_order([0] * 8 + [1] * 4, seed=0)
    >>> sorted(i // 8 for i in order[:3]), sorted(i // 8 for i in order[3:6])
    ([0, 0, 1], [0, 0, 1])
    """
    generator = torch.Generator().manual_seed(seed)
    return evenly(torch.randperm(len(labels), generator=generator).tolist(), labels)


def few_shot(labels: Sequence[int], shots: int, seed: int) -> dict[int, list[int]]:
    """For each class, the indices of `shots` rows drawn by seed (fewer where it has fewer)."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[int, list[int]] = {}
    for index in torch.randperm(len(labels), generator=generator).tolist():
        members = drawn.setdefault(labels[index], [])
        if len(members) < shots:
            members.append(index)
    return drawn
