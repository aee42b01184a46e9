"""Metrics of a classification task, the same for every prompt and baseline."""

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_prompts.dtypes import in_double


class Mean(Metric):
    """Mean over all batches and ranks, each value weighing the same; NaN before any was seen.

    Summed in float64, so that neither the order of the rows nor the number of processes matters.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add values [...]; nothing waits for their device."""
        # Not in place: the sum becomes float64, where the device has it.
        self.total = self.total + in_double(values).sum()
        self.count = self.count + values.numel()

    def compute(self) -> Tensor:
        """Scalar."""
        return self.total / self.count


def task_metrics(num_classes: int) -> MetricCollection:
    """Loss in nats, accuracy and macro-F1 as shares.

    `loss` takes one value an example, the others [B, C] logits and [B] labels.
    """
    return MetricCollection(
        {
            "loss": Mean(),
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        },
        compute_groups=False,
    )
