"""Writes docs/tested.md from the tables of the tests: `python docs/tested.py`."""

import sys
from collections.abc import Iterable
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from tests import pages  # noqa: E402 - from the folder above

PAGE = DOCS / "tested.md"
BEGIN = """\
# What tests run

Which commands and which Python of these pages the tests run, and which not. This page is written
by `python docs/tested.py` from the tables that the tests read, and a test compares the two.

*Parsed*: the real parser takes the command, with the files and classes that it names
(`tests/test_readme.py`). *Run*: on a tiny model with random weights and on a few rows, in place of
those that the command names, and in two steps (`tests/test_pages_run.py`). That shows that it
runs, not what a real model makes of it.

"""


def page() -> str:
    """The page as it should be."""
    return BEGIN + _counts() + _run() + _not_run()


def _counts() -> str:
    """A line for each page that shows a command or Python."""
    head = "| page | commands | of this program, all parsed | run | Python blocks | run |\n"
    lines = [head + "| --- | ---: | ---: | ---: | ---: | ---: |"]
    sums = [0] * 5
    for name, text in pages.PAGES.items():
        commands, blocks = pages.commands(text), len(pages.blocks("python", text))
        parsed = sum(pages.args_of(words) is not None for words in commands)
        run = sum(pages.why_not(words) is None for words in commands)
        counts = [len(commands), parsed, run, blocks, blocks * (name in pages.PYTHON_RUNS)]
        if any(counts):
            lines.append(_line(f"[{name.removeprefix('docs/')}]({_link(name)})", counts))
            sums = [a + b for a, b in zip(sums, counts, strict=True)]
    return "\n".join([*lines, _line("together", sums)]) + "\n\n"


def _line(name: str, counts: Iterable[int]) -> str:
    return f"| {name} | {' | '.join(map(str, counts))} |"


def _link(name: str) -> str:
    return name.removeprefix("docs/") if name.startswith("docs/") else f"../{name}"


def _run() -> str:
    """The commands that run, each once."""
    fast, slow = ([_shown(["lightning-prompts", *a]) for a in of] for of in (pages.FAST, pages.RUN))
    return (
        "## Run\n\nWith `make test`, one after the other, as the README begins:\n\n"
        + _fenced(fast)
        + "With `make test-slow`, each behind a soft and a PEZ run:\n\n"
        + _fenced(slow)
        + "Python: every block of "
        + ", ".join(f"[{name}]({_link(name)})" for name in pages.PYTHON_RUNS)
        + ". The notebook runs with `make test-slow`, on SmolLM2.\n\n"
    )


def _not_run() -> str:
    """The commands that no test runs, by the reason."""
    found: dict[str, list[str]] = {}
    for text in pages.PAGES.values():
        for words in pages.commands(text):
            if why := pages.why_not(words):
                found.setdefault(why, []).append(_shown(words))
    parts = [
        f"**{why[0].upper() + why[1:] if why[0].isalpha() else why}.**\n\n"
        + _fenced(dict.fromkeys(lines)).rstrip("\n")
        + "\n"
        for why, lines in found.items()
    ]
    return "## Not run, and why\n\n" + "\n".join(parts).rstrip("\n") + "\n"


def _shown(words: list[str]) -> str:
    """A command as it is typed; a line of a script as it is."""
    if pages.args_of(words) is None:
        return " ".join(words)
    return " ".join(f"'{word}'" if set(word) & set(" {}[]") else word for word in words)


def _fenced(lines: Iterable[str]) -> str:
    """As a block of text: a block of bash would be a command of this page."""
    return "```text\n" + "\n".join(lines) + "\n```\n\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
