"""How a fit is stopped by SIGTERM or Ctrl-C, and goes on, so that nothing is lost or repeated."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_prompts.callbacks.early_end import EarlyEnds
from lightning_prompts.files.lightning_internals import number_logged_steps, stop_after_step
from lightning_prompts.tuners.base import PromptTuner


class Stopping(Callback):
    """Ends a fit at the first signal, after its step or validation batch; tests end at once.

    Another signal ends it at once. A run that ends within a validation, or before one that was due,
    begins with it when it goes on. One that a callback or its time had ended does not go on, unless
    that callback is gone or was given more.

    Whoever saves checkpoints extends it: `stop` ends the fit once its state is saved, and `go_on`
    is told whether a checkpoint has yet to be validated.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stopped_by: int | None = None
        """The signal that came to this process."""
        self.ends = EarlyEnds()
        self.saved_unvalidated = -1
        """The step whose state was last saved before its validation."""
        self._resumes_due = False
        self._max_steps: int | None = None

    # ---- stopping

    def came(self, trainer: Trainer) -> bool:
        """Whether a signal came to any process; all of them ask."""
        return trainer.strategy.reduce_boolean_decision(self.stopped_by is not None, all=False)

    def stop(self, trainer: Trainer) -> None:
        """End the fit after this step, without the validation that may be due."""
        stop_after_step(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Leave a validation that a resumed run would begin with.

        Raises:
            SIGTERMException: If a signal came to any process.
        """
        if self._leaves_validation(trainer):
            raise SIGTERMException

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave an evaluation that is not part of a fit to the signal."""
        if trainer.state.fn != TrainerFn.FITTING:
            die_of_sigterm(trainer)
        elif self.saved_unvalidated == trainer.global_step:
            for logger in trainer.loggers:  # the step's own values came after it was saved
                logger.save()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As for a validation."""
        die_of_sigterm(trainer)

    on_predict_start = on_test_start

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the first process the exit status of its signal, or a script would end with 0."""
        # Lightning kills the first process where another one ends with an error first.
        if isinstance(exception, SIGTERMException) and trainer.is_global_zero:
            exception.code = 128 + (self.stopped_by or signal.SIGTERM)

    def _leaves_validation(self, trainer: Trainer) -> bool:
        return self.saved_unvalidated == trainer.global_step and self.came(trainer)

    def _listen(self) -> None:
        """From now on; Lightning puts its caller's handlers back when it ends."""
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.stopped_by = signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Not through Python's buffers, which the signal may have interrupted.
        os.write(2, b"\nStopping after this step; once more to stop at once.\n")

    # ---- going on

    def go_on(self, trainer: Trainer, checkpoint: dict[str, Any], due: bool) -> None:
        """Go on from a checkpoint, not loaded yet.

        Args:
            trainer: Of the fit.
            checkpoint: Its callbacks' options give way to those that are given now.
            due: Whether it has yet to be validated.
        """
        self.ends.resume(trainer, checkpoint, due=due)
        self._resumes_due = due
        loop = trainer.fit_loop.epoch_loop
        if due and 0 < loop.max_steps <= checkpoint["global_step"]:
            # Or Lightning would find nothing left to do, and not even begin.
            self._max_steps = loop.max_steps
            loop.max_steps = checkpoint["global_step"] + 1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put off an end that another callback asks for until what is due has been validated."""
        self.ends.watch(trainer)
        if self._resumes_due:
            self.ends.put_off(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for signals, and begin with the validation that is due."""
        super().on_train_start(trainer, pl_module)
        self._listen()
        self.ends.begin(trainer)
        if isinstance(pl_module, PromptTuner):
            pl_module.leaves_validation = lambda: self._leaves_validation(trainer)
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None
        if self._resumes_due:
            self._resumes_due = False
            self._validate(trainer)

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Log a resumed run's steps under the numbers of an uninterrupted one."""
        # Lightning is one behind where the last validation was not a regular one.
        number_logged_steps(trainer, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn who asks for an end."""
        super().on_train_epoch_end(trainer, pl_module)
        self.ends.watch(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the trainer's limits as they were."""
        self.ends.finish(trainer)

    def _validate(self, trainer: Trainer) -> None:
        """Validate as after the step that the checkpoint was saved at."""
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False  # from its first batch
        trainer.should_stop = self.ends.comes or trainer.fit_loop.done
        self.saved_unvalidated = trainer.global_step
        trainer.validating = True
        loop.run()
        trainer.training = True


def die_of_sigterm(trainer: Trainer) -> None:
    """Undo Lightning's handler, which only notes the signal and lets an evaluation run on.

    One that it has noted before, while the baselines were computed, say, ends the process now.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if trainer.received_sigterm:
            signal.raise_signal(signal.SIGTERM)
