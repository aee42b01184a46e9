"""Prompts, labels and errors are data: what they turn into in a page, a table or a terminal."""

import html
import re

NONE = "\N{EN DASH}"  # where there is no value
MINUS = "\N{MINUS SIGN}"


def visible(text: str) -> str:
    r"""A text on one line, as Python would write it between quotes.

    Line breaks, control characters and those that turn the direction of writing become escapes.

    >>> visible("a\n\u202eb")
    'a\\n\\u202eb'
    """
    return "".join(c if c.isprintable() and c != "\\" else _escape(c) for c in text)


def quoted(text: str) -> str:
    """The same between quotes, so that spaces at its ends are seen."""
    return f'"{visible(text)}"'


def shorten(text: str, length: int) -> str:
    """At most so many characters, with an ellipsis in place of the rest."""
    return text if len(text) <= length else text[: length - 1] + "…"


def page(text: str) -> str:
    """For HTML, also inside an attribute."""
    return html.escape(visible(text))


def markdown(text: str) -> str:
    r"""For a cell of a Markdown table.

    >>> markdown("a|b *c*")
    'a\\|b \\*c\\*'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|~$!&])", r"\\\1", visible(text))


def code(text: str) -> str:
    """For a cell of a Markdown table, between backticks that the text cannot break."""
    shown = quoted(text).replace("|", "\\|")  # a table's row is split before code is read
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}{shown}{fence}"


def cell(text: str) -> str:
    """For a cell of a CSV file: what a spreadsheet would take for a formula is made a text."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip()[:1] in ("=", "+", "-", "@") else shown


def _escape(character: str) -> str:
    return repr(character)[1:-1]
