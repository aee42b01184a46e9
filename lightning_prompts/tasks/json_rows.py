"""Rows of JSON: an object a line, objects over several lines, an array, or columns of one object.

The contents tell which of these it is, whatever the file is called.
"""

import io
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.encoding import text_lines
from lightning_prompts.tasks.reading import Reading
from lightning_prompts.tasks.rows import TWICE, BadRow, Row, Rows, bad_line, has, refuse_line

FIELD = "data"  # where a file of one object has its rows: SQuAD, pandas' "table", many services
LINES = "each line must hold one object"
NO_OBJECT = "not an object with columns"


def read_json(path: Path, reading: Reading, size: int | None) -> Iterator[Rows]:
    """All rows, of a file with an object a line `size` at a time.

    Raises:
        PromptError: If the file is not JSON, or not of objects; the message names line or row.
    """
    lines: Iterator[str] = text_lines(path, reading.encoding)
    head: list[str] = []  # to the second line that is not blank
    for line in lines:
        head.append(line)
        if sum(map(bool, map(str.strip, head))) == 2:
            break
    first, second = [*(line for line in head if line.strip()), "", ""][:2]
    begins = next((i for i, line in enumerate(head, start=1) if line.strip()), 1)
    lines = itertools.chain(head, lines)
    if first.lstrip().startswith("[") or not _is_object(first):
        whole = "".join(lines)
        try:
            values = list(_values(whole))
        except (ValueError, RecursionError) as error:
            if first.lstrip().startswith("[") or not _is_object(second):
                number = getattr(error, "lineno", begins)
                refuse_line(
                    path, min(number, whole.count("\n") or 1), f"is not JSON ({_why(error)})"
                )
            lines = io.StringIO(whole, newline="")
        else:
            yield _rows_of(path, values, reading)
            return
    yield from _read_lines(path, lines, reading, size)


def _read_lines(
    path: Path, lines: Iterable[str], reading: Reading, size: int | None
) -> Iterator[Rows]:
    """An object a line."""
    start, rows = 0, list[Row]()
    faults: dict[int, BadRow] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if size is not None and len(rows) >= size:
            yield _numbered(path, start, rows, faults)
            start, rows, faults = start + len(rows), [], {}
        row: Any = {}
        try:
            row = _decoder.decode(line)
            fault = None if isinstance(row, dict) else f"holds {_shown(row)}, {NO_OBJECT}"
        except (ValueError, RecursionError) as error:
            fault = f"is not JSON ({_why(error)}); {LINES}"
        if fault:
            if not reading.skip_bad_rows:
                refuse_line(path, number, fault)
            faults[len(rows)] = bad_line(path, number, fault, "no JSON object")
        rows.append({} if fault else row)
    if len(rows) == 1 and not faults and not start:
        yield _rows_of(path, rows, reading)
    elif rows or not start:
        yield _numbered(path, start, rows, faults)


def _numbered(path: Path, start: int, rows: list[Row], faults: dict[int, BadRow]) -> Rows:
    return Rows(str(path), rows, numbers=list(range(start, start + len(rows))), faults=faults)


def _rows_of(path: Path, values: list[Any], reading: Reading) -> Rows:
    """Rows of all that a file holds: of an array, of several objects, or of a single one."""
    rows = values
    if len(values) == 1 and isinstance(values[0], list):
        rows = values[0]
    elif len(values) == 1 and isinstance(values[0], dict):
        rows = _rows_of_object(path, values[0], reading)
    faults: dict[int, BadRow] = {}
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            message = f"Data file {path}, row {i + 1} is {_shown(row)}, {NO_OBJECT}."
            faults[i] = BadRow(message, "no JSON object")
            if not reading.skip_bad_rows:
                raise faults[i]
    rows = [{} if i in faults else row for i, row in enumerate(rows)]
    return Rows(str(path), rows, faults=faults)


def _rows_of_object(path: Path, given: Row, reading: Reading) -> list[Any]:
    """The rows that one object holds in a field or column by column; else it is the only row."""
    if rows := _of_columns(given, reading):
        return rows
    if reading.needed and _fits(reading, given):
        return [given]
    lists = {
        name: value
        for name, value in given.items()
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    }
    fitting = {name: rows for name, rows in lists.items() if _fits(reading, rows[0])}
    if FIELD in lists and (FIELD in fitting or not fitting):
        return lists[FIELD]
    if len(fitting) > 1:
        names = ", ".join(map(repr, fitting))
        raise PromptError(
            f"Data file {path} is one object with rows in {names}; write those that are meant to a "
            f"file of their own, or name their field {FIELD!r}."
        )
    return next(iter(fitting.values()), [given])


def _of_columns(given: Row, reading: Reading) -> list[Row]:
    """Rows of an object whose values are whole columns, by key or in order; else none."""
    names = [name for group in reading.needed for name in group if name in given]
    if not names or not isinstance(first := given[names[0]], dict | list):
        return []
    keys = _keys(first)
    columns = {
        name: value
        for name, value in given.items()
        if type(value) is type(first) and _keys(value) == keys
    }
    read = {name for group in (*reading.needed, *reading.wanted) for name in group if name in given}
    if not read <= columns.keys() or not reading.fits(columns.__contains__):
        return []
    return [{name: value[key] for name, value in columns.items()} for key in keys]


def _fits(reading: Reading, row: Row) -> bool:
    return reading.fits(lambda name: has(row, name))


def _keys(column: dict[str, Any] | list[Any]) -> list[Any]:
    return list(column) if isinstance(column, dict) else list(range(len(column)))


def _values(text: str) -> Iterator[Any]:
    """The JSON values that stand one after another."""
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        value, place = _decoder.raw_decode(text, place)
        yield value


def _is_object(line: str) -> bool:
    try:
        return isinstance(_decoder.decode(line), dict)
    except (ValueError, RecursionError):
        return False


def _once(pairs: list[tuple[str, Any]]) -> Row:
    """An object; which of two values a key stands for, nobody knows."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        row |= {name: TWICE for name in row if names.count(name) > 1}
    return row


_decoder = json.JSONDecoder(object_pairs_hook=_once)


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return str(error)


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
