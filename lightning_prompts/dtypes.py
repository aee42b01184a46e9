"""The most exact number type of a device."""

import torch
from torch import Tensor


def in_double(values: Tensor, device: torch.device | None = None) -> Tensor:
    """The values in float64; in float32 on Apple's GPUs, which do not have it.

    Args:
        values: Any numbers.
        device: Where they will be used; by default where they are.
    """
    kind = (values.device if device is None else device).type
    return values.float() if kind == "mps" else values.double()
