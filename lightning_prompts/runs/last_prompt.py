"""last.ckpt: where a run goes on from, whatever stopped it."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_prompts.files import lightning_internals as internals
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.best_prompt import BestPrompt
from lightning_prompts.runs.checkpoint import RunCheckpoint
from lightning_prompts.runs.stopping import Stopping
from lightning_prompts.tuners.base import PromptTuner

DUE = "validation_due"  # its key in a checkpoint
WITHIN = "within_step"  # its key in a checkpoint


class LastPrompt(Stopping, RunCheckpoint):
    """Keeps last.ckpt: before and after every validation, and where the run is stopped.

    It carries the state of `BestPrompt`, and so comes behind it, in whatever order they are given.

    With gradient accumulation nothing is saved within a step, whose gradient is in no checkpoint; a
    validation there is followed by a save at the step's end.
    """

    def __init__(self) -> None:
        super().__init__(filename="last")
        self._due = False
        """Whether what is saved now has yet to be validated."""
        self._resumed_at = -1
        """The step of the checkpoint that the fit goes on from."""
        self._within = False
        """Whether a step has had some of its batches, and not yet all."""
        self._put_off = False
        """Whether a validation within this step is still to be saved."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stand behind the best prompt's."""
        super().setup(trainer, pl_module, stage)
        # A new list: Lightning is going through the old one.
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(each, BestPrompt) for each in callbacks[callbacks.index(self) :]):
            others = [each for each in callbacks if each is not self]
            trainer.callbacks = [*others, self]  # type: ignore[attr-defined]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Learn whether the checkpoint has yet to be validated.

        Raises:
            PromptError: If a fit would go on from within a step.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        state = checkpoint["callbacks"].get(self.state_key, {})
        if state.get(WITHIN):
            raise PromptError(
                "This checkpoint was written within a step of several batches "
                "(--trainer.accumulate_grad_batches), whose gradient is lost; go on with "
                "--ckpt_path last."
            )
        self._resumed_at = checkpoint["global_step"]
        self.go_on(trainer, checkpoint, due=bool(state.get(DUE)))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save before a validation; where a signal came to any process, save and stop them all."""
        learns = not isinstance(pl_module, PromptTuner) or pl_module.learns
        self._within = learns and internals.within_step(trainer)
        self.ends.watch(trainer)
        stop = self.came(trainer) and not self._within
        due = self._validation_is_due(trainer, pl_module)
        if stop or due or (self._put_off and not self._within):
            # Here and not in `on_exception`: that comes after a finished epoch has been counted,
            # and a run resumed from there counts it again.
            self._due = due
            if internals.save_now(self, trainer):
                self._put_off = False
                internals.save_again(self)  # when it has been validated
                self.saved_unvalidated = trainer.global_step if due else -1
            self._due = False
        if stop:
            self.stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what was validated, unless a step is under way."""
        self.ends.watch(trainer)
        if self._within:
            self._put_off = True
        else:
            super().on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a run that ends without a validation."""
        self.ends.watch(trainer)
        # Without a step there is nothing new, and what was saved has not counted its epoch yet.
        if trainer.global_step != self._resumed_at and not self._within:
            internals.save_now(self, trainer)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, and whether this has yet to be validated, or is within a step."""
        return {**super().state_dict(), DUE: self._due, WITHIN: self._within}

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Write what was logged so far, then the checkpoint, which goes on behind it."""
        for logger in trainer.loggers:
            logger.save()
        super()._save_checkpoint(trainer, filepath)

    def _validation_is_due(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether Lightning will validate after this step."""
        if not trainer.enable_validation or internals.within_step(trainer):
            return False
        at_last_step = isinstance(pl_module, PromptTuner) and pl_module.at_last_step
        return at_last_step or internals.validates_after_step(trainer)
