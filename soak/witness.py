"""What a process of a run knows, written down after every step and every validation."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Witness(Callback):
    """Writes metrics, trainable parameters and prompt of each process into `folder`.

    Args:
        folder: Gets `train-RANK-STEP.json` and `val-RANK-STEP.json`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Write what training has logged."""
        self._write(trainer, pl_module, "train")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the validation has logged."""
        self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the test has logged."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, tuner: Any, stage: str) -> None:
        logged = trainer.callback_metrics.items()
        seen = {
            # Padding is of each process's own rows.
            "metrics": {
                k: float(v) for k, v in logged if k.startswith(stage) and k != "train/padding"
            },
            "parameters": {
                name: parameter.detach().cpu().tolist()
                for name, parameter in tuner.named_parameters()
                if parameter.requires_grad
            },
            "ids": tuner.hard_prompt().tolist(),
            "prompts": tuner.listed_prompts(),
            "tokens": int(tuner.forward_tokens),
            "sharded": {
                name: [parameter.to_local().numel(), parameter.numel()]
                for name, parameter in tuner.named_parameters()
                if hasattr(parameter, "to_local")
            },
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{stage}-{trainer.global_rank}-{trainer.global_step}.json"
        (self.folder / name).write_text(json.dumps(seen), encoding="utf-8")
