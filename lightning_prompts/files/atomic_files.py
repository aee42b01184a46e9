"""Files that are replaced in one step: no reader, and no crash, ever finds half of one.

A draft is written beside the file, brought to the disk, and renamed. What a killed process leaves
is a draft, never a torn file.
"""

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from lightning_prompts.files.escaping import json_text

DRAFT = ".draft"
T = TypeVar("T")


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file, with null for what is no number."""
    write_text(path, _dumps(content, indent=2) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """The same for a JSONL file, an object a line."""
    write_text(path, "".join(_dumps(row) + "\n" for row in rows))


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a JSONL file; what a killed process leaves is half a line at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("ab") as file:
            file.write((_dumps(row) + "\n").encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _named(error, path) from error


def read_lines(path: Path, parse: Callable[[Any], T]) -> list[T]:
    """What the lines of a JSONL file hold, none where there is no file.

    Lines that are none, as a killed process or an earlier version leaves them, are taken away.

    Args:
        path: The file.
        parse: A line's content to what it holds; raises ValueError, TypeError or KeyError where it
            holds something else.
    """
    if not path.is_file():
        return []
    lines = path.read_text("utf-8", errors="replace").splitlines()
    whole, found = [], []
    for line in lines:
        try:
            row = json.loads(line)
            found.append(parse(row))
        except (ValueError, TypeError, KeyError):
            continue
        whole.append(row)
    if len(whole) < len(lines):
        write_lines(path, whole)
    return found


def write_text(path: Path, text: str) -> None:
    """Replace a text file."""
    replace(path, lambda file: file.write(text.encode("utf-8")))


def replace(path: Path, write: Callable[[IO[bytes]], Any], before: Path | None = None) -> None:
    """Replace a file by what `write` writes.

    Args:
        path: The file; its folder is made.
        write: Given the open draft.
        before: Where to keep the file that is replaced; one that is there already gives way.

    Raises:
        OSError: If the disk does not take it, with the file's name; the old file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    try:
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        kept = _keep(path, before) if before is not None and path.is_file() else None
        draft.replace(path)
        # Last: were the replaced file damaged, a crash between the two would leave it twice.
        if kept is not None and before is not None:
            kept.replace(before)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a file system that has become read-only
            for left in (path,) if before is None else (path, before):
                _draft(left).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _named(error, path) from error
        raise
    _sync(path.parent)


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left in a run's folder, which no process may be writing to."""
    for draft in folder.rglob(f".*{DRAFT}"):
        draft.unlink(missing_ok=True)


def _keep(path: Path, before: Path) -> Path:
    """Give the file a second name, so that there is no moment without a file of either name."""
    draft = _draft(before)
    draft.unlink(missing_ok=True)
    try:
        os.link(path, draft)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, draft)
    return draft


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{DRAFT}")


def _sync(folder: Path) -> None:
    """Bring the renaming to the disk, where the system lets a folder be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            # Some network file systems cannot; the file itself has been synced.
            with contextlib.suppress(OSError):
                os.fsync(handle)
        finally:
            os.close(handle)


def _named(error: OSError, path: Path) -> OSError:
    """The error with the file's name, which a failed write does not have."""
    return OSError(error.errno or errno.EIO, error.strerror or str(error), str(path))


def _dumps(content: Any, indent: int | None = None) -> str:
    text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, indent=indent)
    return json_text(text)


def _finite(content: Any) -> Any:
    """The content with null for inf and NaN, which JSON does not know."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
