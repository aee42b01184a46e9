"""Where text and prompt sit: a string over the data's columns with one `{prompt}`.

A *piece* is the whole string on one side of `{prompt}` with its columns filled in, tokenized once;
pieces never merge across the prompt's border. The model answers after the template's end.
"""

import hashlib
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError

if TYPE_CHECKING:
    from lightning_prompts.lm.frozen import FrozenLM

PROMPT = "prompt"


class Example(NamedTuple):
    """One row of data in its template: the two pieces as text and as token ids."""

    before: str
    after: str
    before_ids: list[int]
    after_ids: list[int]
    cut: bool


class Batch(TypedDict):
    """B examples as token pieces; ids are right-padded with 0.

    Keys:
        before_ids, before_lengths: [B, T0], [B] The piece before the prompt, BOS included.
        after_ids, after_lengths: [B, T1], [B] The piece after the prompt.
        labels: [B] Class indices, -1 where unlabelled.
        rows: [B] Index of the row in its split, from 0.
        borrowed: Whether the rows stand in for a process that has none, and count for nothing.
        texts: The two pieces as text, for B rows.
        shared_before: Whether `before_ids` is the same for all rows.
        before_sizes: `before_lengths` where the host can read it.
        num_tokens: Tokens of the longest row, both pieces together.
        min_after: Tokens of the shortest piece after the prompt.
        num_real_tokens: Tokens of all rows, padding left out.
    """

    before_ids: Tensor
    before_lengths: Tensor
    after_ids: Tensor
    after_lengths: Tensor
    labels: Tensor
    rows: Tensor
    borrowed: bool
    texts: list[tuple[str, str]]
    shared_before: bool
    before_sizes: list[int]
    num_tokens: int
    min_after: int
    num_real_tokens: int


class Template:
    """Turns rows into token pieces around the prompt.

    Args:
        text: For example `"{prompt} {text} It was"` (prompt first) or `"{text}{prompt}"` (last).
        lm: Gives the tokenizer.

    Raises:
        PromptError: If `{prompt}` is not there exactly once, follows white space, or no column is
            named.
    """

    def __init__(self, text: str, lm: "FrozenLM") -> None:
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
            PromptError: If cutting the whole column is not enough.
        """
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


def collate(
    examples: Sequence[Example],
    labels: Sequence[int],
    rows: Sequence[int],
    borrowed: bool = False,
) -> Batch:
    """Pad B examples into a batch."""
    given = {
        "labels": torch.tensor(labels, dtype=torch.long),
        "rows": torch.tensor(rows, dtype=torch.long),
        "borrowed": borrowed,
        "texts": [(example.before, example.after) for example in examples],
    }
    pieces = _pieces([e.before_ids for e in examples], [e.after_ids for e in examples])
    return cast(Batch, {**given, **pieces})


def whole_batch(token_rows: Sequence[list[int]], like: Batch) -> Batch:
    """Rows of token ids as a batch for an empty prompt, what they share standing before it.

    What stands before a prompt can be encoded once for many rows or many passes; any division of a
    row gives the same numbers. Where the rows of `like` differ before its prompt, a given row keeps
    what it begins with of its own text there, so that what was remembered of the text serves again.
    Else, or where that saves nothing, it is the longest beginning that all rows have in common.

    Args:
        token_rows: B rows, each the whole input of the model, of one token at least.
        like: The batch that they stand for: its labels, rows, texts and device.

    Returns:
        A batch whose pieces after the prompt have at least one token each.
    """
    before = _beginnings(token_rows, like)
    after = [row[len(start) :] for row, start in zip(token_rows, before, strict=True)]
    whole = cast(Batch, {**like, **_pieces(before, after)})
    return on_device(whole, like["labels"].device)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""
    # To others than CUDA such a copy may be read before it is there.
    waits_not = device.type == "cuda"
    moved = {
        key: value.to(device, non_blocking=waits_not) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }
    return cast(Batch, moved)


def unpadded(ids: Tensor, lengths: Tensor) -> list[list[int]]:
    """Padded ids [B, T] as rows of `lengths` [B] tokens; waits for their device."""
    return [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]


def batch_digest(batch: Batch, kind: str = "") -> bytes:
    """Names a batch by its token ids, padding and all; `kind` tells uses of equal ones apart."""
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    tensors = (
        batch["before_ids"],
        batch["before_lengths"],
        batch["after_ids"],
        batch["after_lengths"],
    )
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.digest()


def piece_order(batch: Batch, num_prompt: int) -> tuple[Tensor, Tensor]:
    """Order that closes the gaps of `[before | prompt | after]`, whose pieces are padded.

    Args:
        batch: B examples, pieces of T0 and T1 tokens.
        num_prompt: P.

    Returns:
        order: [B, T] Index into the padded pieces, T the longest example's tokens; past an
            example's end, any index.
        lengths: [B] Tokens of each example.
    """
    before, after = batch["before_lengths"][:, None], batch["after_lengths"]
    num_before, num_after = batch["before_ids"].shape[1], batch["after_ids"].shape[1]
    total = num_before + num_prompt + num_after
    longest = batch["num_tokens"] + num_prompt
    slots = torch.arange(longest, device=after.device)[None]  # (1, T)
    order = torch.where(slots < before, slots, slots + (num_before - before))
    return order.clamp(max=total - 1), before[:, 0] + num_prompt + after


def _beginnings(token_rows: Sequence[list[int]], like: Batch) -> list[list[int]]:
    """What of each row can stand before an empty prompt, see `whole_batch`."""
    if not like["shared_before"]:
        own = unpadded(like["before_ids"], like["before_lengths"])
        # Tokens may have merged over the border, so the last of a text can differ.
        kept = [row[: _common(row[:-1], text)] for row, text in zip(token_rows, own, strict=True)]
        left = max(len(row) - len(start) for row, start in zip(token_rows, kept, strict=True))
        if left < max(map(len, token_rows)):
            return kept
    # In dictionary order all rows lie between these two, and so begin as they do.
    first, last = min(token_rows), max(token_rows)
    shared = min(_common(first, last), min(map(len, token_rows)) - 1)
    return [first[:shared]] * len(token_rows)


def _common(one: list[int], other: list[int]) -> int:
    """Length of the beginning that two rows share."""
    most = min(len(one), len(other))
    return next((i for i in range(most) if one[i] != other[i]), most)


def _pieces(before: Sequence[list[int]], after: Sequence[list[int]]) -> dict[str, Any]:
    """Token ids of B rows before and after the prompt as those keys of a batch they determine."""
    before_ids, before_lengths = _pad(before)
    after_ids, after_lengths = _pad(after)
    totals = [len(left) + len(right) for left, right in zip(before, after, strict=True)]
    return {
        "before_ids": before_ids,
        "before_lengths": before_lengths,
        "after_ids": after_ids,
        "after_lengths": after_lengths,
        "shared_before": all(row == before[0] for row in before),
        "before_sizes": [len(row) for row in before],
        "num_tokens": max(totals),
        "min_after": min(map(len, after)),
        "num_real_tokens": sum(totals),
    }


def _pad(token_rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in token_rows], dtype=torch.long)
    padded = torch.zeros(len(token_rows), int(lengths.max()), dtype=torch.long)
    for row, ids in zip(padded, token_rows, strict=True):
        row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
    return padded, lengths


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
