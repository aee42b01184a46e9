"""Prompts behind one text as branches of a tree, what begins alike being one branch."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.lm.backbone import Backbone


class PromptTree(NamedTuple):
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


def prompt_tree(lm: Backbone, prompts: Tensor, num_after: int) -> PromptTree:
    """The tree of prompts [K, P, H], or [K, P] token ids, with T1 = `num_after`."""
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
    return PromptTree(embeds, depths.to(device), seen.to(device), leaves.to(device))
