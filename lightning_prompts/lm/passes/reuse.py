"""Encoding once what many rows share: a prompt that comes first, texts that come first.

Attention is causal, so keys and values do not depend on what follows them. Every function here is
exact: it gives the hidden states that whole sequences would give, one a (prompt, example) pair.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lightning_prompts.lm.backbone import Backbone, Layers, whole_cache
from lightning_prompts.lm.batch import Batch, piece_order
from lightning_prompts.lm.kernels import ATTENTION
from lightning_prompts.lm.passes.text_cache import TextStates, text_mask

if TYPE_CHECKING:
    from transformers import DynamicCache


# Rows of many prompts go through the model in parts: 8,192 tokens have 400 MB of keys and values in
# a float32 model of 30 layers with 3 key heads of 64, and fill any device.
TOKENS_AT_ONCE = 2**13
# Prompts behind one text see one another only to be masked; past some hundred tokens that costs:
# 64 edits of 7 tokens took 1.82 s in blocks of 96, 1.68 in blocks of 256, 1.89 in blocks of 512.
BLOCK_TOKENS = 256
# Attention that takes a mask of every query and key.
KNOWN_MASKS = ("sdpa", "eager", ATTENTION)


@torch.no_grad()
def encode_texts(lm: Backbone, batch: Batch) -> TextStates:
    """Keys and values of the pieces before the prompt; no gradient passes through them."""
    ids, lengths, mask = batch["before_ids"], batch["before_lengths"], text_mask(batch)
    slots = torch.arange(ids.shape[1], device=ids.device)[None] - (ids.shape[1] - lengths)[:, None]
    # Spelt out: of the plain mask transformers asks whether it is all ones, and waits.
    seen = (mask[:, None, None] > 0) & (slots[0, :, None] >= slots[0])
    cache = lm.body(
        input_ids=ids.gather(1, slots.clamp(min=0)),
        attention_mask=_as_mask(lm, seen) if _takes_block_masks(lm) else mask,
        position_ids=slots.clamp(min=0),
        past_key_values=whole_cache(),
        use_cache=True,
    ).past_key_values
    return TextStates(_layers(cache), mask)


def concatenated(lm: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    """The plain way: one right-padded sequence a pair. Causality makes masks needless.

    Args:
        lm: The frozen language model.
        prompts: [K, P, H]
        batch: B examples.

    Returns:
        [K, B, H] Hidden states at the answer.
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
        hidden = lm.states(rows) if grad else lm.body(inputs_embeds=rows, use_cache=False)[0]
        states.append(pick(hidden, (lengths - 1).repeat(len(part))).unflatten(0, shape[:2]))
    return _joined(states)


def prompts_first(lm: Backbone, prompts: Tensor, batch: Batch) -> Tensor:
    """[before | prompt] once a prompt, its keys and values expanded to the examples.

    Args:
        lm: The frozen language model.
        prompts: [K, P, H]; gradients flow back into them.
        batch: B examples with the same tokens before the prompt.

    Returns:
        [K, B, H] Hidden states at the answer.
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
        hidden = lm.body(
            inputs_embeds=after.repeat(len(part), 1, 1),
            position_ids=positions.expand(len(part) * num_examples, -1),
            past_key_values=repeat_cache(cache, num_examples),
            use_cache=True,
        )[0]
        ends = (batch["after_lengths"] - 1).repeat(len(part))
        states.append(pick(hidden, ends).unflatten(0, (len(part), num_examples)))
    return _joined(states)


def texts_first(lm: Backbone, prompts: Tensor, batch: Batch, texts: TextStates) -> Tensor:
    """Prompts behind texts whose keys and values are constants.

    All prompts stand behind one copy of each text, as branches that do not see one another. Where
    they are given as token ids, what begins alike is one branch until it differs.

    Args:
        lm: The frozen language model.
        prompts: [K, P, H], gradients flow back into them; or [K, P] token ids.
        batch: B examples.
        texts: Of this batch.

    Returns:
        [K, B, H] Hidden states at the answer.
    """
    after = lm.embed(batch["after_ids"])  # (B, T1, H)
    tokens = prompts.shape[1] + after.shape[1]
    most = max(1, BLOCK_TOKENS // max(1, tokens)) if _takes_block_masks(lm) else 1
    return _joined(
        [
            (_one_branch if len(part) == 1 else _branches)(lm, part, after, batch, texts)
            for part in _parts(prompts, len(after) * tokens, most)
        ]
    )


def _branches(
    lm: Backbone, prompts: Tensor, after: Tensor, batch: Batch, texts: TextStates
) -> Tensor:
    """[K, B, H] of all prompts behind one copy of each text."""
    num_after = after.shape[1]
    tree = _tree(lm, prompts, num_after)
    nodes = tree.embeds.to(after.dtype).expand(len(after), -1, -1)
    depths = batch["before_lengths"][:, None] + tree.depths
    hidden = lm.body(
        inputs_embeds=torch.cat([nodes, after.repeat(1, len(prompts), 1)], dim=1),
        attention_mask=_mask(lm, texts.mask, tree.seen),
        position_ids=depths.clamp(max=lm.max_positions - 1),  # padding may lie past it
        past_key_values=whole_cache(texts.layers),
        use_cache=True,
    )[0]
    if num_after:
        steps = num_after * torch.arange(len(prompts), device=after.device)[:, None]
        slots = nodes.shape[1] + steps + batch["after_lengths"] - 1  # (K, B)
        slots = torch.where(batch["after_lengths"] > 0, slots, tree.leaves[:, None])
    else:
        slots = tree.leaves[:, None].expand(-1, len(after))
    return hidden[torch.arange(len(after), device=after.device), slots]


def _one_branch(
    lm: Backbone, prompt: Tensor, after: Tensor, batch: Batch, texts: TextStates
) -> Tensor:
    """[1, B, H] of one prompt behind each text: no tree, and no wait for a device."""
    embeds = prompt if prompt.ndim == 3 else lm.embed(prompt)  # (1, P, H)
    embeds = torch.cat([embeds.to(after.dtype).expand(len(after), -1, -1), after], dim=1)
    num_prompt, num_nodes = prompt.shape[1], embeds.shape[1]
    depths = batch["before_lengths"][:, None] + torch.arange(num_nodes, device=after.device)
    ones = texts.mask.new_ones(len(after), num_nodes)
    if _takes_block_masks(lm):  # spelt out for the same reason as in `encode_texts`
        mask = _mask(lm, texts.mask, ones.new_ones(num_nodes, num_nodes).tril().bool())
    else:
        mask = torch.cat([texts.mask, ones], dim=1)
    hidden = lm.body(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=depths.clamp(max=lm.max_positions - 1),  # padding may lie past it
        past_key_values=whole_cache(texts.layers),
        use_cache=True,
    )[0]
    return pick(hidden, num_prompt + batch["after_lengths"] - 1)[None]


class _Tree(NamedTuple):
    """K prompts as branches: N nodes of theirs, then for each prompt T1 nodes of what follows it.

    Attributes:
        embeds: [N, H] Of the prompts' nodes.
        depths: [N + K T1] Place of each node behind the text.
        seen: [N + K T1, N + K T1] Whether a node (row) sees another: itself and its ancestors.
        leaves: [K] The last node of each prompt.
    """

    embeds: Tensor
    depths: Tensor
    seen: Tensor
    leaves: Tensor


def _tree(lm: Backbone, prompts: Tensor, num_after: int) -> _Tree:
    num_prompts, num_prompt = prompts.shape[:2]
    device = prompts.device
    if prompts.ndim == 3:  # vectors: each prompt is a branch from its first one
        embeds = prompts.flatten(0, 1)
        paths = [tuple(range(k, k + num_prompt)) for k in range(0, len(embeds), num_prompt)]
    else:
        nodes: dict[tuple[int, ...], int] = {}
        rows = prompts.tolist()
        paths = [
            tuple(nodes.setdefault(tuple(row[: i + 1]), len(nodes)) for i in range(num_prompt))
            for row in rows
        ]
        embeds = lm.embed(torch.tensor([ids[-1] for ids in nodes], device=device))
    num_nodes = len(embeds)
    seen = torch.zeros((num_nodes + num_prompts * num_after,) * 2, dtype=torch.bool)
    depths = torch.zeros(len(seen), dtype=torch.long)
    for k, path in enumerate(paths):
        start = num_nodes + k * num_after
        path += tuple(range(start, start + num_after))
        depths[list(path)] = torch.arange(len(path))
        for i, node in enumerate(path):
            seen[node, list(path[: i + 1])] = True
    leaves = torch.tensor([path[num_prompt - 1] for path in paths])
    return _Tree(embeds, depths.to(device), seen.to(device), leaves.to(device))


def repeat_cache(cache: Any, copies: int) -> "DynamicCache":
    """A cache of K rows as one of K * copies, each row repeated; views where K = 1."""

    def repeat(states: Tensor) -> Tensor:
        return states[:, None].expand(-1, copies, -1, -1, -1).flatten(0, 1)

    return whole_cache([(repeat(keys), repeat(values)) for keys, values in _layers(cache)])


def _layers(cache: Any) -> Layers:
    """Keys and values of each layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def _mask(lm: Backbone, texts: Tensor, seen: Tensor) -> Tensor:
    """[B, 1, N, T0 + N] What nodes see: their text, and what `seen` [N, N] says of each other."""
    shape = (len(texts), 1, len(seen), -1)
    both = torch.cat([texts.bool()[:, None, None].expand(shape), seen.expand(shape)], dim=-1)
    return _as_mask(lm, both)


def _as_mask(lm: Backbone, seen: Tensor) -> Tensor:
    """[B, 1, N, S] whether a query sees a key, as the model's attention takes it."""
    if lm.model.config._attn_implementation != "eager":
        return seen
    dtype = lm.embedding_table.dtype  # eager attention adds its mask
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )


def _takes_block_masks(lm: Backbone) -> bool:
    """Whether a mask of ours may stand for the model's."""
    return lm.ways.block_masks and lm.model.config._attn_implementation in KNOWN_MASKS


def _parts(prompts: Tensor, tokens_a_prompt: int, most: int | None = None) -> Iterator[Tensor]:
    """The prompts, as many at once as fit; a single one is never divided."""
    fit = max(1, TOKENS_AT_ONCE // max(1, tokens_a_prompt))
    yield from prompts.split(min(fit, most or fit))


def _joined(states: list[Tensor]) -> Tensor:
    return states[0] if len(states) == 1 else torch.cat(states)


def pick(hidden: Tensor, positions: Tensor) -> Tensor:
    """[B, T, H] and [B] to [B, H]: one position a row."""
    return hidden[torch.arange(len(hidden), device=hidden.device), positions]
