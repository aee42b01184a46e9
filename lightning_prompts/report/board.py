"""Images in TensorBoard: the trade-off of a run so far, and its tokens, shaded."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_prompts.callbacks.base import find_callback
from lightning_prompts.callbacks.tensorboard import tensorboard
from lightning_prompts.files.stages import fitting
from lightning_prompts.runs.best_prompt import BestPrompt
from lightning_prompts.runs.folder import run_folder
from lightning_prompts.runs.history import read_history
from lightning_prompts.runs.record import RunRecord, Validation, describe, finite
from lightning_prompts.tuners.base import PromptTuner

DPI = 110


class PromptFigures(Callback):
    """Draws at every validation of `fit`, for TensorBoard alone; nothing without its logger.

    `prompt/trade_off` has a point for each validation so far, performance against perplexity;
    `prompt/tokens` has the prompt's tokens, shaded by surprise and by distance.
    """

    def __init__(self) -> None:
        self._validations: list[Validation] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, or go on behind what the run's history has."""
        self._validations = []
        if trainer.global_step and _wanted(trainer):
            known = read_history(run_folder(trainer))
            self._validations = [v for v in known if v.step <= trainer.global_step]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw on the first process; a language model that is divided takes them all to read."""
        if not fitting(trainer) or not _wanted(trainer):
            return
        assert isinstance(pl_module, PromptTuner)
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        record = describe(trainer, pl_module, finite(measured))
        record.step = trainer.global_step
        self._validations = [v for v in self._validations if v.step < record.step]
        self._validations.append(Validation(record.step, 0.0, None, record.metrics))
        if (logger := tensorboard(trainer)) is not None:
            self._draw(logger, record, find_callback(trainer, BestPrompt) or BestPrompt())

    def _draw(self, logger: TensorBoardLogger, record: RunRecord, chooser: BestPrompt) -> None:
        """Write both images."""
        # These load matplotlib, which a run has no need of before.
        from lightning_prompts.report.figures import looks
        from lightning_prompts.report.figures.prompts import one_prompt
        from lightning_prompts.report.figures.run import pixels, trade_off

        sign = 1 if chooser.mode == "min" else -1
        best = min(
            (v for v in self._validations if chooser.monitor in v.metrics),
            key=lambda v: sign * v.metrics[str(chooser.monitor)],
            default=None,
        )
        with looks.style():
            figures = {
                "trade_off": trade_off(
                    self._validations,
                    -1 if best is None else best.step,
                    record.soft_in_use,
                    record.baselines,
                ),
                "tokens": one_prompt(record),
            }
            for name, figure in figures.items():
                if figure is not None:
                    image = pixels(figure, DPI)
                    logger.experiment.add_image(
                        f"prompt/{name}", image, record.step, dataformats="HWC"
                    )


def _wanted(trainer: Trainer) -> bool:
    """Whether TensorBoard is among the run's loggers, the same on every process."""
    return any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
