"""Text that others wrote, made safe to show: a prompt, a label, a row, a file's name.

Terminals obey escape codes, pages obey tags, and some characters turn the direction of what
follows. Shown texts are data, so all of these come out as escapes.
"""

import json


def visible(text: str) -> str:
    r"""A text on one line, as Python would write it between quotes.

    Line breaks, control characters and those that turn the direction of writing become escapes.

    >>> visible("a\n\u202eb")
    'a\\n\\u202eb'
    """
    return "".join(c if c.isprintable() and c != "\\" else _escape(c) for c in text)


def one_line(text: str) -> str:
    r"""A message on one line: white space is one space, other control characters are escapes.

    >>> one_line("a\n  b \x1b[31mc\\d")
    'a b \\x1b[31mc\\d'
    """
    return "".join(c if c.isprintable() else _escape(c) for c in " ".join(text.split()))


def printable(text: str) -> str:
    """The text with its line breaks, other control characters as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def json_text(text: str) -> str:
    r"""JSON whose control characters, beside line breaks, are JSON's own escapes: the same value.

    >>> print(json_text('"a\u202eb"'))
    "a\u202eb"
    """
    return "".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in text)


def _json_escape(character: str) -> str:
    """`json` writes any character outside ASCII as an escape, in two halves where it must."""
    return json.dumps(character)[1:-1]


def _escape(character: str) -> str:
    return repr(character)[1:-1]
