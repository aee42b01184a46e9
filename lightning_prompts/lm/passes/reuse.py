"""Encoding once what many rows share: a prompt that comes first, texts that come first.

Attention is causal, so keys and values do not depend on what follows them. Every function here is
exact: it gives the hidden states that whole sequences would give, one a (prompt, example) pair, or
with a tree of answers one at each of its N places.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from lightning_prompts.lm.answers import AnswerTree
from lightning_prompts.lm.backbone import Backbone, Layers, whole_cache
from lightning_prompts.lm.batch import Batch, piece_order
from lightning_prompts.lm.passes.masks import as_mask, behind_texts, takes_block_masks
from lightning_prompts.lm.passes.prompt_tree import prompt_tree
from lightning_prompts.lm.passes.reading_on import read_on
from lightning_prompts.lm.passes.text_cache import TextStates, text_mask

if TYPE_CHECKING:
    from transformers import DynamicCache


# Rows of many prompts go through the model in parts: 8,192 tokens have 400 MB of keys and values in
# a float32 model of 30 layers with 3 key heads of 64, and fill any device.
TOKENS_AT_ONCE = 2**13
# Prompts behind one text see one another only to be masked; past some hundred tokens that costs:
# 64 edits of 7 tokens took 1.82 s in blocks of 96, 1.68 in blocks of 256, 1.89 in blocks of 512.
BLOCK_TOKENS = 256


@torch.no_grad()
def encode_texts(lm: Backbone, batch: Batch) -> TextStates:
    """Keys and values of the pieces before the prompt; no gradient passes through them."""
    ids, lengths, mask = batch["before_ids"], batch["before_lengths"], text_mask(batch)
    slots = torch.arange(ids.shape[1], device=ids.device)[None] - (ids.shape[1] - lengths)[:, None]
    # Spelt out: of the plain mask transformers asks whether it is all ones, and waits.
    seen = (mask[:, None, None] > 0) & (slots[0, :, None] >= slots[0])
    cache = lm.body(
        input_ids=ids.gather(1, slots.clamp(min=0)),
        attention_mask=as_mask(lm, seen) if takes_block_masks(lm) else mask,
        position_ids=slots.clamp(min=0),
        past_key_values=whole_cache(),
        use_cache=True,
    ).past_key_values
    return TextStates(_layers(cache), mask)


def concatenated(
    lm: Backbone, prompts: Tensor, batch: Batch, tree: AnswerTree | None = None
) -> Tensor:
    """The plain way: one right-padded sequence a pair. Causality makes masks needless.

    Args:
        lm: The frozen language model.
        prompts: [K, P, H]
        batch: B examples.
        tree: Beginnings of answers that are read behind the rows.

    Returns:
        [K, B, H] Hidden states at the answer, or [K, B, N, H].
    """
    order, lengths = piece_order(batch, prompts.shape[1])  # (B, T), (B,)
    before, after = lm.embed(batch["before_ids"]), lm.embed(batch["after_ids"])
    states = []
    for part in _parts(prompts, order.numel()):
        shape = (len(part), len(lengths), -1, -1)
        pieces = torch.cat(
            [
                before.expand(shape),
                part.to(before.dtype)[:, None].expand(shape),
                after.expand(shape),
            ],
            dim=2,
        ).flatten(0, 1)
        slots = order.repeat(len(part), 1)[..., None].expand(-1, -1, lm.hidden_size)
        # Where gradients are wanted, keys and values are held anyway.
        rows, grad = pieces.gather(1, slots), torch.is_grad_enabled()
        ends, cache = lengths.repeat(len(part)), None if tree is None else whole_cache()
        if cache is not None:
            hidden = lm.body(inputs_embeds=rows, past_key_values=cache, use_cache=True)[0]
        else:
            hidden = lm.states(rows) if grad else lm.body(inputs_embeds=rows, use_cache=False)[0]
        hidden = pick(hidden, _read_at(batch, ends)).unflatten(0, shape[:2])
        if tree is not None:
            seen = torch.arange(order.shape[1], device=ends.device) < ends[:, None]
            hidden = read_on(lm, tree, hidden, cache, seen[:, None], ends[:, None])
        states.append(hidden)
    return _joined(states)


def prompts_first(
    lm: Backbone, prompts: Tensor, batch: Batch, tree: AnswerTree | None = None
) -> Tensor:
    """[before | prompt] once a prompt, its keys and values expanded to the examples.

    Args:
        lm: The frozen language model.
        prompts: [K, P, H]; gradients flow back into them.
        batch: B examples with the same tokens before the prompt.
        tree: Beginnings of answers that are read behind the rows.

    Returns:
        [K, B, H] Hidden states at the answer, or [K, B, N, H].
    """
    num_examples, num_after = batch["after_ids"].shape
    # Equal rows have equal lengths, so a shared `before` carries no padding.
    before, after = lm.embed(batch["before_ids"][:1]), lm.embed(batch["after_ids"])
    num_prefix = before.shape[1] + prompts.shape[1]
    positions = torch.arange(num_after, device=prompts.device) + num_prefix
    positions = positions.clamp(max=lm.max_positions - 1)  # padding may lie past it
    states = []
    for part in _parts(prompts, num_examples * (num_prefix + num_after)):
        prefix = torch.cat(
            [before.expand(len(part), -1, -1), part.to(before.dtype)], dim=1
        )  # (K, n, H)
        cache = lm.body(
            inputs_embeds=prefix, past_key_values=whole_cache(), use_cache=True
        ).past_key_values
        cache = repeat_cache(cache, num_examples)
        hidden = lm.body(
            inputs_embeds=after.repeat(len(part), 1, 1),
            position_ids=positions.expand(len(part) * num_examples, -1),
            past_key_values=cache,
            use_cache=True,
        )[0]
        ends = batch["after_lengths"].repeat(len(part))
        hidden = pick(hidden, _read_at(batch, ends)).unflatten(0, (len(part), num_examples))
        if tree is not None:
            depths = (ends + num_prefix)[:, None]
            seen = torch.arange(num_prefix + num_after, device=ends.device) < depths
            hidden = read_on(lm, tree, hidden, cache, seen[:, None], depths)
        states.append(hidden)
    return _joined(states)


def last_token(batch: Batch, texts: TextStates) -> tuple[Batch, TextStates]:
    """The same rows with their last token behind the text: what is read there is not kept.

    Args:
        batch: Rows of an empty prompt, each with a token before it.
        texts: Of this batch.
    """
    lengths = batch["before_lengths"]
    last = batch["before_ids"].gather(1, lengths[:, None] - 1)
    own = {
        "before_lengths": lengths - 1,
        "before_sizes": [size - 1 for size in batch["before_sizes"]],
        "after_ids": torch.cat([last, batch["after_ids"]], dim=1),
        "after_lengths": batch["after_lengths"] + 1,
        "min_after": batch["min_after"] + 1,
    }
    layers = [(keys[..., :-1, :], values[..., :-1, :]) for keys, values in texts.layers]
    return cast(Batch, {**batch, **own}), TextStates(layers, texts.mask[:, :-1])


def texts_first(
    lm: Backbone,
    prompts: Tensor,
    batch: Batch,
    texts: TextStates,
    tree: AnswerTree | None = None,
) -> Tensor:
    """Prompts behind texts whose keys and values are constants.

    All prompts stand behind one copy of each text, as branches that do not see one another. Where
    they are given as token ids, what begins alike is one branch until it differs.

    Args:
        lm: The frozen language model.
        prompts: [K, P, H], gradients flow back into them; or [K, P] token ids.
        batch: B examples.
        texts: Of this batch.
        tree: Beginnings of answers that are read behind the rows.

    Returns:
        [K, B, H] Hidden states at the answer, or [K, B, N, H].
    """
    after = lm.embed(batch["after_ids"])  # (B, T1, H)
    tokens = prompts.shape[1] + after.shape[1] + (0 if tree is None else tree.num_tokens)
    most = max(1, BLOCK_TOKENS // max(1, tokens)) if takes_block_masks(lm) else 1
    return _joined(
        [
            (_one_branch if len(part) == 1 else _branches)(lm, part, after, batch, texts, tree)
            for part in _parts(prompts, len(after) * tokens, most)
        ]
    )


def _branches(
    lm: Backbone,
    prompts: Tensor,
    after: Tensor,
    batch: Batch,
    texts: TextStates,
    answers: AnswerTree | None,
) -> Tensor:
    """[K, B, H] or [K, B, N, H] of all prompts behind one copy of each text."""
    num_after = after.shape[1]
    tree = prompt_tree(lm, prompts, num_after)
    nodes = tree.embeds.to(after.dtype).expand(len(after), -1, -1)
    depths = batch["before_lengths"][:, None] + tree.depths
    cache = whole_cache(texts.layers)
    hidden = lm.body(
        inputs_embeds=torch.cat([nodes, after.repeat(1, len(prompts), 1)], dim=1),
        attention_mask=behind_texts(lm, texts.mask, tree.seen),
        position_ids=depths.clamp(max=lm.max_positions - 1),  # padding may lie past it
        past_key_values=cache,
        use_cache=True,
    )[0]
    if num_after:
        steps = num_after * torch.arange(len(prompts), device=after.device)[:, None]
        slots = nodes.shape[1] + steps + batch["after_lengths"] - 1  # (K, B)
        slots = torch.where(batch["after_lengths"] > 0, slots, tree.leaves[:, None])
    else:
        slots = tree.leaves[:, None].expand(-1, len(after))
    hidden = hidden[torch.arange(len(after), device=after.device), slots]
    if answers is None:
        return hidden
    # What the last token of each row sees: its text, its prompt, and what it has behind that.
    path = tree.seen[slots.T]  # (B, K, nodes)
    seen = torch.cat([texts.mask.bool()[:, None].expand(-1, len(prompts), -1), path], 2)
    ends = (batch["before_lengths"] + prompts.shape[1] + batch["after_lengths"])[:, None]
    return read_on(lm, answers, hidden, cache, seen, ends.expand(-1, len(prompts)))


def _one_branch(
    lm: Backbone,
    prompt: Tensor,
    after: Tensor,
    batch: Batch,
    texts: TextStates,
    answers: AnswerTree | None,
) -> Tensor:
    """[1, B, H] or [1, B, N, H] of one prompt behind each text: no wait for a device."""
    embeds = prompt if prompt.ndim == 3 else lm.embed(prompt)  # (1, P, H)
    embeds = torch.cat([embeds.to(after.dtype).expand(len(after), -1, -1), after], dim=1)
    num_prompt, num_nodes = prompt.shape[1], embeds.shape[1]
    depths = batch["before_lengths"][:, None] + torch.arange(num_nodes, device=after.device)
    ones = texts.mask.new_ones(len(after), num_nodes)
    if takes_block_masks(lm):  # spelt out for the same reason as in `encode_texts`
        mask = behind_texts(lm, texts.mask, ones.new_ones(num_nodes, num_nodes).tril().bool())
    else:
        mask = torch.cat([texts.mask, ones], dim=1)
    cache = whole_cache(texts.layers)
    hidden = lm.body(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=depths.clamp(max=lm.max_positions - 1),  # padding may lie past it
        past_key_values=cache,
        use_cache=True,
    )[0]
    hidden = pick(hidden, _read_at(batch, num_prompt + batch["after_lengths"]))[None]
    if answers is None:
        return hidden
    ends = num_prompt + batch["after_lengths"][:, None]
    own = torch.arange(num_nodes, device=ends.device) < ends
    seen = torch.cat([texts.mask.bool(), own], 1)[:, None]
    return read_on(lm, answers, hidden, cache, seen, batch["before_lengths"][:, None] + ends)


def repeat_cache(cache: Any, copies: int) -> "DynamicCache":
    """A cache of K rows as one of K * copies, each row repeated; views where K = 1."""

    def repeat(states: Tensor) -> Tensor:
        return states[:, None].expand(-1, copies, -1, -1, -1).flatten(0, 1)

    return whole_cache([(repeat(keys), repeat(values)) for keys, values in _layers(cache)])


def _layers(cache: Any) -> Layers:
    """Keys and values of each layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def _parts(prompts: Tensor, tokens_a_prompt: int, most: int | None = None) -> Iterator[Tensor]:
    """The prompts, as many at once as fit; a single one is never divided."""
    fit = max(1, TOKENS_AT_ONCE // max(1, tokens_a_prompt))
    yield from prompts.split(min(fit, most or fit))


def _joined(states: list[Tensor]) -> Tensor:
    return states[0] if len(states) == 1 else torch.cat(states)


def _read_at(batch: Batch, ends: Tensor) -> Tensor:
    """[K B] or [K B, R] Positions at which rows of K prompts are read, that end at `ends` [K B]."""
    back = batch.get("back")
    if back is None:
        return ends - 1
    return ends[:, None] - 1 - back.repeat(len(ends) // len(back), 1)


def pick(hidden: Tensor, positions: Tensor) -> Tensor:
    """[B, T, H] and [B] to [B, H], or [B, R] to [B, R, H]: one position a row, or several."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows if positions.ndim == 1 else rows[:, None], positions]
