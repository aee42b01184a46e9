"""When a run's two checkpoints are saved: best.ckpt with its prompt.json, and last.ckpt."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_prompts.callbacks.base import callback_of, find_callback
from lightning_prompts.callbacks.faithfulness import Faithfulness
from lightning_prompts.callbacks.prompt_text import holding
from lightning_prompts.files import lightning_internals as internals
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.stages import fitting
from lightning_prompts.runs.folder import CHECKPOINTS, PROMPT, run_folder
from lightning_prompts.runs.history import History
from lightning_prompts.runs.record import describe, scored_rows
from lightning_prompts.runs.stopping import Stopping
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.prompt_init import RECORD

DUE = "validation_due"  # its key in a checkpoint
PARTIAL = "partial"  # its key in a checkpoint
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
        # Or the only validation of a tuner that never steps would be skipped.
        internals.save_again(self)

    @property
    def folder(self) -> Path:
        """The run's folder.

        Raises:
            PromptError: If no run has begun.
        """
        if self.run is None:
            raise PromptError("No run has begun, so there is no folder; call Trainer.fit first.")
        return self.run

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
        self._partial = False
        """Whether some measures of the best prompt are of a part of the rows."""

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
        self._of_step = internals.step_metrics(trainer) or self._of_step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where this validation is the best so far.

        Raises:
            PromptError: If nothing of the monitored name is logged.
        """
        if fitting(trainer):
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
        faithfulness = find_callback(trainer, Faithfulness)
        self._partial = faithfulness is not None and faithfulness.partial

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the best prompt on all rows, where it was not, and note where the run ends."""
        super().on_train_end(trainer, pl_module)
        if self._partial and isinstance(pl_module, PromptTuner):
            self._complete(trainer, pl_module)
        self._measures.end(trainer.global_step, _tokens(pl_module))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Note where it was stopped."""
        super().on_exception(trainer, pl_module, exception)
        self._measures.end(trainer.global_step, _tokens(pl_module))

    def _complete(self, trainer: Trainer, tuner: PromptTuner) -> None:
        """Put measures of all rows in the place of those of a part, in the best prompt's files."""
        path = Path(self.best_model_path)
        if not path.is_file():
            return
        content = torch.load(path, map_location="cpu", weights_only=True)
        with holding(tuner, content["state_dict"]):
            found = callback_of(trainer, Faithfulness).of_all_rows(trainer, tuner)
        self._partial = False
        content[RECORD]["metrics"] |= found
        content["callbacks"][self.state_key][PARTIAL] = False
        trainer.strategy.save_checkpoint(content, path)
        if trainer.is_global_zero:
            described = path.parents[1] / PROMPT
            record = json.loads(described.read_text(encoding="utf-8"))
            record["metrics"] = dict(sorted({**record["metrics"], **found}.items()))
            write_json(described, record)

    def _measured(self, trainer: Trainer) -> dict[str, float]:
        """What this validation logged: the last values of a callback that skips it are old."""
        return {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("val/") and value is not self._old_metrics.get(name)
        }

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, the history, and the seconds that the run took."""
        own = {"history": self.history, "seconds": self._measures.seconds, PARTIAL: self._partial}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As saved."""
        super().load_state_dict(state_dict)
        self.history = [list(entry) for entry in state_dict["history"]]
        self._partial = state_dict.get(PARTIAL, False)
        self._measures.resume(state_dict.get("seconds", 0.0))


class LastPrompt(Stopping, _RunCheckpoint):
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


def restore_prompt(tuner: PromptTuner, checkpoint: Path) -> None:
    """Put a checkpoint's prompt into the tuner, wherever it was trained."""
    content = torch.load(checkpoint, weights_only=True, map_location="cpu")
    tuner.on_load_checkpoint(content)
    tuner.load_state_dict(content["state_dict"])


def _tokens(module: LightningModule) -> float | None:
    """Tokens that the language model has read in training."""
    return float(module.forward_tokens) if isinstance(module, PromptTuner) else None


def _moved(path: str, folder: Path) -> str:
    return str(folder / Path(path).name) if path else path
