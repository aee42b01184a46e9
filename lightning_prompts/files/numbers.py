"""Number types: the most exact one of a device, and the least exact one to compute losses in."""

import torch
from torch import Tensor

# What Lightning calls precisions that convert the trained weights themselves, once a run begins.
HALF_WEIGHTS = ("bf16-true", "16-true")


def in_double(values: Tensor, device: torch.device | None = None) -> Tensor:
    """The values in float64; in float32 on Apple's GPUs, which do not have it.

    Args:
        values: Any numbers.
        device: Where they will be used; by default where they are.
    """
    kind = (values.device if device is None else device).type
    return values.float() if kind == "mps" else values.double()


def wide(values: Tensor) -> Tensor:
    """The values in float32, or in float64 where they are (`--trainer.precision 64-true`).

    >>> [wide(torch.ones(1, dtype=t)).dtype for t in (torch.bfloat16, torch.float64)]
    [torch.float32, torch.float64]
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))
