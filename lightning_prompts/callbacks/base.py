"""What callbacks that measure at each validation share: when, how, and under which names."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import ChecksOptions, Count
from lightning_prompts.files.stages import Stage, fitting
from lightning_prompts.lm.batch import Batch
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tuners.base import PromptTuner

C = TypeVar("C", bound=Callback)


def task_of(trainer: Trainer) -> PromptTask | None:
    """The data module; None where plain loaders are used, or a data module of another kind."""
    found = getattr(trainer, "datamodule", None)
    return found if isinstance(found, PromptTask) else None


def find_callback(trainer: Any, kind: type[C]) -> C | None:
    """The trainer's callback of a class, None where it has none."""
    return next(iter(callbacks_of(trainer, kind)), None)


def callbacks_of(trainer: Any, kind: type[C]) -> list[C]:
    """All of the trainer's callbacks of a class."""
    return [found for found in trainer.callbacks if isinstance(found, kind)]


def callback_of(trainer: Any, kind: type[C]) -> C:
    """The trainer's callback of a class, which every run of the command line has.

    Raises:
        PromptError: If it has none.
    """
    if (found := find_callback(trainer, kind)) is None:
        raise PromptError(f"The trainer has no {kind.__name__}; add it to its callbacks.")
    return found


def ends(trainer: Trainer) -> bool:
    """Whether the validation that a fit is at is its last, as far as is known before it."""
    return trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step


def gathered(trainer: Trainer, own: Any) -> list[Any]:
    """What each process has; all of them ask, and all know it."""
    if trainer.world_size == 1:
        return [own]
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, own)
    return parts


class EvaluationCallback(ChecksOptions, Callback):
    """Measures a prompt batch by batch in validation and test, and logs at the end.

    Acts in the validations of `fit` and in `validate` and `test`; never in the sanity check, whose
    few batches would pass for a validation.

    Args:
        every_n_validations: In `fit`, measure at every n-th validation, beginning with the first.
            The last one is measured too, because the best prompt's file and the closing table want
            every metric, and a run that improves to its end has its best prompt there.
        max_batches: Measure only the first batches of each evaluation (of each process).

    Raises:
        PromptError: If a number is below 1.
    """

    def __init__(self, every_n_validations: Count = 1, max_batches: Count | None = None) -> None:
        self.every_n_validations, self.max_batches = every_n_validations, max_batches
        self._validations = 0
        self._active = False
        self._logged: set[str] = set()

    # ---- for subclasses

    def wanted(self, trainer: Trainer, tuner: PromptTuner, stage: Stage) -> bool:
        """Whether to measure in the evaluation that begins."""
        if not fitting(trainer):
            return True
        return ends(trainer) or self._validations % self.every_n_validations == 0

    def begin(self, trainer: Trainer, tuner: PromptTuner, stage: Stage) -> None:
        """Prepare for an evaluation."""

    def measure(self, tuner: PromptTuner, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Take in one batch.

        Args:
            tuner: The tuner under evaluation.
            outputs: `hidden` [B, H] and `logits` [B, C] of the prompt in use, from its step.
            batch: B examples.
        """

    def values(self, trainer: Trainer, tuner: PromptTuner) -> Mapping[str, Tensor | float]:
        """Metrics of the evaluation that ends, equal on every rank, by name without prefix."""
        return {}

    @staticmethod
    def precision(trainer: Trainer) -> AbstractContextManager[None]:
        """The context of the steps, so that a pass of a callback gives the numbers of a step.

        Lightning opens it around steps alone: without it a hook would compute in float32 what
        `bf16-mixed` computes in bfloat16.
        """
        return trainer.precision_plugin.forward_context()

    # ---- Lightning's hooks

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._start(trainer, pl_module, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._start(trainer, pl_module, "test")

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure one batch."""
        if self._active and (self.max_batches is None or batch_idx < self.max_batches):
            with self.precision(trainer):
                self.measure(cast(PromptTuner, pl_module), outputs, batch)

    # `begin` knows the stage; a batch is measured in the same way in both.
    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, before the checkpoints are written, which carry the metrics."""
        self._end(trainer, pl_module, "val")
        if fitting(trainer):
            self._validations += 1

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        self._end(trainer, pl_module, "test")

    def state_dict(self) -> dict[str, Any]:
        """Validations so far, so that a resumed run measures at the same ones."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue to count."""
        self._validations = state_dict["validations"]

    @torch.no_grad()
    def _start(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        tuner = cast(PromptTuner, pl_module)
        self._active = not trainer.sanity_checking and self.wanted(trainer, tuner, stage)
        if self._active:
            self.begin(trainer, tuner, stage)

    @torch.no_grad()
    def _end(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        if not self._active:
            # What an earlier validation logged says nothing about the prompt of this one, whose
            # checkpoint would carry it.
            for name in self._logged:
                trainer.callback_metrics.pop(name, None)
            return
        for name, value in self.values(trainer, cast(PromptTuner, pl_module)).items():
            # `values` are equal on every rank; to say so by `sync_dist` spares a warning.
            pl_module.log(f"{stage}/{name}", value, sync_dist=True)
            self._logged.add(f"{stage}/{name}")
        self._active = False
