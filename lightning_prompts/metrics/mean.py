"""The mean that the metrics share, of values of all batches and ranks."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_prompts.files.numbers import in_double


class MeanOfAll(Metric):
    """Mean over all batches and ranks, each value weighing the same; NaN before any was seen.

    Summed in float64, so that neither the order of the rows nor the number of processes matters.
    A subclass says in `update` what the values are.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """Add values [...]; nothing waits for their device."""
        # Not in place: the sum becomes float64, where the device has it.
        self.total = self.total + in_double(values).sum()
        self.count = self.count + values.numel()

    def compute(self) -> Tensor:
        """Scalar."""
        return self.total / self.count


class Mean(MeanOfAll):
    """The mean of the values [...] that it is given."""

    def update(self, values: Tensor) -> None:
        """Add values [...]."""
        self.add(values)
