"""What a run has ready for the callbacks of others: names, files and counts that they rely on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
)

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.lightning_internals import acts_at_epochs, saves_between_validations
from lightning_prompts.files.stages import fitting
from lightning_prompts.files.text import nearest
from lightning_prompts.runs.folder import BEST, CHECKPOINTS, LAST, PREVIOUS, run_folder


class Guests(Callback):
    """Lets Lightning's own callbacks act as documented within a run; comes before all of them.

    - A name that is watched and not logged is refused, where Lightning ends with a traceback.
    - A `ModelCheckpoint` writes beside the run's own checkpoints, never over them, knows them
      again when the run goes on, and names the step that it saves.
    - A `GradientAccumulationScheduler` counts on where a run goes on within an epoch.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give checkpoints of others a folder that is the same however it is named.

        Raises:
            PromptError: If they would take the run's own names, or rank a step by an earlier one.
        """
        own = run_folder(trainer) / CHECKPOINTS
        for callback in _guests(trainer, ModelCheckpoint):
            if callback.dirpath is None:
                # What was saved under a relative name would not be known again when it goes on.
                callback.dirpath = str(own.absolute())
            if stage == "fit" and Path(callback.dirpath).absolute() == own.absolute():
                _refuse_own_names(callback)
            if stage == "fit":
                _refuse_earlier_validation(callback)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set right what belongs to the batch that begins."""
        # The step that the last validation was logged at: until the next one, checkpoints would
        # carry it in their names, and write over one another.
        trainer.callback_metrics.pop("step", None)
        # The scheduler acts where an epoch begins, which a run that goes on within one does not.
        for callback in _guests(trainer, GradientAccumulationScheduler):
            counted = callback.get_accumulate_grad_batches(trainer.current_epoch)
            trainer.accumulate_grad_batches = counted

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the names that are watched at validations.

        Raises:
            PromptError: If one is not logged.
        """
        if fitting(trainer):
            _require_names(trainer, at_epochs=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for those that are watched at the end of an epoch.

        Raises:
            PromptError: If one is not logged.
        """
        _require_names(trainer, at_epochs=True)


def welcome(trainer: Any) -> None:
    """Let a trainer be ready for its other callbacks: before any of them acts."""
    trainer.callbacks.insert(0, Guests())


def _guests(trainer: Any, kind: type | tuple[type, ...]) -> Iterator[Any]:
    """The callbacks of a class that are not this package's."""
    for callback in trainer.callbacks:
        if isinstance(callback, kind) and not type(callback).__module__.startswith(__package__):
            yield callback


def _refuse_own_names(callback: ModelCheckpoint) -> None:
    name = LAST if callback.save_last else f"{callback.filename}.ckpt"
    if name in (BEST, LAST, PREVIOUS):
        what = "save_last" if callback.save_last else f"filename {callback.filename}"
        raise PromptError(
            f"--trainer.callbacks ModelCheckpoint: {what} would write over the run's own {name}; "
            "leave it out, or give a dirpath."
        )


def _refuse_earlier_validation(callback: ModelCheckpoint) -> None:
    """Lightning saves before the validation of a step, with what the one before has left."""
    if saves_between_validations(callback) and (callback.monitor or "").startswith("val/"):
        raise PromptError(
            f"--trainer.callbacks ModelCheckpoint: by steps or by time it would rank a step by the "
            f"{callback.monitor} of an earlier one; leave every_n_train_steps and "
            "train_time_interval out, and it saves at each validation."
        )


def _require_names(trainer: Trainer, at_epochs: bool) -> None:
    logged = sorted(trainer.callback_metrics)
    for callback in _guests(trainer, (EarlyStopping, ModelCheckpoint)):
        name = callback.monitor
        if name is None or name in logged or not _looks(callback, at_epochs):
            continue
        near = nearest(name, logged)
        meant = f" (did you mean {near}?)" if near else ""
        offered = [key for key in logged if key.startswith("val/")] or logged
        raise PromptError(
            f"--trainer.callbacks {type(callback).__name__}: monitor {name} is not logged{meant}; "
            f"there are {', '.join(offered)}."
        )


def _looks(callback: EarlyStopping | ModelCheckpoint, at_epochs: bool) -> bool:
    """Whether a callback now looks for its name, and does not go on without it."""
    goes_on = isinstance(callback, EarlyStopping) and not callback.strict
    return not goes_on and acts_at_epochs(callback) == at_epochs
