"""What a step has read over all processes, and how much each process's mean loss counts in it."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.files.numbers import in_double
from lightning_prompts.lm.batch import Batch
from lightning_prompts.tuners.rewards.base import Reduce


class Share(NamedTuple):
    """One process's part of a step.

    Attributes:
        loss: Of this process, weighted so that the mean over processes, which their gradients
            are averaged as, is the mean over all rows.
        mean: Mean loss over all rows, the same on every process; without a gradient.
        num_tokens: Tokens that all processes have read.
    """

    loss: Tensor
    mean: Tensor
    num_tokens: Tensor


def share_of(loss: Tensor, batch: Batch, num_tokens: int, world_size: int, reduce: Reduce) -> Share:
    """Weigh a process's mean loss by its rows: processes may have unequally many.

    One exchange, and no wait for a device.

    Args:
        loss: Mean over the rows of this process, in nats.
        batch: These rows.
        num_tokens: Read by this process.
        world_size: Number of processes.
        reduce: Sums over them.
    """
    if world_size == 1:
        count = torch.full_like(batch["rows"][0], num_tokens)
        return Share(loss, loss.detach(), count)
    own = 0 if batch["borrowed"] else len(batch["rows"])
    total = in_double(loss.detach())  # counts whole numbers up to 2^53
    counts = (own, num_tokens if own else 0)
    sums = reduce(torch.stack([total * own, *(torch.full_like(total, n) for n in counts)]))
    mean = (sums[0] / sums[1]).to(loss.dtype)
    weight = (own * world_size / sums[1]).to(loss.dtype)
    return Share(loss * weight, mean, sums[2].round().long())
