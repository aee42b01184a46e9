"""Encoding once what many rows share: a prompt that comes first, texts that come first.

Attention is causal, so keys and values do not depend on what follows them. Every function here is
exact: it gives the hidden states that whole sequences would give, one a (prompt, example) pair.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from lightning_prompts.template import Batch, piece_order

if TYPE_CHECKING:
    from lightning_prompts.language_model import FrozenLM

# Rows of many prompts go through the model in parts: 8,192 tokens have 400 MB of keys and values in
# a float32 model of 30 layers with 3 key heads of 64, and fill any device.
TOKENS_AT_ONCE = 2**13
# Prompts behind one text see one another only to be masked; past some hundred tokens that costs.
BLOCK_TOKENS = 512

Layers = list[tuple[Tensor, Tensor]]


class TextStates(NamedTuple):
    """What a frozen model makes of the texts before a prompt: constants, whatever the prompt.

    Attributes:
        layers: Keys and values of each layer, [B, heads, T0, d].
        mask: [B, T0] 1 at tokens; texts are left-padded, so that prompts start in one column.
    """

    layers: Layers
    mask: Tensor

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


@torch.no_grad()
def encode_texts(lm: "FrozenLM", batch: Batch) -> TextStates:
    """Keys and values of the pieces before the prompt; no gradient passes through them."""
    ids, lengths = batch["before_ids"], batch["before_lengths"]
    num_before = ids.shape[1]
    slots = torch.arange(num_before, device=ids.device)[None] - (num_before - lengths)[:, None]
    mask = (slots >= 0).long()
    cache = lm.model.base_model(
        input_ids=ids.gather(1, slots.clamp(min=0)),
        attention_mask=mask,
        position_ids=slots.clamp(min=0),
        use_cache=True,
    ).past_key_values
    return TextStates(_layers(cache), mask)


def concatenated(lm: "FrozenLM", prompts: Tensor, batch: Batch) -> Tensor:
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
        hidden = lm.model.base_model(inputs_embeds=pieces.gather(1, slots), use_cache=False)[0]
        states.append(_pick(hidden, (lengths - 1).repeat(len(part))).unflatten(0, shape[:2]))
    return _joined(states)


def prompts_first(lm: "FrozenLM", prompts: Tensor, batch: Batch) -> Tensor:
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
        cache = lm.model.base_model(inputs_embeds=prefix, use_cache=True).past_key_values
        hidden = lm.model.base_model(
            inputs_embeds=after.repeat(len(part), 1, 1),
            position_ids=positions.expand(len(part) * num_examples, -1),
            past_key_values=repeat_cache(lm, cache, num_examples),
            use_cache=True,
        )[0]
        ends = (batch["after_lengths"] - 1).repeat(len(part))
        states.append(_pick(hidden, ends).unflatten(0, (len(part), num_examples)))
    return _joined(states)


def texts_first(
    lm: "FrozenLM", prompts: Tensor, batch: Batch, texts: TextStates | None = None
) -> Tensor:
    """Prompts behind texts whose keys and values are constants: computed once, or given.

    All prompts stand behind one copy of each text, as branches that do not see one another. Where
    they are given as token ids, what begins alike is one branch until it differs.

    Args:
        lm: The frozen language model.
        prompts: [K, P, H], gradients flow back into them; or [K, P] token ids.
        batch: B examples.
        texts: Of this batch, from `encode_texts`; by default they are encoded here.

    Returns:
        [K, B, H] Hidden states at the answer.
    """
    texts = encode_texts(lm, batch) if texts is None else texts
    after = lm.embed(batch["after_ids"])  # (B, T1, H)
    num_prompt, num_after = prompts.shape[1], after.shape[1]
    most = max(1, BLOCK_TOKENS // (num_prompt + num_after)) if _takes_block_masks(lm) else 1
    states = []
    for part in _parts(prompts, len(after) * (num_prompt + num_after), most):
        tree = _tree(lm, part, num_after)
        nodes = tree.embeds.to(after.dtype).expand(len(after), -1, -1)
        depths = batch["before_lengths"][:, None] + tree.depths
        hidden = lm.model.base_model(
            inputs_embeds=torch.cat([nodes, after.repeat(1, len(part), 1)], dim=1),
            attention_mask=_mask(lm, texts.mask, tree.seen),
            position_ids=depths.clamp(max=lm.max_positions - 1),  # padding may lie past it
            past_key_values=DynamicCache(texts.layers, config=lm.model.config),
            use_cache=True,
        )[0]
        if num_after:
            steps = num_after * torch.arange(len(part), device=after.device)[:, None]
            slots = nodes.shape[1] + steps + batch["after_lengths"] - 1  # (K, B)
            slots = torch.where(batch["after_lengths"] > 0, slots, tree.leaves[:, None])
        else:
            slots = tree.leaves[:, None].expand(-1, len(after))
        states.append(hidden[torch.arange(len(after), device=after.device), slots])
    return _joined(states)


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


def _tree(lm: "FrozenLM", prompts: Tensor, num_after: int) -> _Tree:
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


def repeat_cache(lm: "FrozenLM", cache: Any, copies: int) -> DynamicCache:
    """A cache of K rows as one of K * copies, each row repeated; views where K = 1."""

    def repeat(states: Tensor) -> Tensor:
        return states[:, None].expand(-1, copies, -1, -1, -1).flatten(0, 1)

    layers = [(repeat(keys), repeat(values)) for keys, values in _layers(cache)]
    return DynamicCache(layers, config=lm.model.config)


def _layers(cache: Any) -> Layers:
    """Keys and values of each layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def _mask(lm: "FrozenLM", texts: Tensor, seen: Tensor) -> Tensor:
    """What N nodes see: their text, and what `seen` [N, N] says of one another.

    [B, T0 + N] of ones and zeros for a single branch, whose causal mask the model makes by itself;
    [B, 1, N, T0 + N] for several.
    """
    if bool((seen == torch.ones_like(seen).tril()).all()):
        return torch.cat([texts, texts.new_ones(len(texts), len(seen))], dim=1)
    shape = (len(texts), 1, len(seen), -1)
    both = torch.cat([texts.bool()[:, None, None].expand(shape), seen.expand(shape)], dim=-1)
    if lm.model.config._attn_implementation == "sdpa":
        return both
    dtype = lm.embedding_table.dtype  # eager attention adds its mask
    return torch.zeros(both.shape, dtype=dtype, device=both.device).masked_fill(
        ~both, torch.finfo(dtype).min
    )


def _takes_block_masks(lm: "FrozenLM") -> bool:
    return lm.model.config._attn_implementation in ("sdpa", "eager")


def _parts(prompts: Tensor, tokens_a_prompt: int, most: int | None = None) -> Iterator[Tensor]:
    """The prompts, as many at once as fit; a single one is never divided."""
    fit = max(1, TOKENS_AT_ONCE // max(1, tokens_a_prompt))
    yield from prompts.split(min(fit, most or fit))


def _joined(states: list[Tensor]) -> Tensor:
    return states[0] if len(states) == 1 else torch.cat(states)


def _pick(hidden: Tensor, positions: Tensor) -> Tensor:
    """[B, T, H] and [B] to [B, H]: one position a row."""
    return hidden[torch.arange(len(hidden), device=hidden.device), positions]
