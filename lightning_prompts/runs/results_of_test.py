"""`test`: test.json of a run, with which rows were answered rightly, whichever process did it."""

import itertools
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prompts.callbacks.base import gathered
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.runs.folder import TEST, run_folder
from lightning_prompts.runs.record import describe
from lightning_prompts.tuners.base import PromptTuner


class Tested(Callback):
    """Writes the metrics of a test, its baselines, and whether each row was answered rightly.

    Two prompts that were tested on the same rows can then be compared row by row.
    """

    def __init__(self) -> None:
        self._scored: list[tuple[int, bool | None]] = []
        self._gathered: list[tuple[int, bool | None]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._scored = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Keep what the `logits` [B, C] of the prompt in use say of each row."""
        right: list[bool | None] = [None] * len(batch["rows"])
        if "logits" in outputs:
            right = (outputs["logits"].argmax(-1) == batch["labels"]).tolist()
        self._scored += zip(batch["rows"].tolist(), right, strict=True)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather."""
        parts = gathered(trainer, self._scored)
        self._gathered = sorted(itertools.chain.from_iterable(parts), key=lambda scored: scored[0])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, when every metric is known."""
        assert isinstance(pl_module, PromptTuner)
        folder = run_folder(trainer)  # on every rank, as the description
        if getattr(trainer, "fast_dev_run", False):
            return
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("test/")
        }
        record = describe(trainer, pl_module, metrics)
        record.test_baselines, record.baselines = pl_module.comparisons or record.baselines, {}
        right = [known for _, known in self._gathered]
        record.rows = {"test": len(right)}
        record.correct = None if None in right else "".join(str(int(bool(r))) for r in right)
        if trainer.is_global_zero:
            write_json(folder / TEST, record.to_json())
