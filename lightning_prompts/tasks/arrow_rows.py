"""Rows of what Arrow reads: Parquet, Arrow and Feather files, and folders of `save_to_disk`."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.tasks.encoding import open_binary, packed
from lightning_prompts.tasks.reading import Reading
from lightning_prompts.tasks.rows import Rows

# What `save_to_disk` writes beside the rows of one split.
STATE = "state.json"


def read_parquet(path: Path, reading: Reading, size: int | None) -> Iterator[Rows]:
    """The columns of a Parquet file that are read, at most `size` rows at a time."""
    # Not `load_dataset`, which would write a copy into the user's cache.
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    with open_binary(path) as file:
        try:
            # A packed file cannot be looked into at any place.
            whole = size is None or packed(path.name)
            parquet = pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if whole else file)
            names = parquet.schema_arrow.names
            tops = reading.tops(names)
            if size is None:
                yield _rows(path, parquet.read(tops), names, reading)
                return
            start = 0
            for batch in parquet.iter_batches(size, columns=tops):
                part = _rows(path, pyarrow.Table.from_batches([batch]), names, reading)
                yield replace(part, numbers=list(range(start, start + len(part))))
                start += len(part)
        except pyarrow.ArrowException as error:
            raise PromptError(f"Data file {path} is not Parquet ({error}).") from error


def read_arrow(path: Path, reading: Reading, size: int | None) -> Iterator[Rows]:
    """The columns of an Arrow file that are read, written as a stream (`datasets`) or as a file.

    All rows at once, whatever `size` is.
    """
    import pyarrow

    with open_binary(path) as file:
        data = pyarrow.py_buffer(file.read())
    try:
        # A file begins with this word, and a stream does not.
        is_file = data[:6].to_pybytes() == b"ARROW1"
        opened = pyarrow.ipc.open_file(data) if is_file else pyarrow.ipc.open_stream(data)
        table = opened.read_all()
    except pyarrow.ArrowException as error:
        raise PromptError(f"Data file {path} is not in Arrow's format ({error}).") from error
    yield _rows(path, table, table.column_names, reading)


def is_saved(folder: Path) -> bool:
    """Whether a folder is one split as `Dataset.save_to_disk` writes it."""
    return (folder / STATE).is_file()


def read_saved(folder: Path, reading: Reading) -> Rows:
    """The columns that are read of a folder of `Dataset.save_to_disk`.

    Raises:
        PromptError: If it is damaged.
    """
    import datasets
    import pyarrow

    try:
        dataset = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise PromptError(
            f"Data folder {folder} was written by save_to_disk but cannot be read "
            f"({first_line(error)}); save it again."
        ) from error
    rows = Rows.of_dataset(str(folder), dataset, reading)
    if not len(rows):
        raise PromptError(f"Data folder {folder} has no rows.")
    return rows


def _rows(path: Path, table: Any, columns: list[str], reading: Reading) -> Rows:
    """Rows of a table, with the names of the classes that `datasets` has put into its schema."""
    from datasets import Dataset

    rows = Rows.of_dataset(str(path), Dataset(table.select(reading.tops(columns))))
    return replace(rows, columns=tuple(columns))
