"""Metrics of a classification task, the same for every prompt and baseline."""

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_prompts.metrics.mean import Mean


def task_metrics(num_classes: int) -> MetricCollection:
    """Loss in nats, accuracy and macro-F1 as shares, of what `add_answers` takes in."""
    return MetricCollection(
        {
            "loss": Mean(),
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        },
        compute_groups=False,
    )


def add_answers(metrics: MetricCollection, logits: Tensor, labels: Tensor) -> None:
    """Take in a batch.

    Args:
        metrics: Of `task_metrics`.
        logits: [B, C] Of the answers.
        labels: [B] Class indices.
    """
    metrics["loss"].update(F.cross_entropy(logits, labels, reduction="none"))
    metrics["accuracy"].update(logits, labels)
    metrics["macro_f1"].update(logits, labels)
