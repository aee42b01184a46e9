"""Rows with named columns, where they came from, and samples that keep the classes' shares."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from datasets import Dataset

# One file is cut, and evaluation rows are drawn, the same way whatever a run's seed is: runs with
# other seeds are measured on the same rows, and never on rows that another seed trained on.
SPLIT_SEED = 0


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
    """

    source: str
    rows: list[dict[str, Any]]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    labels: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.numbers = self.numbers or list(range(len(self.rows)))
        self.columns = self.columns or tuple(self.rows[0] if self.rows else ())

    @classmethod
    def of_dataset(cls, source: str, dataset: "Dataset") -> "Rows":
        """The rows of a `datasets.Dataset`, with the names of its `ClassLabel` columns."""
        named = {k: list(v.names) for k, v in dataset.features.items() if hasattr(v, "names")}
        return cls(source, dataset.to_list(), named)

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
        return f"{self.source}, row {self.numbers[index] + 1}"

    def take(self, indices: Sequence[int]) -> "Rows":
        """Some of the rows, in the given order."""
        return Rows(
            self.source,
            [self.rows[i] for i in indices],
            self.class_names,
            [self.labels[i] for i in indices] if self.labels else [],
            [self.numbers[i] for i in indices],
            self.columns,
        )


def stratified_order(labels: Sequence[int], seed: int) -> list[int]:
    """A shuffled order in which every stretch has the classes in nearly their shares.

    So its first n are a stratified sample (and part of the sample of any larger n), and cutting it
    into stretches splits the rows without losing a class. Row j of the m rows of a class, shuffled,
    stands at (j + 1/2) / m of the way.

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
    shuffled = torch.randperm(len(labels), generator=generator).tolist()
    by_class: dict[int, list[int]] = {}
    for index in shuffled:
        by_class.setdefault(labels[index], []).append(index)
    places = {
        index: (j + 0.5) / len(members)
        for members in by_class.values()
        for j, index in enumerate(members)
    }
    return sorted(shuffled, key=places.__getitem__)


def few_shot(labels: Sequence[int], shots: int, seed: int) -> dict[int, list[int]]:
    """For each class, the indices of `shots` rows drawn by seed (fewer where it has fewer)."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[int, list[int]] = {}
    for index in torch.randperm(len(labels), generator=generator).tolist():
        members = drawn.setdefault(labels[index], [])
        if len(members) < shots:
            members.append(index)
    return drawn
