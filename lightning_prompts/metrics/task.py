"""Metrics of a classification task, the same for every prompt and baseline."""

from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_prompts.metrics.mean import Mean


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
