"""Masks that say of each query which keys it sees, as a model's attention takes them."""

import torch
from torch import Tensor

from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.kernels import ATTENTION

# Attention that takes a mask of every query and key.
KNOWN_MASKS = ("sdpa", "eager", ATTENTION)


def takes_block_masks(lm: Backbone) -> bool:
    """Whether a mask of ours may stand for the model's."""
    return lm.ways.block_masks and lm.model.config._attn_implementation in KNOWN_MASKS


def behind_texts(lm: Backbone, texts: Tensor, seen: Tensor) -> Tensor:
    """[B, 1, N, T0 + N] What nodes see: their text, and what `seen` [N, N] says of each other."""
    shape = (len(texts), 1, len(seen), -1)
    both = torch.cat([texts.bool()[:, None, None].expand(shape), seen.expand(shape)], dim=-1)
    return as_mask(lm, both)


def as_mask(lm: Backbone, seen: Tensor) -> Tensor:
    """[B, 1, N, S] whether a query sees a key, as the model's attention takes it."""
    if lm.model.config._attn_implementation != "eager":
        return seen
    dtype = lm.ends.own_table.dtype  # eager attention adds its mask
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )
