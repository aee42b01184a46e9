"""Rows of one local file: JSONL, JSON, CSV, TSV or Parquet, plain or gzip.

Text formats are parsed here, line by line: every value of a CSV stays the text that it is (a label
`01` or `NA` would not survive type guessing), columns may mix types, and a fault is named by its
line. Parquet goes through `datasets`, which also knows the names of its class labels.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from lightning_prompts.errors import PromptError
from lightning_prompts.tasks.rows import Rows

Row = dict[str, Any]


def suffix(path: Path) -> str:
    """The suffix that tells the format, `.gz` aside; "" for none that is known."""
    name = path.name.lower().removesuffix(".gz")
    return next((known for known in READERS if name.endswith(known)), "")


def read_file(path: Path) -> Rows:
    """All rows of a file.

    Raises:
        PromptError: If the file is missing, empty, of an unknown format, or broken; the message
            names the line.
    """
    if not path.is_file():
        raise PromptError(f"Data file {path} does not exist; check the path.")
    known = suffix(path)
    if not known:
        raise PromptError(
            f"Data file {path} is of an unknown format; use one of {', '.join(READERS)}, "
            "plain or with .gz."
        )
    try:
        rows = READERS[known](path)
    except (OSError, EOFError, zlib.error) as error:
        raise PromptError(f"Data file {path} cannot be read ({error}).") from error
    if not len(rows):
        raise PromptError(f"Data file {path} has no rows.")
    return rows


def _open(path: Path) -> Any:  # a binary file, plain or gzip
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, their ends kept."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                _refuse(path, number, f"is not UTF-8 text ({error.reason}); save the file as UTF-8")


def _refuse(path: Path, number: int, reason: str) -> NoReturn:
    raise PromptError(f"Data file {path}, line {number} {reason}.")


def _read_jsonl(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = _parse(line)
        except (ValueError, RecursionError) as error:
            _refuse(path, number, f"is not JSON ({error}); each line must hold one object")
        if not isinstance(row, dict):
            _refuse(path, number, f"holds {_shown(row)}, not an object with columns")
        rows.append(row)
    return Rows(str(path), rows)


def _read_json(path: Path) -> Rows:
    """One array of objects; where the file does not begin with `[`, an object a line."""
    with _open(path) as file:
        begins = file.read(64).decode("utf-8", "ignore").lstrip("\ufeff \t\r\n")[:1]
    if begins != "[":
        return _read_jsonl(path)
    try:
        rows = _parse("".join(_lines(path)))
    except (ValueError, RecursionError) as error:
        raise PromptError(f"Data file {path} is not JSON ({error}).") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise PromptError(
                f"Data file {path}, row {number} is {_shown(row)}, not an object with columns."
            )
    return Rows(str(path), rows)


def _parse(text: str) -> Any:
    """JSON, where each key of an object stands once."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return row


def _read_csv(path: Path) -> Rows:
    """Comma-separated, quoted with `"` where needed, column names in the first line."""
    return _read_delimited(path, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def _read_tsv(path: Path) -> Rows:
    """Tab-separated, a row a line; `"` is a character like others, as TSV corpora have it."""
    return _read_delimited(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_delimited(path: Path, delimiter: str, quoting: Any) -> Rows:
    csv.field_size_limit(sys.maxsize)  # the module's 128 KiB would refuse long texts
    reader = csv.reader(_lines(path), delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] = []
    rows: list[Row] = []
    try:
        for values in reader:
            if not values:  # a blank line
                continue
            if not header:
                header = values
                if twice := next((name for name in header if header.count(name) > 1), None):
                    _refuse(path, reader.line_num, f"names the column {twice!r} twice; rename one")
            elif len(values) != len(header):
                _refuse(
                    path,
                    reader.line_num,
                    f"has {len(values)} fields but the header names {len(header)} "
                    f"({', '.join(header)}); quote fields that hold a separator",
                )
            else:
                rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        _refuse(path, reader.line_num, f"cannot be parsed ({error})")
    return Rows(str(path), rows)


def _read_parquet(path: Path) -> Rows:
    # Not `load_dataset`, which would write a copy into the user's cache.
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]
    from datasets import Dataset

    with _open(path) as file:
        try:
            table = pyarrow.parquet.read_table(io.BytesIO(file.read()))
        except pyarrow.ArrowException as error:
            raise PromptError(f"Data file {path} is not Parquet ({error}).") from error
    return Rows.of_dataset(str(path), Dataset(table))


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
