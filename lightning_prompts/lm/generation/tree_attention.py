"""Attention and a cache for sequences that share what they begin with, grown as trees in one row.

A node of a tree is one token; what it sees of its row is told by a mask. The cache only grows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, Cache
from transformers.cache_utils import DynamicLayer

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.passes.reuse import pick

TREE_ATTENTION = "lightning_prompts_tree"


class TreeCache(Cache):
    """Keys and values of R rows, with room to grow.

    Every layer sees all of it, whatever windows the model has: a tree has more columns than any of
    its sequences has positions.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_RoomyLayer)


class _RoomyLayer(DynamicLayer):
    """Writes into spare room: to join tensors anew at each step took a third of all time.

    Under autocast it keeps what attention reads, so that nothing is converted twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if self._room is None or self._room[0].shape[2] < end:
            self._room = (
                _with_room(self.keys, key_states, start, end),
                _with_room(self.values, value_states, start, end),
            )
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._room = None

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._room = None


def _with_room(held: Tensor | None, states: Tensor, start: int, end: int) -> Tensor:
    """[R, heads, L, d] with L half as long again as is needed, the states held so far copied."""
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
    rows, heads, _, size = states.shape
    room = torch.empty(rows, heads, end + end // 2, size, dtype=dtype, device=states.device)
    if start and held is not None:
        room[:, :, :start] = held
    return room


class KeptTrees:
    """Trees of rows whose keys and values are computed and kept once a node.

    Args:
        lm: The frozen language model.
        prefix: [M, L] Token ids, right-padded.
        lengths: [M] Tokens of each prefix.
        copies: Trees that grow from each prefix, so that R = M * copies.

    Attributes:
        hidden: [M, H] Final hidden state at each node of the latest depth, at first each root's.
    """

    def __init__(self, lm: Backbone, prefix: Tensor, lengths: Tensor, copies: int) -> None:
        self._lm, self._cache, self._depth = lm, TreeCache(), 0
        hidden = lm.body(input_ids=prefix, past_key_values=self._cache, use_cache=True)
        self.hidden = pick(hidden[0], lengths - 1).repeat_interleave(copies, 0)
        self._cache.batch_repeat_interleave(copies)
        self._lengths = lengths.repeat_interleave(copies, 0)
        columns = torch.arange(prefix.shape[1], device=prefix.device)
        # What each node sees; the padding of a prefix is hidden from all that follows it.
        self._seen = (columns < self._lengths[:, None])[:, None]  # (R, Q=1, L)

    def select(self, kept: Tensor) -> None:
        """Leave only these trees."""
        self._cache.batch_select_indices(kept)
        self._seen, self._lengths = self._seen[kept], self._lengths[kept]

    def extend(self, inputs: Tensor, parents: Tensor, nodes: tuple[Tensor, Tensor]) -> None:
        """Read the nodes of the next depth.

        Args:
            inputs: [R, Q] Token ids.
            parents: [R, Q] Place of each node's parent in the depth before.
            nodes: Two of [M]: tree and place of the nodes that count; others are padding.
        """
        self._seen = seen_by_children(self._seen, parents)
        with tree_attention(self._lm):
            states = self._lm.body(
                input_ids=inputs,
                position_ids=(self._lengths + self._depth)[:, None].expand_as(inputs),
                attention_mask=tree_mask(self._lm, self._seen),
                past_key_values=self._cache,
                use_cache=True,
            )[0]
        self.hidden = states[nodes]
        self._depth += 1


@contextmanager
def tree_attention(lm: Backbone) -> Iterator[None]:
    """Attention that takes the trees' masks, in place of the model's; eager does so by itself."""
    chosen = lm.model.config._attn_implementation
    if chosen == "eager":
        yield
        return
    lm.model.set_attn_implementation(TREE_ATTENTION)
    try:
        yield
    finally:
        lm.model.set_attn_implementation(chosen)


def tree_mask(lm: Backbone, seen: Tensor) -> Tensor:
    """The mask as the attention takes it; eager attention adds it.

    Args:
        lm: The frozen language model.
        seen: [R, Q, L] Whether a node sees a column.

    Returns:
        [R, 1, Q, L]
    """
    if lm.model.config._attn_implementation != "eager":
        return seen[:, None]
    mask = torch.zeros(seen.shape, dtype=lm.embedding_table.dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)[:, None]


def seen_by_children(seen: Tensor, parents: Tensor) -> Tensor:
    """What the nodes of the next depth see: what their parents see, and themselves.

    Args:
        seen: [R, Q, L] Of the parents.
        parents: [R, Q'] Place of each node's parent.

    Returns:
        [R, Q', L + Q']

    >>> seen_by_children(torch.tensor([[[True], [False]]]), torch.tensor([[1, 0]])).int()
    tensor([[[0, 1, 0],
             [1, 0, 1]]], dtype=torch.int32)
    """
    num_trees, width = parents.shape
    inherited = seen.gather(1, parents[..., None].expand(-1, -1, seen.shape[2]))
    own = torch.eye(width, dtype=torch.bool, device=seen.device)
    return torch.cat([inherited, own.expand(num_trees, -1, -1)], dim=2)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by mask, without a copy of the keys for every query head that shares them.

    Those query heads stand behind one another, as so many more queries.

    Args:
        module: Unused; transformers passes it.
        query: [R, heads, Q, d]
        key: [R, key heads, L, d]
        value: As `key`.
        attention_mask: [R, 1, Q, L] Whether a query sees a key.
        scaling: Of the products.
        kwargs: What else models pass.

    Returns:
        [R, Q, heads, d], and no weights.
    """
    if kwargs.get("softcap") is not None:
        raise PromptError(
            "This model caps the logits of its attention, which sampling here can do only with "
            "--lm.attn_implementation eager."
        )
    folded = query.reshape(len(key), key.shape[1], -1, key.shape[-1])
    mask = attention_mask.repeat(1, 1, query.shape[1] // key.shape[1], 1)
    states = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return states.reshape(*query.shape[:3], -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(TREE_ATTENTION, _attend)
