"""`predict`: one line of predictions.jsonl for each row, whichever process scored it."""

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prompts.run_folder import run_folder
from lightning_prompts.tuners.base import PromptTuner

PREDICTIONS = "predictions.jsonl"


class Predictions(Callback):
    """Collects the predictions of all processes and writes them, sorted by row, into the run."""

    def __init__(self) -> None:
        self.path: Path | None = None
        """Where they were written."""
        self._scored: list[tuple[int, list[float]]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._scored = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep `rows` [B] and `probabilities` [B, C] of a batch."""
        probabilities = outputs["probabilities"].float().tolist()
        self._scored += zip(outputs["rows"].tolist(), probabilities, strict=True)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather and write."""
        parts = [self._scored]
        if trainer.world_size > 1:
            parts = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, self._scored)
        self.path = run_folder(trainer) / PREDICTIONS
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, PromptTuner)
        scored = sorted(itertools.chain.from_iterable(parts))
        lines = [_line(*row, pl_module.verbalizer.labels) for row in scored]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{PREDICTIONS}")
        draft.write_text("".join(lines), encoding="utf-8")
        draft.replace(self.path)


def _line(row: int, probabilities: list[float], labels: tuple[str, ...]) -> str:
    by_label = dict(zip(labels, probabilities, strict=True))
    label = max(by_label, key=by_label.__getitem__)
    content = {"row": row, "label": label, "probabilities": by_label}
    return json.dumps(content, ensure_ascii=False) + "\n"
