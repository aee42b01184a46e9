"""Texts that would do harm where they are shown as they are."""

# Of each: what no output may hold.
ESCAPE, CSI, NUL, BELL, RIGHT_TO_LEFT = "\x1b", "\x9b", "\0", "\a", "\u202e"
CONTROLS = (ESCAPE, CSI, NUL, BELL, RIGHT_TO_LEFT, "\x7f", "\r")
WORD = 100_000  # characters of one word

TEXTS = {
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "attribute": '" onmouseover="alert(1)" x=\'',
    "ANSI": f"{ESCAPE}[31mred{ESCAPE}[0m{ESCAPE}]0;title{BELL}{ESCAPE}[2J{CSI}1A",
    "NUL": f"a{NUL}b",
    "bidi": f"a{RIGHT_TO_LEFT}b\u2066c\u2069",
    "Markdown": "`` | **a** [b](javascript:alert(1)) ![c](http://127.0.0.1/c) | ```",
    "rich": "[red]a[/red] [link=http://127.0.0.1]b[/link] [/]",
    "lines": "a\rb\nc\td\u2028e",
    "formula": '=HYPERLINK("http://127.0.0.1")',
}
ALL = " ".join(TEXTS.values())


def controls_in(text: str, allowed: str = "\n") -> list[str]:
    """Control characters of a shown text that are not inert."""
    return sorted({c for c in CONTROLS if c in text and c not in allowed})
