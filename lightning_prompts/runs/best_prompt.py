"""best.ckpt, and prompt.json, which describes the same prompt: of the best validation."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_prompts.callbacks.base import callback_of, find_callback
from lightning_prompts.callbacks.faithfulness import Faithfulness
from lightning_prompts.callbacks.prompt_text import holding
from lightning_prompts.files import lightning_internals as internals
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.stages import fitting
from lightning_prompts.runs.checkpoint import RunCheckpoint
from lightning_prompts.runs.folder import PROMPT
from lightning_prompts.runs.history import History
from lightning_prompts.runs.record import describe, scored_rows
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.prompt_init import RECORD

PARTIAL = "partial"  # its key in a checkpoint
# Logged between a step and its checkpoint, or said apart from the other measures.
NOT_OF_STEPS = ("train/padding", "train/forward_tokens")


class BestPrompt(RunCheckpoint):
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


def restore_prompt(tuner: PromptTuner, checkpoint: Path) -> None:
    """Put a checkpoint's prompt into the tuner, wherever it was trained."""
    content = torch.load(checkpoint, weights_only=True, map_location="cpu")
    tuner.on_load_checkpoint(content)
    tuner.load_state_dict(content["state_dict"])


def _tokens(module: LightningModule) -> float | None:
    """Tokens that the language model has read in training."""
    return float(module.forward_tokens) if isinstance(module, PromptTuner) else None
