"""A run's two checkpoints, best.ckpt with its prompt.json and last.ckpt, and how it stops."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lightning_prompts.callbacks.early_end import EarlyEnds
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.lightning_internals import step_metrics
from lightning_prompts.runs.folder import CHECKPOINTS, PROMPT, run_folder
from lightning_prompts.runs.history import History
from lightning_prompts.runs.record import describe, scored_rows
from lightning_prompts.runs.stop_signals import StopSignals, die_of_sigterm
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.prompt_init import RECORD

DUE = "validation_due"  # its key in a checkpoint
WITHIN = "within_step"  # its key in a checkpoint
# Logged between a step and its checkpoint, or said apart from the other measures.
NOT_OF_STEPS = ("train/padding", "train/forward_tokens")
# One file each, overwritten: what `best` and `last` mean never depends on a counter.
_ONE_FILE: dict[str, Any] = {
    "save_top_k": 1,
    "enable_version_counter": False,
    "auto_insert_metric_name": False,
    "save_on_train_epoch_end": False,
}


class _RunCheckpoint(ModelCheckpoint):
    """A checkpoint in the run's own folder, written after validations."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**_ONE_FILE, **kwargs)
        self.run: Path | None = None
        """The run's folder, known once it has begun."""
        # Lightning starts at 0, which would skip the only validation of a tuner that never steps.
        self._last_global_step_saved = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder."""
        self.run = run_folder(trainer)
        self.dirpath = str((self.run / CHECKPOINTS).absolute())
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the saved state, also where the run's folder has been moved."""
        here = Path(str(self.dirpath))
        moved = {k: _moved(v, here) for k, v in state_dict.items() if k.endswith("_path")}
        files = {_moved(k, here): v for k, v in state_dict["best_k_models"].items()}
        if all(Path(name).is_file() for name in files):
            super().load_state_dict(
                {**state_dict, **moved, "best_k_models": files, "dirpath": self.dirpath}
            )


class BestPrompt(_RunCheckpoint):
    """Keeps the prompt of the best validation as best.ckpt, and describes it in prompt.json.

    A tie goes to the earlier validation.

    Args:
        monitor: Logged name of the value that decides.
        mode: Whether the lowest (min) or the highest (max) value is the best.
    """

    def __init__(self, monitor: str = "val/objective", mode: Literal["min", "max"] = "min") -> None:
        super().__init__(monitor=monitor, mode=mode, filename="best")
        self.history: list[list[float]] = []
        """[step, value] of every validation so far."""
        self._measures = History()
        self._old_metrics: dict[str, Tensor] = {}
        self._of_step: dict[str, Any] = {}
        """What the training step before a validation logged."""

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take over what its step logged: a resumed run may begin with the validation after it."""
        self._of_step = checkpoint.get(RECORD, {}).get("metrics", {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin or go on with the run's history."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            assert self.run is not None
            self._measures.begin(self.run, trainer.global_step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what is logged already: it belongs to an earlier prompt."""
        self._old_metrics = dict(trainer.callback_metrics)
        self._of_step = step_metrics(trainer) or self._of_step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where this validation is the best so far.

        Raises:
            PromptError: If nothing of the monitored name is logged.
        """
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            value = trainer.callback_metrics.get(str(self.monitor))
            if value is None:
                names = ", ".join(k for k in sorted(trainer.callback_metrics) if k[:4] == "val/")
                raise PromptError(
                    f"--checkpoint.monitor {self.monitor} is not logged; there are {names}."
                )
            self.history.append([trainer.global_step, float(value)])
            trained = {k: v for k, v in self._of_step.items() if k.startswith("train/")}
            measured = {**trained, **self._measured(trainer)}
            metrics = {k: float(v) for k, v in sorted(measured.items()) if k not in NOT_OF_STEPS}
            self._measures.add(trainer.global_step, _tokens(pl_module), metrics)
        super().on_validation_end(trainer, pl_module)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Write the checkpoint, then the description of the same prompt."""
        super()._save_checkpoint(trainer, filepath)
        assert isinstance(trainer.lightning_module, PromptTuner)
        record = describe(trainer, trainer.lightning_module, self._measured(trainer))
        if (rows := scored_rows(trainer, "val")) is not None:
            record.rows = {"validation": rows}
        if trainer.is_global_zero:
            write_json(Path(filepath).parents[1] / PROMPT, record.to_json())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the run ends."""
        self._measures.end(trainer.global_step, _tokens(pl_module))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Note where it was stopped."""
        self._measures.end(trainer.global_step, _tokens(pl_module))

    def _measured(self, trainer: Trainer) -> dict[str, float]:
        """What this validation logged: the last values of a callback that skips it are old."""
        return {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/") and value is not self._old_metrics.get(name)
        }

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, the history, and the seconds that the run took."""
        own = {"history": self.history, "seconds": self._measures.seconds}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As saved."""
        super().load_state_dict(state_dict)
        self.history = [list(entry) for entry in state_dict["history"]]
        self._measures.resume(state_dict.get("seconds", 0.0))


class LastPrompt(StopSignals, _RunCheckpoint):
    """Keeps last.ckpt: before and after every validation, and where the run is stopped.

    The first SIGTERM or Ctrl-C ends the run after the step or the validation batch under way;
    another one at once. A run that ends within a validation, or before one that was due, begins
    with it when it goes on. One that a callback or its time had ended does not go on, unless that
    callback is gone or was given more.

    With gradient accumulation nothing is saved within a step, whose gradient is in no checkpoint; a
    validation there is followed by a save at the step's end.
    """

    def __init__(self) -> None:
        super().__init__(filename="last")
        self.ends = EarlyEnds()
        self._due = False
        """Whether what is saved now has yet to be validated."""
        self._saved_unvalidated = -1
        """The step whose state was last saved so."""
        self._resumes_due = False
        self._resumed_at = -1
        """The step of the checkpoint that the fit goes on from."""
        self._max_steps: int | None = None
        self._within = False
        """Whether a step has had some of its batches, and not yet all."""
        self._put_off = False
        """Whether a validation within this step is still to be saved."""

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Learn whether the checkpoint has yet to be validated.

        Raises:
            PromptError: If a fit would go on from within a step.
        """
        state = checkpoint["callbacks"].get(self.state_key, {})
        if trainer.state.fn == TrainerFn.FITTING and state.get(WITHIN):
            raise PromptError(
                "This checkpoint was written within a step of several batches "
                "(--trainer.accumulate_grad_batches), whose gradient is lost; go on with "
                "--ckpt_path last."
            )
        if trainer.state.fn == TrainerFn.FITTING:
            self._resumed_at = checkpoint["global_step"]
            self.ends.resume(trainer, checkpoint, due=bool(state.get(DUE)))
        if trainer.state.fn == TrainerFn.FITTING and state.get(DUE):
            self._resumes_due = True
            loop = trainer.fit_loop.epoch_loop
            if 0 < loop.max_steps <= checkpoint["global_step"]:
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
        self.listen()
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
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save before a validation; where a signal came to any process, save and stop them all."""
        learns = not isinstance(pl_module, PromptTuner) or pl_module.learns
        self._within = learns and trainer.fit_loop._should_accumulate()
        self.ends.watch(trainer)
        stop = self.came(trainer) and not self._within
        due = self._validation_is_due(trainer, pl_module)
        wanted = stop or due or (self._put_off and not self._within)
        if wanted and not self._should_skip_saving_checkpoint(trainer):
            # Here and not in `on_exception`: that comes after a finished epoch has been counted,
            # and a run resumed from there counts it again.
            self._due = due
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._due = self._put_off = False
            self._last_global_step_saved = -1  # it is saved again when it has been validated
            self._saved_unvalidated = trainer.global_step if due else -1
        if stop:
            trainer.fit_loop.epoch_loop._skip_next_val = True
            # Lightning raises SIGTERMException when the step's bookkeeping is done.
            trainer._signal_connector.received_sigterm = True

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Leave a validation that a resumed run would begin with.

        Raises:
            SIGTERMException: If a signal came to any process.
        """
        if self._leaves_validation(trainer):
            raise SIGTERMException

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Write what was logged so far, then the checkpoint, which goes on behind it."""
        for logger in trainer.loggers:
            logger.save()
        super()._save_checkpoint(trainer, filepath)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn who asks for an end."""
        super().on_train_epoch_end(trainer, pl_module)
        self.ends.watch(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what was validated, unless a step is under way."""
        self.ends.watch(trainer)
        if self._within:
            self._put_off = True
        else:
            super().on_validation_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, and whether this has yet to be validated, or is within a step."""
        return {**super().state_dict(), DUE: self._due, WITHIN: self._within}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the trainer's limits as they were."""
        self.ends.finish(trainer)

    def _leaves_validation(self, trainer: Trainer) -> bool:
        return self._saved_unvalidated == trainer.global_step and self.came(trainer)

    def _validation_is_due(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether Lightning will validate after this step."""
        if not trainer.enable_validation or trainer.fit_loop._should_accumulate():
            return False
        if isinstance(pl_module, PromptTuner) and pl_module.at_last_step:
            return True
        fetcher = trainer.fit_loop._data_fetcher
        return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)

    def _validate(self, trainer: Trainer) -> None:
        """Validate as after the step that the checkpoint was saved at."""
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False  # from its first batch
        trainer.should_stop = self.ends.comes or trainer.fit_loop.done
        self._saved_unvalidated = trainer.global_step
        trainer.validating = True
        loop.run()
        trainer.training = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave an evaluation that is not part of a fit to the signal."""
        if trainer.state.fn != TrainerFn.FITTING:
            die_of_sigterm()
        elif self._saved_unvalidated == trainer.global_step:
            for logger in trainer.loggers:  # the step's own values came after it was saved
                logger.save()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a run that ends without a validation."""
        self.ends.watch(trainer)
        # Without a step there is nothing new, and what was saved has not counted its epoch yet.
        new = trainer.global_step != self._resumed_at and not self._within
        if new and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


def load_prompt(tuner: PromptTuner, checkpoint: Path) -> None:
    """Put a checkpoint's prompt into the tuner, wherever it was trained."""
    content = torch.load(checkpoint, weights_only=True, map_location="cpu")
    tuner.on_load_checkpoint(content)
    tuner.load_state_dict(content["state_dict"])


def _tokens(module: LightningModule) -> float | None:
    """Tokens that the language model has read in training."""
    return float(module.forward_tokens) if isinstance(module, PromptTuner) else None


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else path
