"""A report on a terminal: its tables, what they say, and where its page is."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lightning_prompts.files.console import console
from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import short_path
from lightning_prompts.report.tables import Table as Content


def show(tables: Iterable[Content], sentences: Iterable[str], page: Path) -> None:
    """Print tables below their titles, then sentences, and where the page is."""
    for content in tables:
        console.print(Text(content.title, "bold"), soft_wrap=True)
        console.print(drawn(content))
    for sentence in sentences:
        console.print(Text(visible(sentence)), soft_wrap=True)
    console.print(Text(f"Open in a browser: {short_path(page)}"), soft_wrap=True)


def drawn(content: Content) -> Table:
    """A table for the terminal; its second text and further ones may take several lines."""
    found = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, head in enumerate(content.heads):
        look: Any = {"justify": "left" if i < content.texts else "right"}
        if not 0 < i < content.texts:
            look |= {"no_wrap": True, "overflow": "ellipsis"}
        found.add_column(head, **look)
    for i, row in enumerate(content.rows):
        found.add_row(
            *(Text(visible(cell)) for cell in row), style="bold" if i in content.strong else None
        )
    return found
