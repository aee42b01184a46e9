"""Rows that are in memory: data frames, data sets of `datasets`, lists of mappings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.reading import Reading
from lightning_prompts.tasks.rows import ALL, Row, Rows
from lightning_prompts.tasks.split_files import FILE_NAMES

# What people and `datasets` call the splits.
CALLED = {**FILE_NAMES, "train": ("train", "training"), "predict": ("predict",)}
KINDS = (
    "a pandas or polars DataFrame, a datasets.Dataset, a list of mappings from column to value, a "
    "path, or a mapping from train, validation and test to such a table"
)


class Tables:
    """One table, which is to be cut as a file is, or a table for each split.

    Stands in for `DataSource`, whose messages name files and options of the command line.

    Args:
        data: A table, or a mapping from the names of splits to tables.
        reading: What of the columns is read.

    Raises:
        PromptError: If it is neither, or a split of another name is among them.
    """

    is_hub = False
    commit: str | None = None

    def __init__(self, data: Any, reading: Reading = ALL) -> None:
        self._reading = reading
        # `datasets.DatasetDict` is a mapping.
        self.is_file = not isinstance(data, Mapping)
        self._tables: dict[str, Any] = {"train": data} if self.is_file else _named(data)
        for split, table in self._tables.items():
            if not _is_table(table):
                raise PromptError(
                    f"The data{'' if self.is_file else f' of {split}'} are of the type "
                    f"{type(table).__name__}; give {KINDS}."
                )

    def whole_file(self) -> Rows:
        """All rows of the one table."""
        return self._rows("train", "the data")

    def has(self, split: str) -> bool:
        """Whether there is a table for a split."""
        return not self.is_file and split in self._tables

    def split(self, name: str) -> Rows:
        """The rows of a split that is there."""
        return self._rows(name, f"the {name} data")

    def missing(self, split: str) -> str:
        """What is not there, and what to do."""
        if self.is_file:
            return f"split leaves no row to the {split} split; change it, or give more rows."
        return f"The data have no {split} table; give one for {split}."

    def _rows(self, split: str, source: str) -> Rows:
        table = self._tables[split]
        if hasattr(table, "select_columns"):  # of `datasets`
            rows = Rows.of_dataset(source, table, self._reading)
        else:
            records, columns = _records(table, self._reading)
            rows = Rows(source, records, columns=columns, table=bool(columns))
        if not len(rows):
            raise PromptError(f"{source.capitalize()} have no rows.")
        return rows


def _named(data: Mapping[str, Any]) -> dict[str, Any]:
    """By the names that splits have here.

    Raises:
        PromptError: If a name is none of a split, or two are of one.
    """
    names = {name: split for split, called in CALLED.items() for name in called}
    tables: dict[str, Any] = {}
    for name, table in data.items():
        split = names.get(name)
        if split is None:
            raise PromptError(
                f"The data have {name!r}, which is no split; name the tables train, validation and "
                "test, or give one table, which is cut into the three."
            )
        if split in tables:
            raise PromptError(f"The data have two tables for {split}; give one.")
        tables[split] = table
    return tables


def _is_table(table: Any) -> bool:
    if isinstance(table, str | bytes | Path | Mapping):
        return False
    listed = isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table)
    named = hasattr(table, "columns") or hasattr(table, "column_names")  # so `datasets`
    return listed or (named and hasattr(table, "to_dict"))


def _records(table: Any, reading: Reading) -> tuple[list[Row], tuple[str, ...]]:
    """One mapping a row, what is missing as None, and the columns where all rows have the same."""
    if isinstance(table, Sequence):
        return [dict(row) for row in table], ()
    columns = tuple(map(str, table.columns))
    if hasattr(table, "to_dicts"):  # of polars
        return table.to_dicts(), columns
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise PromptError(f"The data have two columns {twice!r}; rename or remove one.")
    # Labels and texts alone, and as Python's own values: a missing number would be the text "nan".
    frame = table.set_axis(list(columns), axis="columns")[reading.tops(columns)].astype(object)
    return frame.where(frame.notna(), None).to_dict("records"), columns
