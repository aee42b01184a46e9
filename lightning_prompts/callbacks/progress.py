"""Progress in steps of the whole run: an epoch says little where a run is counted in steps."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from lightning_prompts.callbacks.base import task_of
from lightning_prompts.callbacks.early_end import planned_steps

# Reading a loss waits for a GPU, so not at each step; into a file, not so often that it fills.
SECONDS_ON_TERMINAL, SECONDS_IN_FILE = 0.5, 30.0


class StepProgress(ProgressBar):
    """One bar for the steps of a run, one for the batches of an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._training: tqdm[Any] | None = None
        self._evaluation: tqdm[Any] | None = None
        self._drawn = 0.0
        self._in_rows = False

    def disable(self) -> None:
        """Draw nothing, on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Draw."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the step that the run goes on from; none where nothing is learned."""
        if not getattr(pl_module, "learns", True):
            return
        total = planned_steps(trainer, pl_module) or 0
        self._training = self._open("Training", "step", total, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Show step and loss."""
        if self._due(self._training):
            values = self.get_metrics(trainer, trainer.lightning_module)
            loss = {k: v for k, v in values.items() if k != "v_num"}
            self._draw(self._training, trainer.global_step, loss)

    def on_train_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave the last state on the screen, however training ended."""
        self._draw(self._training, trainer.global_step)
        self._close()

    on_exception = on_train_end

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else None
        self._evaluate("Validating", batches or trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar."""
        self._evaluate("Testing", trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar."""
        task = task_of(trainer)
        windows = None if task is None else task.windows
        self._in_rows = windows is not None
        if windows is None:
            self._evaluate("Predicting", trainer.num_predict_batches)
            return
        left = windows.wanted_rows * trainer.world_size  # other processes take about as many
        done = max(0, windows.num_rows - left)
        self._evaluation = self._open("Predicting", "row", windows.num_rows, done, leave=False)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        if self._evaluation is not None:
            self._evaluation.update()

    on_test_batch_end = on_validation_batch_end

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any
    ) -> None:
        """Count a batch, or its rows."""
        if self._evaluation is not None:
            rows = len(outputs["rows"]) * trainer.world_size
            self._evaluation.update(rows if self._in_rows else 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar away."""
        self._close(evaluation_only=True)

    on_test_end = on_predict_end = on_validation_end

    def _evaluate(self, name: str, batches: Any) -> None:
        total = sum(batches) if isinstance(batches, list) else batches
        self._evaluation = self._open(name, "batch", total, leave=False)

    def _open(
        self, name: str, unit: str, total: float, done: int = 0, leave: bool = True
    ) -> "tqdm[Any]":
        known = int(total) if 0 < total < float("inf") else None
        return tqdm(
            desc=name,
            unit=unit,
            total=known,
            initial=done,
            leave=leave,
            disable=not self._enabled,
            dynamic_ncols=True,
            mininterval=_seconds(),
            file=sys.stderr,
        )

    def _due(self, bar: "tqdm[Any] | None") -> bool:
        enough = time.monotonic() - self._drawn >= _seconds()
        return bar is not None and not bar.disable and enough

    def _draw(
        self, bar: "tqdm[Any] | None", done: int, values: dict[str, Any] | None = None
    ) -> None:
        if bar is not None and not bar.disable:
            bar.n = done
            if values:
                bar.set_postfix(values, refresh=False)
            bar.refresh()
            self._drawn = time.monotonic()

    def _close(self, evaluation_only: bool = False) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
        if self._training is not None and not evaluation_only:
            self._training.close()


def _seconds() -> float:
    return SECONDS_ON_TERMINAL if sys.stderr.isatty() else SECONDS_IN_FILE
