"""Answers of several tokens, read behind rows whose keys and values are at hand."""

from typing import Any

import torch
from torch import Tensor

from lightning_prompts.lm.answers import AnswerTree
from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.passes.masks import as_mask


def read_on(
    lm: Backbone, tree: AnswerTree, hidden: Tensor, cache: Any, seen: Tensor, depths: Tensor
) -> Tensor:
    """Final hidden states behind each row, and behind each beginning of an answer after it.

    All beginnings are read in one pass, as branches that do not see one another. A model has to
    take masks of ours.

    Args:
        lm: The frozen language model.
        tree: The beginnings.
        hidden: [K, B, H] Behind each row.
        cache: Of R rows and S slots: R = B with all prompts behind each text, else R = K B.
        seen: [R, J, S] Which slots belong to each of J prompts: J = K where R = B, else 1.
        depths: [R, J] How many tokens these are.

    Returns:
        [K, B, N, H]
    """
    device, count = hidden.device, tree.num_tokens
    num_rows, num_prompts = depths.shape
    embeds = lm.embed(torch.tensor(tree.tokens, device=device)).repeat(num_prompts, 1)
    same = torch.eye(num_prompts, dtype=torch.bool, device=device)
    own = torch.kron(same, tree.seen.to(device)).expand(num_rows, -1, -1)
    mask = torch.cat([seen.repeat_interleave(count, 1), own], 2)
    positions = depths[..., None] + torch.tensor(tree.depths, device=device) - 1
    states = lm.body(
        inputs_embeds=embeds.expand(num_rows, -1, -1),
        attention_mask=as_mask(lm, mask[:, None]),
        # The longest row fits with its answers; a shorter one's are the same.
        position_ids=positions.flatten(1),
        past_key_values=cache,
        use_cache=True,
    )[0].unflatten(1, (num_prompts, count))  # (R, J, M, H)
    if num_prompts > 1:
        states = states.transpose(0, 1)
    return torch.cat([hidden[:, :, None], states.reshape(*hidden.shape[:2], count, -1)], 2)
