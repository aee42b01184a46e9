"""Where text and prompt sit: a string over the data's columns with one `{prompt}`.

A *piece* is the whole string on one side of `{prompt}` with its columns filled in, tokenized once;
pieces never merge across the prompt's border. The model answers after the template's end.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.batch import Example

PROMPT = "prompt"


class Template:
    """Turns rows into token pieces around the prompt.

    Args:
        text: For example `"{prompt} {text} It was"` (prompt first) or `"{text}{prompt}"` (last).
        lm: Gives the tokenizer.

    Raises:
        PromptError: If `{prompt}` is not there exactly once, follows white space, or no column is
            named.
    """

    def __init__(self, text: str, lm: Backbone) -> None:
        self.text, self._lm = text, lm
        before, after = _split(text)
        self._before, self._after = _parts(before), _parts(after)
        self.columns = tuple(dict.fromkeys(_fields(before) + _fields(after)))
        self.shared_before = not _fields(before)
        if not self.columns:
            raise PromptError(
                f"Template {text!r} names no column of the data; add one, e.g. {{text}}."
            )

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def encode(
        self, row: Mapping[str, Any], max_tokens: int | None = None, truncate: str | None = None
    ) -> Example:
        """Fill in one row, cutting one column from its end where the pieces are too long.

        Args:
            row: Has every column of the template.
            max_tokens: Most tokens of both pieces together, BOS included, the prompt not.
            truncate: The column to cut; by default the longest.

        Raises:
            PromptError: If a column is missing, or cutting the whole one is not enough.
        """
        if absent := [column for column in self.columns if column not in row]:
            raise PromptError(f"A row has no {absent[0]!r}, which the template names; add it.")
        values = {column: str(row[column]) for column in self.columns}
        column = truncate or max(self.columns, key=lambda name: len(values[name]))
        cut = False
        while True:
            before, after = _filled(self._before, values), _filled(self._after, values)
            before_ids = self._lm.prefix_ids + (self._lm.encode(before) if before else [])
            after_ids = self._lm.encode(after) if after else []
            excess = len(before_ids) + len(after_ids) - max_tokens if max_tokens is not None else 0
            if excess <= 0:
                return Example(before, after, before_ids, after_ids, cut)
            spans = self._lm.offsets(values[column])
            if len(spans) <= excess:
                raise PromptError(
                    f"A row needs {excess} tokens fewer to fit in {max_tokens}, but its column "
                    f"{column!r} has only {len(spans)}; raise --data.max_tokens, shorten the "
                    "prompt, or name a longer column with --data.truncate."
                )
            keep = len(spans) - excess
            # One character can be several tokens of one span: then it goes whole.
            end = min(spans[keep - 1][1], spans[keep][0])
            values[column] = values[column][:end]
            cut = True

    def paste(self, prompt_text: str, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Token ids of whole strings with the prompt's text pasted in, as a user would do it.

        Tokens may merge across the prompt's border, and the prompt's own text may tokenize anew,
        even into tokens that the model has no row for.
        """
        strings = [before + prompt_text + after for before, after in texts]
        # All at once: one call a string takes twice as long.
        return [self._lm.prefix_ids + ids for ids in self._lm.tokenize(strings)]


def _split(text: str) -> tuple[str, str]:
    """The format strings before and after `{prompt}`."""
    try:
        fields = _fields(text)
    except ValueError as error:
        raise PromptError(f"Template {text!r} is not a format string ({error}).") from error
    marker = "{" + PROMPT + "}"
    if fields.count(PROMPT) != 1 or marker not in text:
        raise PromptError(
            f"Template {text!r} has {fields.count(PROMPT)} {marker}, not one; write for example "
            "'{prompt} {text} It was'."
        )
    if bad := next((name for name in fields if not _is_column(name)), None):
        raise PromptError(
            f"Template {text!r} names {bad!r}, which is no column name; write names of columns in "
            "braces, and {{ and }} for braces of the text."
        )
    before, after = text.split(marker)
    if before[-1:].isspace():
        raise PromptError(
            f"Template {text!r} has white space before {marker}, which would be a token of its own "
            f"before tokens that carry their space; write {before.rstrip() + marker + after!r}."
        )
    return before, after


def _is_column(name: str) -> bool:
    """Whether it can name a column: any text but a number, without what has a meaning in braces."""
    return name == name.strip() != "" and not name.isdecimal() and not set(name) & set("[]{}")


def _fields(text: str) -> list[str]:
    return [name for _, name in _parts(text) if name is not None]


def _parts(text: str) -> list[tuple[str, str | None]]:
    """Pieces of a text, each with the column that follows it, if one does."""
    parsed = list(string.Formatter().parse(text))
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise ValueError("format specifications are not supported")
    return [(piece, name) for piece, name, _, _ in parsed]


def _filled(parts: Sequence[tuple[str, str | None]], values: Mapping[str, str]) -> str:
    """The text with its columns filled in; unlike `str.format`, names with dots are only names."""
    return "".join(piece + ("" if name is None else values[name]) for piece, name in parts)
