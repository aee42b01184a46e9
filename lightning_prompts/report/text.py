"""Prompts, labels and errors are data: what they turn into in a page, a table or a terminal."""

import re

from lightning_prompts.files.text import shorten, visible

__all__ = ["cell", "code", "markdown", "quoted", "shorten", "visible"]

NONE = "\N{EN DASH}"  # where there is no value
MINUS = "\N{MINUS SIGN}"


def quoted(text: str) -> str:
    """The same between quotes, so that spaces at its ends are seen."""
    return f'"{visible(text)}"'


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
