"""A style classifier: frozen features of the language model, and a linear head that is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.features import Pooling, num_layers, pooled_states, resolve_layer
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.rewards.style.scorers import StyleHead, head_logits, save_style


class StyleClassifier(LightningModule):
    """Predicts the label of whole texts from one layer of a frozen language model.

    The texts are those of the batches, both pieces of the template joined.
    Dimensions: B examples, H hidden size, C classes.

    Args:
        lm: The frozen language model; it never enters a checkpoint.
        labels: Names of the C classes.
        layer: Layers of the language model to read: a number, or a share below 1.
        pooling: `mean` over a text's tokens, or the `last` of them.
        lr: Learning rate of AdamW.
        seed: Of the head's first weights.

    Raises:
        PromptError: If there is no such layer.
    """

    def __init__(
        self,
        lm: FrozenLM,
        labels: Sequence[str],
        layer: float,
        pooling: Pooling,
        lr: float,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lm, self.labels, self.lr, self.seed = lm, tuple(labels), lr, seed
        self.layer, self.pooling = resolve_layer(layer, num_layers(lm.model)), pooling
        self.head = nn.Linear(lm.state_size, len(self.labels))
        # The features have standard deviation 1, so this gives logits below 1.
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.head.weight, std=0.5 / lm.state_size**0.5, generator=generator)
        nn.init.zeros_(self.head.bias)
        self.val_accuracy, self.test_accuracy = (
            MulticlassAccuracy(len(self.labels), average="micro") for _ in range(2)
        )

    def forward(self, texts: Sequence[str]) -> Tensor:
        """[B, C] Logits, float32."""
        return head_logits(pooled_states(self.lm, texts, self.layer, self.pooling), self.head)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy in nats."""
        loss = F.cross_entropy(self(_texts(batch)), batch["labels"])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count right answers."""
        self._evaluate(batch, "val", self.val_accuracy)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count right answers."""
        self._evaluate(batch, "test", self.test_accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on the head alone."""
        return torch.optim.AdamW(self.head.parameters(), lr=self.lr)

    def save(self, folder: Path, trained_on: str, rows: int, accuracy: float | None) -> None:
        """Write the head and what it reads, for `scorers.load_style`.

        Args:
            folder: Is replaced as a whole.
            trained_on: The training rows' source, for people.
            rows: Their number.
            accuracy: Share of the test sentences that it gets right, in [0, 1].

        Raises:
            PromptError: If the folder cannot be written.
        """
        described = StyleHead(
            labels=self.labels,
            layer=self.layer,
            pooling=self.pooling,
            lm=self.lm.label,
            fingerprint=self.lm.fingerprint,
            trained_on=trained_on,
            rows=rows,
            seed=self.seed,
            accuracy=accuracy,
        )
        save_style(folder, self.head, described)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop the language model's weights."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith("lm.")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put this module's own language model back, so that loading stays strict."""
        checkpoint["state_dict"] |= {f"lm.{k}": v for k, v in self.lm.state_dict().items()}

    def _evaluate(self, batch: Batch, stage: str, accuracy: Metric) -> None:
        accuracy.update(self(_texts(batch)), batch["labels"])
        self.log(f"{stage}/accuracy", accuracy, on_step=False, on_epoch=True)


def _texts(batch: Batch) -> list[str]:
    """The rows in their template, without a prompt."""
    return [before + after for before, after in batch["texts"]]
