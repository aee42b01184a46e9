"""The package's own natural sentences, which README.md describes: what a text is compared with."""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent

Registers = tuple[tuple[str, ...], ...]
"""Sentences of each register, those that belong together one after another."""


@cache
def registers() -> Registers:
    """All sentences, in a fixed order."""
    return tuple(
        tuple(filter(None, file.read_text(encoding="utf-8").splitlines()))
        for file in sorted(FOLDER.glob("*.txt"))
    )
