"""Rows of a table of text: CSV and its kin, with any separator, with a header or without one.

The separator is the one that a file's name promises, where that gives the columns that are needed;
else the only one that does. Every value stays the text that it is (a label `01` or `NA` would not
survive type guessing), and a fault is named by its line.
"""

import csv
import itertools
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import first_few, shorten
from lightning_prompts.tasks.encoding import text_lines
from lightning_prompts.tasks.reading import Reading, shown_separator
from lightning_prompts.tasks.rows import BadRow, Row, Rows, bad_line, refuse_line

log = logging.getLogger(__name__)

SEPARATORS = (",", ";", "\t", "|")
HEAD = 50  # lines, of which the first record is in the beginning
NAMED = 8  # columns listed in a message
BLANK = -1  # in place of a line's number, for a row without anything
NO_HEADER = "; if this is the first row and no header, name all columns with --data.columns"
ADVICE = f"{NO_HEADER}; if another character separates the columns, give it with --data.separator"


@dataclass
class _Part:
    """Rows that are read together.

    Attributes:
        start: Number of the first one in its file.
        rows: As they are.
        faults: By index, what is wrong.
        longer: By index, the line of a row with an empty field past the last column, or `BLANK`.
    """

    start: int = 0
    rows: list[Row] = field(default_factory=list)
    faults: dict[int, BadRow] = field(default_factory=dict)
    longer: dict[int, int] = field(default_factory=dict)


def read_csv(path: Path, reading: Reading, size: int | None) -> Iterator[Rows]:
    """Comma-separated by its name, quoted with `"` where needed."""
    return _read(path, reading, size, ",", plain_quotes=False)


def read_tsv(path: Path, reading: Reading, size: int | None) -> Iterator[Rows]:
    """Tab-separated, a row a line; `"` is a character like others, as TSV corpora have it."""
    return _read(path, reading, size, "\t", plain_quotes=True)


def _read(
    path: Path, reading: Reading, size: int | None, usual: str, plain_quotes: bool
) -> Iterator[Rows]:
    csv.field_size_limit(sys.maxsize)  # the module's 128 KiB would refuse long texts
    lines = text_lines(path, reading.encoding)
    head = list(itertools.islice(lines, HEAD))
    said = None
    # Excel's own way to tell the separator, in a line before the header.
    if head and (found := re.fullmatch(r'"?sep=(.)"?[\r\n]*', head[0])):
        said, head = found[1], head[1:]

    def records(separator: str, given: Iterable[str], spaced: bool = False) -> Any:
        quoting: Any = csv.QUOTE_NONE if plain_quotes and separator == "\t" else csv.QUOTE_MINIMAL
        return csv.reader(
            given, delimiter=separator, quoting=quoting, strict=True, skipinitialspace=spaced
        )

    def beginning(separator: str) -> list[list[str]]:
        """The first records by a separator; none where it does not go with them."""
        found = []
        reader = records(separator, head)
        try:
            for record in reader:
                found.append(record)
        except csv.Error:
            # A record may go on after the lines that are looked at.
            if reader.line_num < HEAD - 1:
                return []
        return [record for record in found[: HEAD - 1] if record]

    separator = reading.separator or said
    if separator is None:
        separator = _separator(path, reading, usual, beginning)
        if separator != usual:
            log.info("%s: its columns are separated by %s.", path, shown_separator(separator))
    # `a, b`: the space belongs to the separator, and a quote after it begins a value.
    names = beginning(separator)[:1] if reading.has_header else []
    spaced = any(name.startswith(" ") for record in names for name in record[1:])
    reader = records(separator, itertools.chain(head, lines), spaced)
    hint = (
        "quote fields that hold a separator, write a quote in them twice, or name another "
        "separator with --data.separator"
    )
    if plain_quotes and separator == "\t":
        hint = (
            "in a .tsv a quote is a character like others: where it is none, name the file .csv "
            "and give --data.separator tab"
        )
    return _rows(path, reading, size, reader, int(said is not None), hint)


def _separator(
    path: Path, reading: Reading, usual: str, beginning: Callable[[str], list[list[str]]]
) -> str:
    """The separator that gives the columns that are needed.

    With a header it gives their names, and without one as many fields in each row as there are
    columns.

    Args:
        path: The file.
        reading: What is needed.
        usual: The separator that the file's name promises.
        beginning: The first records by a separator.

    Raises:
        PromptError: If several do.
    """
    found = []
    for separator in dict.fromkeys((usual, *SEPARATORS)):
        records = beginning(separator)
        widths = {len(record) for record in records}
        if reading.columns:
            fits = widths == {len(reading.columns)}
        elif reading.has_header:
            fits = bool(records) and reading.fits(_names(records[0]).__contains__)
        else:
            fits = len(widths) == 1
        # What leaves a line undivided is no separator of it.
        if fits and len(records[0]) > 1:
            found.append(separator)
    by_names = reading.has_header and not reading.columns
    if not found or (by_names and found[0] == usual):
        return usual
    if len(found) > 1:
        ways = " and by ".join(map(shown_separator, found))
        raise PromptError(
            f"Data file {path} can be divided into columns by {ways}; say by which with "
            "--data.separator."
        )
    return found[0]


def _rows(
    path: Path, reading: Reading, size: int | None, reader: Any, skipped: int, hint: str
) -> Iterator[Rows]:
    """The rows of the records after the header, `size` at a time."""
    header = list(reading.columns)
    records = filter(None, reader)  # without blank lines
    advice = "" if reading.columns else ADVICE
    part = _Part()

    def bad(index: int, number: int, count: int) -> None:
        names = "--data.columns" if reading.columns else "the header"
        fault = f"has {count} fields but {names} names {len(header)} ({_listed(header)}); {hint}"
        reason = f"{count} fields in place of {len(header)}"
        part.faults[index] = bad_line(path, number + skipped, fault, reason)
        if not reading.skip_bad_rows:
            raise part.faults[index]

    def rows() -> Rows:
        # Some programs end each row with a separator; where only some rows do, it is of a text.
        blank = sum(number == BLANK for number in part.longer.values())
        longer = {i: number for i, number in part.longer.items() if number != BLANK}
        if len(header) == 1 or len(longer) < len(part.rows) - len(part.faults) - blank:
            for index, number in longer.items():
                bad(index, number, len(header) + 1)
        numbers = list(range(part.start, part.start + len(part.rows)))
        return Rows(
            *(str(path), part.rows),
            numbers=numbers,
            columns=tuple(header),
            table=True,
            advice=advice,
            faults=part.faults,
        )

    try:
        first: list[str] = next(records, [])
        if not header:
            numbered = [f"column_{i}" for i in range(1, len(first) + 1)]
            header = _names(first) if reading.has_header else numbered
        wanted = set(reading.tops(header))
        read = [(i, name) for i, name in enumerate(header) if name in wanted]
        last = max((i for i, _ in read), default=-1)
        if twice := next((name for _, name in read if header.count(name) > 1), None):
            number = reader.line_num + skipped
            refuse_line(path, number, f"names the column {twice!r} twice; rename one")
        blank: list[Row] = []  # spreadsheets write empty lines after the last row
        for values in records if reading.has_header else itertools.chain([first], records):
            # What is missing at the end of a row may be nobody's.
            fits = last < len(values) and not any(values[len(header) :])
            row = {name: values[i] for i, name in read} if fits else {}
            if fits and len(header) > 1 and not any(values):
                blank.append(row)
                continue
            for waiting in (*blank, row):
                if size is not None and len(part.rows) >= size:
                    yield rows()
                    part = _Part(part.start + len(part.rows))
                if waiting is not row:
                    part.longer[len(part.rows)] = BLANK
                part.rows.append(waiting)
            blank = []
            if not fits:
                bad(len(part.rows) - 1, reader.line_num, len(values))
            elif len(values) > len(header):
                part.longer[len(part.rows) - 1] = reader.line_num
    except csv.Error as error:
        hint += "" if part.start or part.rows or reading.columns else NO_HEADER
        refuse_line(path, reader.line_num + skipped, f"cannot be parsed ({error}); {hint}")
    if part.rows or not part.start:
        yield rows()


def _names(fields: Sequence[str]) -> list[str]:
    """A header's names, without the spaces that writers put around them."""
    return [name.strip() for name in fields]


def _listed(names: Sequence[str]) -> str:
    return first_few((shorten(name, 40) for name in names), NAMED)
