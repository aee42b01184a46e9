"""Rows of one local file, plain or packed: JSON, a table of text, Parquet or Arrow."""

import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.arrow_rows import read_arrow, read_parquet
from lightning_prompts.tasks.delimited import read_csv, read_tsv
from lightning_prompts.tasks.encoding import NotUTF8Error, open_binary, packed, refuse_unknown
from lightning_prompts.tasks.json_rows import read_json
from lightning_prompts.tasks.reading import Reading
from lightning_prompts.tasks.rows import ALL, Rows

# What stands at the beginning of a file that is not what it is called, and what to do about it.
STAND_INS = {
    b"version https://git-lfs": (
        "is a pointer of Git LFS, not the file; fetch the file with `git lfs pull`"
    ),
    b"PK\x03\x04": (
        "is a ZIP archive or a workbook; unpack it, or save the sheet as CSV (Excel: CSV UTF-8)"
    ),
    b"\x1f\x8b": "is packed by gzip; let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "is packed by zstd; unpack it with `unzstd`",
    b"<!DOCTYPE": "is a web page, not the file; download the file itself",
    b"<html": "is a web page, not the file; download the file itself",
}


def suffix(path: Path) -> str:
    """The suffix that tells the format, `.gz` and its like aside; "" for none that is known."""
    name = path.name.lower()
    name = name.removesuffix(packed(name))
    return next((known for known in READERS if name.endswith(known)), "")


def stem(path: Path) -> str:
    """The name without the suffixes that tell format and packing."""
    name = path.name[: len(path.name) - len(packed(path.name))]
    return name[: len(name) - len(suffix(path))]


def read_file(path: Path, reading: Reading = ALL) -> Rows:
    """All rows of a file.

    Args:
        path: The file.
        reading: How it is read, and what of it.

    Raises:
        PromptError: If the file is missing, empty, of an unknown format, or broken; the message
            names the line.
    """
    return next(read_parts(path, reading))


def read_parts(path: Path, reading: Reading = ALL, size: int | None = None) -> Iterator[Rows]:
    """The rows of a file, so many at a time.

    A file with a row a line and Parquet are read as they are used up; any other format at once.

    Args:
        path: The file.
        reading: How it is read, and what of it.
        size: Most rows of a part, where the format has parts; None for all rows as one.

    Raises:
        PromptError: As `read_file`, once the part is asked for.
    """
    if not path.is_file():
        raise PromptError(f"Data file {path} does not exist; check the path.")
    # Any text may be a table where its separator is told.
    read = READERS.get(suffix(path)) or (read_csv if reading.separator else None)
    try:
        _refuse_stand_ins(path)
        if read is None:
            raise PromptError(
                f"Data file {path} is of an unknown format; use one of {', '.join(READERS)}, plain "
                "or with .gz, .bz2 or .xz; for a table of text of any name, give --data.separator."
            )
        try:
            empty = True
            for rows in read(path, reading, size):
                if len(rows):
                    empty = False
                    yield rows
            if empty:
                raise PromptError(f"Data file {path} has no rows.")
        except NotUTF8Error:
            refuse_unknown(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise PromptError(f"Data file {path} cannot be read ({error}).") from error


def _refuse_stand_ins(path: Path) -> None:
    with open_binary(path) as file:
        first = file.read(max(map(len, STAND_INS)))
    for begins, what in STAND_INS.items():
        if first.startswith(begins):
            raise PromptError(f"Data file {path} {what}.")


READERS: dict[str, Callable[[Path, Reading, int | None], Iterator[Rows]]] = {
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}
