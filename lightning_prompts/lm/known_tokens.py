"""Which tokens of a tokenizer its model has a row for; the others are no tokens of the model.

A tokenizer to which tokens were added is often saved beside a model that was not resized for them.
"""

import logging
from collections.abc import Sequence
from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import shorten

log = logging.getLogger(__name__)


def find_ends(tokenizer: Any, num_rows: int, label: str) -> tuple[int, int | None]:
    """The ids that stand before a text and after it.

    Models without a BOS use their end-of-text token.

    Args:
        tokenizer: Of the model.
        num_rows: V, of the model's embedding table.
        label: The model's name.

    Returns:
        BOS, and EOS or None.

    Raises:
        PromptError: If the model has a row for neither.
    """
    given = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
    known = [i for i in given if i < num_rows]
    if not known:
        why = "no BOS and no EOS token"
        if given:
            why = f"{tokenizer.decode(given[:1])!r} for them, and the model has no embedding for it"
        raise PromptError(f"The tokenizer of {label} has {why}; set one that the model knows.")
    if known[0] != given[0]:
        log.warning(
            "%s has no embedding for the BOS of its tokenizer, %r; %r stands in for it.",
            *(label, tokenizer.decode(given[:1]), tokenizer.decode(known[:1])),
        )
    eos_id = tokenizer.eos_token_id
    return known[0], eos_id if eos_id in known else None


def find_special(tokenizer: Any, num_rows: int) -> list[int]:
    """Ids of the special tokens that the model has a row for, in order.

    Rows past the tokenizer's last id pad the table to a round size: no text has them.
    """
    added = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
    padding = range(len(tokenizer), num_rows)
    return sorted(i for i in {*tokenizer.all_special_ids, *added, *padding} if i < num_rows)


def refuse_unread(
    tokenizer: Any,
    text: str,
    token_ids: Sequence[int],
    num_rows: int,
    label: str,
    what: str = "The text",
) -> None:
    """Refuse a text with a token that the model cannot read.

    Args:
        tokenizer: Of the model.
        text: For the message.
        token_ids: The text's, by the tokenizer.
        num_rows: V, of the model's embedding table.
        label: The model's name.
        what: What the text is called.

    Raises:
        PromptError: If an id is past the table.
    """
    if max(token_ids, default=0) < num_rows:
        return
    past = next(i for i in token_ids if i >= num_rows)
    raise PromptError(
        f"{what} {shorten(repr(text), 80)} needs the token {tokenizer.decode([past])!r} (id {past} "
        f"of {len(tokenizer)} in the tokenizer), but {label} has embeddings for {num_rows} tokens; "
        "leave it out, or use a model that was resized for its tokenizer and then trained."
    )


def refuse_unread_marks(tokenizer: Any, num_rows: int, name: str) -> None:
    """Refuse a tokenizer that puts a token into every text which the model cannot read.

    Args:
        tokenizer: Of a classifier or an encoder: it pads texts, and may begin and end them.
        num_rows: V, of the model's embedding table.
        name: What the model is called in messages.

    Raises:
        PromptError: If an id is past the table.
    """
    pad_id = tokenizer.pad_token_id
    marks = [*tokenizer("").input_ids, *([] if pad_id is None else [pad_id])]
    if past := [i for i in marks if i >= num_rows]:
        raise PromptError(
            f"{name}: its tokenizer puts {tokenizer.decode(past[:1])!r} (id {past[0]}) into texts, "
            f"but the model has embeddings for {num_rows} tokens; use one that was resized for its "
            "tokenizer and then trained."
        )
