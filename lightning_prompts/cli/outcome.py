"""What a finished or stopped trainer has to say, taken to the terminal."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_prompts.callbacks import early_end
from lightning_prompts.callbacks.base import callback_of
from lightning_prompts.cli import table
from lightning_prompts.cli.advice import convergence
from lightning_prompts.cli.completion import read_step
from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.files.console import notice
from lightning_prompts.files.errors import PromptError, RunError
from lightning_prompts.files.stages import SPLIT_OF, Stage
from lightning_prompts.files.text import command, short_path
from lightning_prompts.runs.best_prompt import BestPrompt
from lightning_prompts.runs.folder import CHECKPOINTS, CONFIG, LAST, PROMPT, run_folder
from lightning_prompts.runs.last_prompt import LastPrompt
from lightning_prompts.runs.predictions import Predictions
from lightning_prompts.runs.reading import read_prompt
from lightning_prompts.runs.record import RunRecord, describe, scored_rows
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tuners.base import PromptTuner

# What a disk says that takes no more, and what to do about it.
DISK = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "make room",
    errno.EROFS: "make it writable again",
    errno.EACCES: "change its permissions",
    errno.EIO: "look at the disk",
}
# Metrics of what a prompt turns into, which may be of fewer rows.
COMPARED = ("hard_accuracy", "hard_loss", "round_trip_accuracy")
# How answers are scored, where it is not by the sum of their tokens' log-probabilities.
SCORED = {"sum": "", "mean": " (mean of their tokens)", "pmi": " (less what they are without text)"}


@contextlib.contextmanager
def explained(trainer: Trainer) -> Iterator[None]:
    """Say of a fit that cannot go on why, and what it leaves to go on from.

    Raises:
        PromptError: In place of a `RunError`, or of what a full or read-only disk raises.
    """
    hook = threading.excepthook
    # TensorBoard writes in a thread, which would show a traceback of its own.
    threading.excepthook = lambda args: None if _of_disk(args.exc_value) else hook(args)
    try:
        yield
    except RunError as error:
        raise PromptError(f"{error}; {_left(trainer)}") from error
    except OSError as error:
        found = _of_disk(error)
        if found is None or found.errno is None:
            raise
        where = short_path(Path(os.fsdecode(found.filename or folder(trainer))))
        raise PromptError(
            f"{where}: {found.strerror}; {DISK[found.errno]}; {_left(trainer)}"
        ) from error
    finally:
        threading.excepthook = hook


def _of_disk(error: BaseException | None) -> OSError | None:
    """The first error of a chain that says that the disk takes no more."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK:
            return error
        error = error.__cause__ or error.__context__
    return None


def _left(trainer: Trainer) -> str:
    """The last good checkpoint, and the command that goes on with it."""
    run = callback_of(trainer, LastPrompt).run
    last = None if run is None else run / CHECKPOINTS / LAST
    if run is None or last is None or not last.is_file():
        return "no checkpoint was saved before."
    return (
        f"the last good checkpoint is {short_path(last)} (step {read_step(last)}); to go on "
        f"from it: {_command(run)}"
    )


def announce(trainer: Trainer, tuner: PromptTuner, task: PromptTask, checkpoint: str | None) -> int:
    """Say what runs on what; return the step that it begins from.

    Args:
        trainer: About to run.
        tuner: To train or to measure.
        task: Whose rows are used.
        checkpoint: The file that the prompt comes from, None for a new prompt.
    """
    step = read_step(Path(checkpoint)) if checkpoint else 0
    if trainer.is_global_zero:
        devices = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
        where = f"{devices}{trainer.strategy.root_device.type}, {trainer.precision}"
        notice(f"{type(tuner).__name__} on {task.slug} with {tuner.lm.label} ({where})")
        if tuner.classifies:
            notice(f"answers: {tuner.verbalizer}{SCORED[tuner.verbalizer.score]}")
        if checkpoint:
            notice(f"from {short_path(Path(checkpoint))} (step {step})")
    return step


def fitted(
    trainer: Trainer, tuner: PromptTuner, task: PromptTask, start: int, stopped: bool
) -> None:
    """Show the best prompt of a run, as its prompt.json describes it.

    Args:
        trainer: After `fit`.
        tuner: Of the run.
        task: Of the run.
        start: The step that it began from.
        stopped: Whether a signal ended it.
    """
    if _rehearsed(trainer, stopped):
        return
    run = folder(trainer)
    best, last = callback_of(trainer, BestPrompt), callback_of(trainer, LastPrompt)
    notes: list[str | None] = []
    if stopped:
        notes.append(f"Stopped {early_end.at_step(trainer, tuner)}{_go_on(run)}")
    else:
        notes += early_end.closing_notes(trainer, tuner, last.ends.end, start, _command(run))
        if tuner.learns and start < trainer.global_step:
            limit = early_end.limit_reached(trainer)
            notes.append(convergence(best.history, best.mode, limit))
    if evaluation := best_evaluation(trainer, tuner, task):
        table.show(evaluation, task.slug, tuner.lm.label, run, notes)
    else:
        table.unmeasured(run, notes)


def _command(run: Path) -> str:
    """What goes on with a run."""
    return command("fit", "--config", short_path(run / CONFIG), "--ckpt_path", "last")


def _go_on(run: Path) -> str:
    """The end of a sentence on a run that was stopped."""
    if not (run / CHECKPOINTS / LAST).is_file():
        return ", before anything was saved; start it anew."
    return f"; to go on:\n  {_command(run)}"


def require_steps(trainer: Any, tuner: PromptTuner, start: int) -> None:
    """Refuse to call a fit a success that was asked for steps and took none.

    Args:
        trainer: After a `fit` that no signal ended.
        tuner: Of the run.
        start: The step that it began from.

    Raises:
        PromptError: If so, with what kept it from its first step.
    """
    unasked = trainer.max_steps == 0 or trainer.max_epochs == 0
    if trainer.global_step > 0 or start > 0 or unasked or not tuner.learns:
        return
    if trainer.limit_train_batches == 0:
        end = early_end.EarlyEnd("--trainer.limit_train_batches is 0", "leave it out")
    else:
        end = callback_of(trainer, LastPrompt).ends.end or early_end.asked_by(trainer)
    fix = end.fix or "leave it out, or give it more to begin with"
    raise PromptError(f"No step was taken: {end.cause}; {fix}.")


def _rehearsed(trainer: Trainer, stopped: bool = False) -> bool:
    """Whether a few batches were all that was asked for; says so."""
    rehearsed = bool(getattr(trainer, "fast_dev_run", False))
    if rehearsed:
        ran = "stopped by a signal" if stopped else "every part ran"
        notice(f"fast_dev_run: {ran}, nothing was saved.")
    return rehearsed


def folder(trainer: Trainer) -> Path:
    """The run's folder; unlike `run_folder` for one rank alone, after the run."""
    best = callback_of(trainer, BestPrompt)
    if best.run is None and best.best_model_path:  # the processes were spawned from this one
        return Path(best.best_model_path).parents[1]
    return best.run or run_folder(trainer)


def best_evaluation(trainer: Trainer, tuner: PromptTuner, task: PromptTask) -> Evaluation | None:
    """The best validation of a run, None where there was none."""
    if not Path(callback_of(trainer, BestPrompt).best_model_path).is_file():
        return None
    prompt = read_prompt(folder(trainer) / PROMPT)
    return _evaluation(trainer, prompt, tuner, task, "val", prompt.rows.get("validation"))


def evaluated(trainer: Trainer, tuner: PromptTuner, task: PromptTask, stage: Stage) -> None:
    """Show the prompt that was just validated or tested. Call it on every rank.

    Args:
        trainer: After `validate` or `test`.
        tuner: Holds the prompt.
        task: Whose rows were scored.
        stage: `val` or `test`.
    """
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    # By all processes: a language model that is divided over them reads the prompt with them all.
    prompt = describe(trainer, tuner, metrics)
    if not trainer.is_global_zero:
        return
    prompt.baselines = tuner.comparisons or prompt.baselines
    run = None if _rehearsed(trainer) else folder(trainer)
    evaluation = _evaluation(trainer, prompt, tuner, task, stage, scored_rows(trainer, stage))
    path = None if run is None else run / PROMPT
    saved = path is not None and path.is_file() and read_prompt(path).ids == prompt.ids
    table.show(evaluation._replace(saved=saved), task.slug, tuner.lm.label, run)


def predicted(trainer: Trainer, task: PromptTask) -> None:
    """Say where predictions were written, of how many rows, and how many of these were cut.

    Args:
        trainer: After `predict`.
        task: Whose rows were read.
    """
    predictions = callback_of(trainer, Predictions)
    rows, of_rows = predictions.num_rows, task.report.rows.get("predict")
    if _rehearsed(trainer):
        return
    if predictions.path is None:
        notice(f"{rows:,} of {of_rows or 0:,} rows; --predictions.resume true goes on")
        return
    cut = task.cut_rows("predict", rows) if predictions.num_cut is None else predictions.num_cut
    what = table.scored(rows, of_rows) + (f", {table.cut_to_fit(cut)}" if cut else "")
    table.written(predictions.path, what)


def _evaluation(
    trainer: Trainer,
    prompt: RunRecord,
    tuner: PromptTuner,
    task: PromptTask,
    stage: Stage,
    rows: int | None,
) -> Evaluation:
    prefix, split = f"{stage}/", SPLIT_OF[stage]
    metrics = {
        name.removeprefix(prefix): value
        for name, value in prompt.metrics.items()
        if name.startswith(prefix)
    }
    compared = int(metrics.get("compared_rows") or 0)
    compared = compared if rows and compared < rows else 0
    if compared:  # beside numbers of all rows they would mislead
        metrics = {name: value for name, value in metrics.items() if name not in COMPARED}
    return Evaluation(
        prompt,
        metrics,
        prompt.baselines,
        stage,
        rows,
        compared_rows=compared or None,
        of_rows=task.report.rows.get(split),
        cut=task.cut_rows(split, rows) if rows else 0,
        iterate=tuner.has_soft_prompt and not tuner.soft_in_use,
        columns=tuner.columns(stage),
        legend=tuner.legend(stage),
        judged="joint" in tuner.columns("test").values(),
        left_out=task.report.left_out.get(split, 0),
    )
