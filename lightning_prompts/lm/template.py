"""Where text and prompt sit: a string over the data's columns with one `{prompt}`.

A *piece* is the whole string on one side of `{prompt}` with its columns filled in, tokenized once;
pieces never merge across the prompt's border. The model answers after the template's end. A
conversation becomes such a string by the tokenizer's chat template, once.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.batch import Example
from lightning_prompts.lm.chat import Conversation, Part, render, turns_of, writes_apart

PROMPT = "prompt"


class Template:
    """Turns rows into token pieces around the prompt.

    Args:
        given: For example `"{prompt} {text} It was"` (prompt first) or `"{text}{prompt}"` (last);
            or a conversation, `{"chat": {"system": "{prompt}", "user": "{text}"}}`.
        lm: Gives the tokenizer.

    Attributes:
        text: The string; of a conversation what its chat template wrote.
        prefix_ids: What stands before every text: the BOS of a model that wants one, but where the
            template itself writes it right behind a prompt that comes first (`{prompt}<bos>{text}`,
            as PEFT puts the two).

    Raises:
        PromptError: If `{prompt}` is not there exactly once, follows white space, or no column is
            named; or the model knows no such conversation.
    """

    def __init__(self, given: str | Conversation, lm: Backbone) -> None:
        self.given, self._lm = given, lm
        self.is_chat = not isinstance(given, str)
        self._safe: Callable[[str], str] = str
        if isinstance(given, str):
            parts, self.text = _checked([given], given)[0], given
        else:
            said = turns_of(given)
            contents = _checked([turn["content"] for turn in said], given)
            turns = [(turn["role"], parts) for turn, parts in zip(said, contents, strict=True)]
            parts = render(turns, given.get("variables") or {}, lm)
            self.text = "".join(map(_written, parts))
            self._safe = writes_apart("".join(part.text for part in parts), lm)
        at = next(i for i, part in enumerate(parts) if part.name == PROMPT)
        self._before, self._after = [*parts[:at], Part(parts[at].text)], parts[at + 1 :]
        self._trim_prompt = parts[at].trim
        self.columns = tuple(dict.fromkeys(_columns(self._before) + _columns(self._after)))
        bos = lm.decode(lm.prefix_ids) if lm.prefix_ids else ""
        behind = bool(bos) and self.text.startswith("{" + PROMPT + "}" + bos)
        self._bos_behind = bos if behind else ""
        self.prefix_ids = [] if behind else lm.prefix_ids
        self.shared_before = not _columns(self._before)
        if not self.columns:
            raise PromptError(
                f"Template {given!r} names no column of the data; add one, e.g. {{text}}."
            )

    def __repr__(self) -> str:
        return f"Template({self.given!r})"

    @property
    def trims(self) -> dict[str, Callable[[str], str]]:
        """By name, what columns and prompt pass through where a chat template trims them."""
        parts = [*self._before, *self._after, Part("", PROMPT, self._trim_prompt)]
        return {p.name: p.trim for p in parts if p.name is not None and p.trim is not str}

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
        values = {column: self._safe(str(row[column])) for column in self.columns}
        column = truncate or max(self.columns, key=lambda name: len(values[name]))
        cut = False
        while True:
            before, after = _filled(self._before, values), _filled(self._after, values)
            before_ids = self.prefix_ids + (self._lm.encode(before) if before else [])
            after_ids = self._after_ids(after)
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
        prompt_text = self._trim_prompt(prompt_text)
        strings = [before + prompt_text + after for before, after in texts]
        # All at once: one call a string takes twice as long.
        return [self.prefix_ids + ids for ids in self._lm.tokenize(strings)]

    def _after_ids(self, after: str) -> list[int]:
        """Token ids of the piece after the prompt; a BOS there is one, as before any other text."""
        text = after.removeprefix(self._bos_behind)
        ids = self._lm.encode(text) if text else []
        return [*self._lm.prefix_ids, *ids] if self._bos_behind else ids


def _checked(texts: Sequence[str], template: object) -> list[list[Part]]:
    """The parts of format strings that have one `{prompt}` together.

    Args:
        texts: The strings.
        template: They are its, for messages.
    """
    try:
        found = [_parts(text) for text in texts]
    except ValueError as error:
        raise PromptError(f"Template {template!r} is not a format string ({error}).") from error
    names = [part.name for parts in found for part in parts if part.name is not None]
    marker = "{" + PROMPT + "}"
    if names.count(PROMPT) != 1:
        raise PromptError(
            f"Template {template!r} has {names.count(PROMPT)} {marker}, not one; write for example "
            "'{prompt} {text} It was'."
        )
    if bad := next((name for name in names if not _is_column(name)), None):
        raise PromptError(
            f"Template {template!r} names {bad!r}, which is no column name; write names of columns "
            "in braces, and {{ and }} for braces of the text."
        )
    for parts in found:
        if any(part.name == PROMPT and part.text[-1:].isspace() for part in parts):
            shorter = [p._replace(text=p.text.rstrip()) if p.name == PROMPT else p for p in parts]
            raise PromptError(
                f"Template {template!r} has white space before {marker}, which would be a token of "
                "its own before tokens that carry their space; write "
                f"{''.join(map(_written, shorter))!r}."
            )
    return found


def _is_column(name: str) -> bool:
    """Whether it can name a column: any text but a number, without what has a meaning in braces."""
    return name == name.strip() != "" and not name.isdecimal() and not set(name) & set("[]{}")


def _columns(parts: Sequence[Part]) -> list[str]:
    return [part.name for part in parts if part.name is not None]


def _parts(text: str) -> list[Part]:
    """Pieces of a text, each with the column that follows it, if one does."""
    parsed = list(string.Formatter().parse(text))
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise ValueError("format specifications are not supported")
    return [Part(piece, name) for piece, name, _, _ in parsed]


def _written(part: Part) -> str:
    """A part as a format string has it."""
    text = part.text.replace("{", "{{").replace("}", "}}")
    return text if part.name is None else f"{text}{{{part.name}}}"


def _filled(parts: Sequence[Part], values: Mapping[str, str]) -> str:
    """The text with its columns filled in; unlike `str.format`, names with dots are only names."""
    return "".join(
        part.text + ("" if part.name is None else part.trim(values[part.name])) for part in parts
    )
