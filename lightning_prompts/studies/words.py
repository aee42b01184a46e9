"""How a mistake in a study's file is said."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_prompts.files.errors import PromptError


def refuse_unknown(where: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    """Stop at a key that means nothing.

    Raises:
        PromptError: With the nearest known one.
    """
    for key in content:
        if key not in known:
            raise PromptError(f"{where}.{key}: no such key{nearest(str(key), known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: the nearest known name, or all of them."""
    names = list(known)
    if near := difflib.get_close_matches(name, names, n=1):
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(names)}."
