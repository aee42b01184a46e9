"""Less memory for a step: a few rows' activations at a time, the others' made again."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_prompts.lm.batch import Batch, take

# Of a 135M model in float32 a token's activations have about 1 MB; fewer tokens at once would leave
# a processor's matrix units waiting.
TOKENS_AT_ONCE = 256


def recomputed(answers: Callable[[Tensor, Batch], Tensor], prompts: Tensor, batch: Batch) -> Tensor:
    """`answers` of all rows, each part of which is a checkpoint of its own.

    The numbers are those of one pass: rows do not see one another.

    Args:
        answers: [K, P, H] prompts and a batch to their hidden states.
        prompts: [K, P, H] with a gradient.
        batch: B examples.

    Returns:
        [K, B, ...]
    """
    length = len(prompts) * max(1, batch["num_tokens"] + prompts.shape[1])
    size, count = max(1, TOKENS_AT_ONCE // length), len(batch["rows"])
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    states = [
        checkpoint(
            answers, prompts, take(batch, part), use_reentrant=False, preserve_rng_state=False
        )
        for part in parts
    ]
    return torch.cat(states, dim=1)
