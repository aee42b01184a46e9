"""Rows of data as token pieces, and B of them as one batch."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import torch
from torch import Tensor


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
        back: [B, R] Where rows are read at several places: tokens from each of these to the last.
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
    back: NotRequired[Tensor]


def collate(
    examples: Sequence[Example], labels: Sequence[int], rows: Sequence[int], borrowed: bool = False
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


def picked(batch: Batch, places: Sequence[int]) -> Batch:
    """The rows at some places, in their order; numbers of the whole batch are left as they are."""
    index = torch.tensor(places, device=batch["labels"].device)
    found: dict[str, Any] = dict(batch)
    for key, value in batch.items():
        if isinstance(value, Tensor):
            found[key] = value[index]
        elif isinstance(value, list):
            found[key] = [value[i] for i in places]
    return cast(Batch, found)


def take(batch: Batch, places: Sequence[int]) -> Batch:
    """Some rows of a batch, without the padding that only the others needed."""
    taken = picked(batch, places)
    before, after = taken["before_lengths"], taken["after_lengths"]
    totals = before + after
    return {
        **taken,
        "before_ids": taken["before_ids"][:, : int(before.max())],
        "after_ids": taken["after_ids"][:, : int(after.max())],
        "num_tokens": int(totals.max()),
        "min_after": int(after.min()),
        "num_real_tokens": int(totals.sum()),
    }


def joined_batch(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches as one, on their device; waits for it."""
    first, pieces = batches[0], []
    for name in ("before", "after"):
        found = [unpadded(b[f"{name}_ids"], b[f"{name}_lengths"]) for b in batches]  # type: ignore[literal-required]
        pieces.append([row for rows in found for row in rows])
    given = {
        "labels": torch.cat([batch["labels"] for batch in batches]),
        "rows": torch.cat([batch["rows"] for batch in batches]),
        "borrowed": first["borrowed"],
        "texts": [texts for batch in batches for texts in batch["texts"]],
    }
    return on_device(cast(Batch, {**given, **_pieces(*pieces)}), first["labels"].device)


def unpadded(ids: Tensor, lengths: Tensor) -> list[list[int]]:
    """Padded ids [B, T] as rows of `lengths` [B] tokens; waits for their device."""
    return [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]


def batch_digest(batch: Batch, kind: str = "") -> bytes:
    """Names a batch by its token ids, padding and all; `kind` tells uses of equal ones apart."""
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    before, after = batch["before_ids"], batch["after_ids"]
    for tensor in (before, batch["before_lengths"], after, batch["after_lengths"]):
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
