"""Filled rating sheets, read: one a rater, any cell of it may be empty."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import PROGRAM, did_you_mean, shorten
from lightning_prompts.report.rating_sheet import COLUMNS, MARK, NAMES, Key, find_key, read_key
from lightning_prompts.report.text import quoted

SEPARATORS = (",", ";", "\t")  # as spreadsheets of different countries save them
SCALES = ("read", "use")
AGAIN = f"give a copy of the sheet as {PROGRAM} report --rating_sheet wrote it, with cells filled"


class Rating(NamedTuple):
    """What a rater says of one text; None where the cell is empty."""

    task: str | None
    read: int | None
    use: int | None
    comment: str


@dataclass(frozen=True)
class Sheet:
    """What one rater says.

    Attributes:
        rater: The file's name without its ending.
        ratings: By the item's id.
    """

    rater: str
    ratings: Mapping[str, Rating]

    @property
    def filled(self) -> bool:
        """Whether anything was rated; a comment is no rating."""
        return any(value is not None for rating in self.ratings.values() for value in rating[:3])


def read_sheets(paths: Sequence[Path], key: Path | None = None) -> tuple[Key, list[Sheet]]:
    """Read filled sheets, and the key that they are of.

    Args:
        paths: Copies of one sheet, each of another rater.
        key: By default the one that lies beside a copy.

    Returns:
        The key, and what each rater says.

    Raises:
        PromptError: If one cannot be read, is not of this key or holds what is no rating, if two
            are of one rater, or if nothing is filled in.
    """
    raters: dict[str, Path] = {}
    for path in paths:
        other = raters.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise PromptError(
                f"{other} and {path} are both of the rater {path.stem}, as a sheet is named after "
                "its rater; give one a rater, or rename one."
            )
    rows = {path: list(_rows(path)) for path in paths}
    first = next(iter(rows[paths[0]]))["id"]
    place = key or find_key(first.partition("-")[0], paths)
    known = read_key(place)
    sheets = [Sheet(path.stem, _ratings(path, rows[path], known, place)) for path in paths]
    if not any(sheet.filled for sheet in sheets):
        raise PromptError(
            f"No cell of {', '.join(map(str, paths))} is filled in; give sheets after people have "
            "rated on them."
        )
    return known, sheets


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows by what columns are for, however a spreadsheet separates them."""
    try:
        text = path.read_bytes().decode().removeprefix(MARK)
    except OSError as error:
        raise PromptError(f"{path}: cannot be read ({error.strerror}); {AGAIN}.") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: not UTF-8; save it as CSV in UTF-8.") from error
    heads: list[str] = []
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        heads = [head.strip() for head in next(reader, [])]
        if COLUMNS["id"] in heads and len(heads) > 1:
            break
    if missing := [head for head in COLUMNS.values() if head not in heads]:
        raise PromptError(f"{path}: has no column {missing[0]!r}; {AGAIN}.")
    places = {name: heads.index(head) for name, head in COLUMNS.items()}
    found = False
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            row = {name: cells[i] if i < len(cells) else "" for name, i in places.items()}
            found = True
            yield {**row, "id": row["id"].strip()}
    except csv.Error as error:
        raise PromptError(
            f"{path}: line {reader.line_num} is no CSV ({error}); {AGAIN}."
        ) from error
    if not found:
        raise PromptError(f"{path}: has no row; {AGAIN}.")


def _ratings(
    path: Path, rows: Sequence[Mapping[str, str]], key: Key, place: Path
) -> dict[str, Rating]:
    items = {item.id: item for item in key.items}
    found: dict[str, Rating] = {}
    for row in rows:
        name = row["id"]
        if name.partition("-")[0] != key.name:
            raise PromptError(
                f"{path}: the id {shorten(name, 40)!r} is of another sheet than {place}, the key "
                f"of {key.name}; give the key that was written beside the raters' sheet."
            )
        if name not in items:
            raise PromptError(
                f"{path}: no text of {place} has the id {shorten(name, 40)!r}; {AGAIN}."
            )
        if name in found:
            raise PromptError(f"{path}: has {name} twice; leave one of the rows.")
        if row["text"] != quoted(items[name].text):
            raise PromptError(f"{path}: the text of {name} is not that of {place}; {AGAIN}.")
        read, use = (_scale(path, name, row, scale) for scale in SCALES)
        task = _task(path, name, row["task"])
        found[name] = Rating(task, read, use, row["comment"].strip())
    return found


def _task(path: Path, name: str, cell: str) -> str | None:
    given = re.sub(r"[\s-]+", "_", cell.strip().lower())
    if given and given not in NAMES:
        raise PromptError(
            f"{path}: {name} has {shorten(cell.strip(), 40)!r} for the task, which is none of the "
            f"names in the column's head{did_you_mean(given, NAMES)}"
        )
    return given or None


def _scale(path: Path, name: str, row: Mapping[str, str], scale: str) -> int | None:
    cell = row[scale].strip()
    if cell and not re.fullmatch(r"[1-5]([.,]0+)?", cell):  # some programs write 4.0
        question = COLUMNS[scale].partition("?")[0]
        raise PromptError(
            f"{path}: {name} has {shorten(cell, 40)!r} for {question!r}; give 1, 2, 3, 4 or 5, or "
            "leave the cell empty."
        )
    return int(cell[0]) if cell else None
