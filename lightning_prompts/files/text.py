"""Parts of sentences: commands, paths, the name that was meant, texts cut short."""

import difflib
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

PROGRAM = "lightning-prompts"
MANY = 40  # names that are too many to list in one sentence


def command(*words: str | Path) -> str:
    """A command of this program as a shell takes it, whatever its paths hold.

    >>> command("report", Path("my runs"))
    "lightning-prompts report 'my runs'"
    """
    return shlex.join([PROGRAM, *map(str, words)])


def short_path(path: Path) -> Path:
    """The path as a person would write it here."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def looks_like_path(name: str) -> bool:
    """Whether a name can only be a path: what the Hub has is called at most `owner/name`."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that was meant, None where none is like it."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def did_you_mean(name: str, known: Sequence[str], prefix: str = "") -> str:
    """The end of a sentence: the nearest known name, or all of them where they are few.

    >>> did_you_mean("sed", ["seeds", "name"]), did_you_mean("x", ["seeds", "name"])
    ('; did you mean seeds?', '; known: name, seeds.')
    """
    if (near := nearest(name, known)) is not None:
        return f"; did you mean {prefix}{near}?"
    if 0 < len(known) < MANY:
        return f"; known: {', '.join(sorted(set(known)))}."
    return "."


def first_few(names: Iterable[str], most: int, separator: str = ", ", more: str = "") -> str:
    """Names in a sentence, and how many more there are, or what is said of these.

    >>> first_few("abcd", 2), first_few("abcd", 3, "; "), first_few("ab", 2)
    ('a, b and 2 more', 'a; b; c and 1 more', 'a, b')
    """
    listed = list(names)
    left = len(listed) - most
    return separator.join(listed[:most]) + (f" and {more or f'{left} more'}" if left > 0 else "")


def shorten(text: str, length: int) -> str:
    """At most so many characters, with an ellipsis in place of the rest."""
    return text if len(text) <= length else text[: length - 1] + "…"


def shorten_middle(text: str, length: int) -> str:
    """At most so many characters, with an ellipsis in the middle: a mistake's fix stands last.

    >>> shorten_middle("abcdefghij", 7)
    'abc…hij'
    """
    end = (length - 1) // 2
    return text if len(text) <= length else text[: length - 1 - end] + "…" + text[-end:]
