"""One run of a study: a fit as anybody would start it, resumed where it was stopped, and a test."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.completion import read_step
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.stages import fitting
from lightning_prompts.runs.folder import CHECKPOINTS, CONFIG, LAST, PREVIOUS
from lightning_prompts.runs.reading import read_run
from lightning_prompts.runs.record import RunRecord
from lightning_prompts.studies.shared import SharedBaselines, SharedLM


class Reports(Callback):
    """Reports each validation to Optuna, and ends a run that it takes for hopeless.

    Args:
        trial: Of a study with one objective.
        metric: Its name.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial, self.monitor = trial, metric

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report."""
        value = trainer.callback_metrics.get(self.monitor)
        if not fitting(trainer) or value is None:
            return
        self.trial.report(float(value), trainer.global_step)
        # The last validation ends the run anyway.
        if not trainer.should_stop and self.trial.should_prune():
            raise optuna.TrialPruned(f"stopped after step {trainer.global_step} by the pruner")


def run_trial(
    args: Sequence[str],
    folder: Path,
    test: bool,
    lm: SharedLM,
    baselines: SharedBaselines,
    callbacks: Sequence[Callback] = (),
) -> RunRecord:
    """Fit, test, and read what came of it.

    Args:
        args: Of `fit`.
        folder: Of the run; what an earlier worker left there is gone on with.
        test: Whether to test the best prompt.
        lm: Gives the language model.
        baselines: Carries the baselines from run to run.
        callbacks: Further ones for the fit.

    Raises:
        PromptError: If the run cannot be made.
        SystemExit: If a signal ended it; its checkpoint is saved.
        optuna.TrialPruned: If the pruner ended it.
    """
    cli = _fit(args, folder, lm)
    # What does not fit is said before the training. The rows are read once.
    if cli.trainer.num_devices * cli.trainer.num_nodes > 1:
        raise PromptError(
            "A study's runs take one process each; set --trainer.devices 1, and give --workers N "
            "to run several at once."
        )
    if test:
        count_test_rows(cli)
    # Behind the checkpoints' own: a hopeless run too has saved what it has.
    cli.trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
    baselines.start(cli)
    if test:
        asked = ["test", "--config", str(folder / CONFIG), "--ckpt_path", "best"]
        baselines.start(PromptCLI(asked, run=False, show=False, make_lm=lm))
    return read_run(folder)


def count_test_rows(cli: PromptCLI) -> int:
    """Rows of a run's test.

    Raises:
        PromptError: If there are none, or without labels.
    """
    try:
        return len(cli.datamodule.read("test"))
    except PromptError as error:
        raise PromptError(f"{error} Or leave the tests out: --study.test false.") from error


def _fit(args: Sequence[str], folder: Path, lm: SharedLM) -> PromptCLI:
    """The fit, built and not begun."""
    if (checkpoint := _left(folder)) is not None:
        resume = ["fit", "--config", str(folder / CONFIG), "--ckpt_path", checkpoint.stem]
        return PromptCLI(resume, run=False, show=False, make_lm=lm)
    if folder.exists():
        shutil.rmtree(folder)
    return PromptCLI(list(args), run=False, show=False, make_lm=lm, folder=folder)


def _left(folder: Path) -> Path | None:
    """The latest checkpoint of a stopped worker that can be read."""
    for name in (LAST, PREVIOUS):
        found = folder / CHECKPOINTS / name
        if found.is_file() and (folder / CONFIG).is_file():
            # Whatever ended the worker may have damaged it.
            with contextlib.suppress(PromptError):
                read_step(found)
                return found
    return None
