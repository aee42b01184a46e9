"""Where a person reads: results on the standard output, the rest on the error output."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from lightning_prompts.files.escaping import one_line, printable
from lightning_prompts.files.text import shorten_middle

LONGEST = 2000  # characters of a message, which may quote a text of any length


class InertConsole(Console):
    """Shows control characters of what is printed as escapes; its own styles stay as they are."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of what is printed, their text made inert."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else printable(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)


console = InertConsole(highlight=False)
notices = InertConsole(stderr=True, highlight=False)


def fail(message: str) -> None:
    """Print a mistake on the error output, on one line."""
    notices.print(Text(shorten_middle(one_line(message), LONGEST)), style="red", soft_wrap=True)


def notice(message: str) -> None:
    """Print a line of what is going on, apart from the results."""
    notices.print(Text(shorten_middle(printable(message), LONGEST)), style="dim", soft_wrap=True)
