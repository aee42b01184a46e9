"""Where a person reads: results on the standard output, the rest on the error output."""

from rich.console import Console
from rich.text import Text

from lightning_prompts.inert import one_line, printable, shorten

LONGEST = 2000  # characters of a message, which may quote a text of any length
console = Console(highlight=False)
notices = Console(stderr=True, highlight=False)


def fail(message: str) -> None:
    """Print a mistake on the error output, on one line."""
    notices.print(Text(shorten(one_line(message), LONGEST)), style="red", soft_wrap=True)


def notice(message: str) -> None:
    """Print a line of what is going on, apart from the results."""
    notices.print(Text(shorten(printable(message), LONGEST)), style="dim", soft_wrap=True)
