"""What is to be read of a data set's files, and how they are written where they do not say so."""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_prompts.files.errors import PromptError

# What the command line calls a separator that is hard to type.
SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
NAMES = {"\t": "a tab", " ": "a space"}


@dataclass(frozen=True)
class Reading:
    """How files are read; what is None is found out, or refused where it may be this or that.

    Attributes:
        separator: Of the columns of a table of text.
        encoding: Of a text file.
        header: Whether the first line of a table of text names its columns.
        columns: Names of the columns of a table of text, in place of its header or without one.
        needed: For each column that is needed, the names that the data may have for it.
        wanted: The same for columns that are read where they are there.
        skip_bad_rows: Whether a row that is broken is kept as a fault rather than refused.
    """

    separator: str | None = None
    encoding: str | None = None
    header: bool | None = None
    columns: tuple[str, ...] = ()
    needed: tuple[tuple[str, ...], ...] = ()
    wanted: tuple[tuple[str, ...], ...] = ()
    skip_bad_rows: bool = False

    @property
    def has_header(self) -> bool:
        """Whether the first line of a table is no row."""
        return not self.columns if self.header is None else self.header

    def fits(self, has: Callable[[str], bool]) -> bool:
        """Whether all that is needed is there.

        Args:
            has: Whether there is a column of a name.
        """
        return all(any(map(has, names)) for names in self.needed)

    def tops(self, columns: Sequence[str]) -> list[str]:
        """Which of the columns of a table hold something that is read; all where nothing is named.

        A name with dots may lead into any column that it begins with. At least one, for the rows to
        be seen.
        """
        names = {name for group in (*self.needed, *self.wanted) for name in group}
        known = list(dict.fromkeys(columns))
        if not names:
            return known
        found = [
            column
            for column in known
            if column in names or any(name.startswith(f"{column}.") for name in names)
        ]
        # One that is called like no other, which would be refused for a name that nobody asked for.
        return found or [column for column in known if columns.count(column) == 1][:1]


def separator_of(given: str | None) -> str | None:
    """The character that an option names.

    Raises:
        PromptError: If it is none that could separate columns.
    """
    if given is None:
        return None
    separator = SPELLED.get(given, given)
    if len(separator) != 1 or separator in '"\r\n\0':
        raise PromptError(
            f"--data.separator is {given!r}; give the one character between two columns, such as "
            "',', ';', '|' or tab."
        )
    return separator


def encoding_of(given: str | None) -> str | None:
    """The encoding that an option names.

    Raises:
        PromptError: If there is none of that name.
    """
    if given is None:
        return None
    try:
        found = codecs.lookup(given)
        "a".encode(given).decode(given)  # refused by what turns bytes into bytes
    except (LookupError, ValueError) as error:
        raise PromptError(
            f"--data.encoding is {given!r}, which names no encoding of text; give for example "
            "utf-8, cp1252, latin-1 or utf-16."
        ) from error
    return found.name


def columns_of(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of columns, as a list or with commas between them.

    Raises:
        PromptError: If a name is empty, or there twice.
    """
    if given is None:
        return ()
    names = tuple(name.strip() for name in (given.split(",") if isinstance(given, str) else given))
    if not all(names) or len(set(names)) < len(names):
        raise PromptError(
            f"--data.columns is {', '.join(map(repr, names))}; give each column of the file one "
            "name of its own, from left to right, with commas between them."
        )
    return names


def shown_separator(separator: str) -> str:
    """A separator in a sentence."""
    return NAMES.get(separator, repr(separator))
