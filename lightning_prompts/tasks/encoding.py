"""The lines of a text file, whatever it is encoded in."""

import bz2
import codecs
import gzip
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from lightning_prompts.files.errors import PromptError

UNPACK: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# What a file begins with that says how it is encoded; those of four bytes first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What programs wrote before UTF-8, and some still do, by how common it is.
OLD_ENCODINGS = ("cp1252", "latin-1", "cp1250", "cp1251", "mac_roman", "gb18030", "cp932", "euc_kr")
EVIDENCE = 2000  # lines that an encoding must be able to read to be named
AROUND = 12  # characters shown on either side


class NotUTF8Error(Exception):
    """A file is not UTF-8, and nothing said what else it is."""


def open_binary(path: Path) -> Any:
    """The file's bytes, unpacked."""
    return UNPACK.get(path.suffix.lower(), open)(path, "rb")


def packed(name: str) -> str:
    """The ending of a file's name that says how it is packed, or ""."""
    return next((ending for ending in UNPACK if name.lower().endswith(ending)), "")


def text_lines(path: Path, encoding: str | None) -> Iterator[str]:
    r"""The lines of a text file, their ends (`\n`, `\r\n` or `\r`) kept.

    Args:
        path: The file.
        encoding: Of it; None for what its first bytes say, and else UTF-8.

    Raises:
        PromptError: If a line is not in the encoding.
        NotUTF8Error: If `encoding` is None and a line is not UTF-8.
    """
    found = encoding or _by_first_bytes(path) or "utf-8"
    if found.replace("_", "-").startswith(("utf-16", "utf-32")):
        yield from _wide_lines(path, found)
        return
    with open_binary(path) as file:
        number = 0
        for piece in file:
            # Only `\n` ends a piece; some programs end lines with `\r` alone.
            alone = b"\r" in piece.rstrip(b"\r\n")
            for line in re.split(rb"(?<=\r)(?!\n)", piece) if alone else (piece,):
                number += 1
                try:
                    if encoding is None and b"\0" in line:
                        _refuse_nul(path, number)
                    text = line.decode(found)
                except UnicodeDecodeError as error:
                    if encoding is None:
                        raise NotUTF8Error from error
                    _refuse(path, number, encoding, error)
                if number == 1:
                    text = text.removeprefix("\ufeff")
                if text:
                    yield text


def _refuse_nul(path: Path, number: int) -> NoReturn:
    raise PromptError(
        f"Data file {path}, line {number} holds bytes of 0, which UTF-8 texts do not have; give "
        "its encoding with --data.encoding, for example utf-16-le, or utf-8 if it is."
    )


def _wide_lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines where a character has several bytes, of which one may look like a line's end."""
    with open_binary(path) as file:
        data = file.read()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        number = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        _refuse(path, number, encoding, error)
    yield from re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text.removeprefix("\ufeff"))


def _refuse(path: Path, number: int, encoding: str, error: UnicodeDecodeError) -> NoReturn:
    raise PromptError(
        f"Data file {path}, line {number} is not {encoding} text ({error.reason}); give another "
        "encoding with --data.encoding."
    ) from error


def _by_first_bytes(path: Path) -> str | None:
    """The encoding that a byte order mark says, or that every other byte is none of a text's."""
    with open_binary(path) as file:
        first = file.read(4)
    if found := next((name for mark, name in MARKS if first.startswith(mark)), None):
        return found
    zeros = [byte == 0 for byte in first]  # of UTF-16 without a mark, where letters are ASCII
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else None


def refuse_unknown(path: Path) -> NoReturn:
    """Refuse a file of text that is not UTF-8, with what it says in the encodings it may be in.

    Which one is meant cannot be read off the bytes: they give the same bytes other letters.

    Raises:
        PromptError: Always.
    """
    first, odd = 0, []
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                first = first or number
                odd.append(line)
                if len(odd) == EVIDENCE:
                    break
    shown: dict[str, str] = {}
    for name in OLD_ENCODINGS:
        try:
            text = b"".join(odd).decode(name)
        except UnicodeDecodeError:
            continue
        if (word := _around(text)).isprintable():
            shown.setdefault(word, name)
    may_be = ", ".join(f"{name} reads {word!r}" for word, name in shown.items())
    raise PromptError(
        f"Data file {path}, line {first} is not UTF-8 text; give its encoding with --data.encoding"
        f"{f': {may_be}' if may_be else ''}."
    )


def _around(text: str) -> str:
    """The word with the first character outside ASCII."""
    place = next((i for i, character in enumerate(text) if not character.isascii()), 0)
    before = re.search(r"\w*$", text[max(0, place - AROUND) : place])
    after = re.match(r"\S\w*", text[place : place + AROUND])
    return (before[0] if before else "") + (after[0] if after else "")
