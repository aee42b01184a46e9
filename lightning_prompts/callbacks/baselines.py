"""What every prompt has to beat: the most frequent class, and the model without a prompt."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from tqdm import tqdm

from lightning_prompts.callbacks.base import EvaluationCallback, task_of
from lightning_prompts.callbacks.tensorboard import OF_BASELINES, tensorboard
from lightning_prompts.files.amounts import count
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.lightning_internals import logged_step
from lightning_prompts.files.stages import SPLIT_OF, Stage, fitting
from lightning_prompts.files.version import __version__
from lightning_prompts.lm.batch import Batch
from lightning_prompts.metrics.task import add_answers, task_metrics
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tuners.base import PromptTuner

MAJORITY, NO_PROMPT, CALIBRATED = "majority", "no prompt", "no prompt, calibrated"
WRITTEN = "written prompt"
KEPT = ".baselines"  # a folder of files named by all that they depend on
PROGRESS_AFTER_SECONDS = 2.0


class Baselines(EvaluationCallback):
    """Measures the baselines on the rows of an evaluation, once for each of validation and test.

    *majority* answers the most frequent label of the training rows; *no prompt* is the template
    with nothing in its place; *calibrated*, the mean log-probability of each class over training
    texts, without their labels, is subtracted first. A tuner that does not beat that one has only
    learned which class is frequent.

    They do not change while a prompt is trained, so they are measured in the first evaluation, one
    pass a batch, kept in the checkpoint and beside the runs, in the logger's own folder, for the
    next run; and measured again only where the data, the model or their setting are others. Without
    a data module (plain loaders) there is only *no prompt*. Loggers get them once, as
    `baseline/...`; TensorBoard, for level lines, at every validation, as `vs_baseline/...`.

    Args:
        text: A prompt that a person wrote, to stand beside them as *written prompt*.
    """

    def __init__(self, text: str | None = None) -> None:
        super().__init__()
        self.text = text or None
        self.results: dict[str, dict[str, float]] = {}
        """Of the latest evaluation: `accuracy`, `macro_f1` and, but for *majority*, `loss`."""
        self._known: dict[str, dict[str, Any]] = {}
        self._stage: Stage = "val"
        self._of_nothing: Tensor | None = None
        self._of_written: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tokenize the written prompt: one that cannot be read is said before any training."""
        if self.text is not None and stage != "predict":
            assert isinstance(pl_module, PromptTuner)
            pl_module.lm.encode(self.text, "--baselines.text")

    def wanted(self, trainer: Trainer, tuner: PromptTuner, stage: Stage) -> bool:
        """Whether the baselines of this stage, on this data, are not known yet."""
        if not tuner.classifies:
            self.results = {}
            return False
        self._stage = stage
        self._identity = _identity(trainer, tuner, stage, self.text)
        known = self._known.get(stage)
        if known is not None and known["identity"] == self._identity:
            self.results = known["results"]
            return False
        found = _kept(trainer, self._identity)
        if found is None:
            return True
        self._take(found)
        self._log(trainer)
        return False

    def begin(self, trainer: Trainer, tuner: PromptTuner, stage: Stage) -> None:
        """Calibrate on the training texts."""
        task = task_of(trainer)
        num_classes = len(tuner.verbalizer.labels)
        names = [NO_PROMPT] if task is None else [MAJORITY, NO_PROMPT, CALIBRATED]
        names += [] if self.text is None else [WRITTEN]
        self._written = tuner.lm.encode(self.text or "")
        self._metrics = {name: task_metrics(num_classes).to(tuner.device) for name in names}
        self._of_nothing = tuner.scored_without_text(tuner.lm.embedding_table[:0])
        if self.text is not None:
            self._of_written = tuner.scored_without_text(self._written_rows(tuner))
        if task is not None:
            self._majority = tuner.verbalizer.index(task.report.majority_label)
            self._prior = mean_log_probabilities(
                trainer, task, lambda batch: self._no_prompt_logits(tuner, batch)
            )

    def measure(self, tuner: PromptTuner, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Answer one batch without the prompt."""
        logits = self._no_prompt_logits(tuner, batch)
        answers = {NO_PROMPT: logits}
        if self.text is not None:
            answers[WRITTEN] = self._written_logits(tuner, batch)
        if CALIBRATED in self._metrics:
            answers[CALIBRATED] = logits.log_softmax(-1) - self._prior
            majority = torch.full_like(batch["labels"], self._majority)
            answers[MAJORITY] = F.one_hot(majority, logits.shape[1]).float()
        for name, answer in answers.items():
            add_answers(self._metrics[name], answer, batch["labels"])

    def values(self, trainer: Trainer, tuner: PromptTuner) -> Mapping[str, Tensor | float]:
        """Keep the results and log them, apart from the prompt's own."""
        results = {
            name: {key: value.item() for key, value in metrics.compute().items()}
            for name, metrics in self._metrics.items()
        }
        if MAJORITY in results:
            del results[MAJORITY]["loss"]  # a constant answer has no probabilities
        self._take(results)
        if trainer.is_global_zero and (path := _path(trainer, self._identity)) is not None:
            with contextlib.suppress(OSError):  # to measure again costs less than to stop here
                write_json(path, results)
        self._log(trainer)
        return {}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._draw(trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        super().on_test_epoch_end(trainer, pl_module)
        self._draw(trainer)

    def _take(self, results: dict[str, dict[str, float]]) -> None:
        self.results = results
        self._known[self._stage] = {"identity": self._identity, "results": results}

    def _log(self, trainer: Trainer) -> None:
        """Give them to the loggers once, under `baseline/...`."""
        named = self._named("baseline")
        for logger in trainer.loggers:
            if not isinstance(logger, TensorBoardLogger):
                logger.log_metrics(named, step=trainer.global_step)

    def _draw(self, trainer: Trainer) -> None:
        """Give them to TensorBoard, at every evaluation: a level line beside the curves."""
        if not trainer.sanity_checking and (logger := tensorboard(trainer)) is not None:
            step = trainer.global_step if fitting(trainer) else logged_step(trainer)
            logger.log_metrics(self._named(OF_BASELINES), step=step)

    def _named(self, group: str) -> dict[str, float]:
        """The results in one mapping, by stage, name and metric."""
        return {
            f"{group}/{self._stage}_{name.replace(',', '').replace(' ', '_')}_{key}": value
            for name, values in self.results.items()
            for key, value in values.items()
        }

    def _written_logits(self, tuner: PromptTuner, batch: Batch) -> Tensor:
        """[B, C] Class logits of the written prompt."""
        ids, lm = self._written, tuner.lm
        if batch["num_tokens"] + len(ids) + tuner.verbalizer.depth > lm.max_positions:
            raise PromptError(
                f"--baselines.text, {count(len(ids), 'token')}, does not fit beside a text of "
                f"{batch['num_tokens']} in the {lm.max_positions} positions of {lm.label}; shorten "
                "it, or lower --data.max_tokens."
            )
        hidden = tuner.answer_hidden(self._written_rows(tuner), batch)
        return tuner.class_logits(hidden, self._of_written)

    def _written_rows(self, tuner: PromptTuner) -> Tensor:
        """[P, H] The written prompt."""
        return tuner.lm.embed(torch.tensor(self._written, dtype=torch.long, device=tuner.device))

    def _no_prompt_logits(self, tuner: PromptTuner, batch: Batch) -> Tensor:
        """[B, C] Class logits of the template with nothing in the prompt's place."""
        hidden = tuner.answer_hidden(tuner.lm.embedding_table[:0], batch)
        return tuner.class_logits(hidden, self._of_nothing)

    def state_dict(self) -> dict[str, Any]:
        """The results with what they were measured on."""
        return super().state_dict() | {"known": self._known}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As saved; whether they still hold is asked before each evaluation."""
        super().load_state_dict(state_dict)
        self._known = state_dict["known"]


def mean_log_probabilities(
    trainer: Trainer, task: PromptTask, logits: Callable[[Batch], Tensor]
) -> Tensor:
    """[C] Mean log-probability of each class over training texts, without their labels.

    Args:
        trainer: Of the evaluation.
        task: Has the texts.
        logits: B examples to [B, C], computed in the trainer's precision.
    """
    batches = tqdm(
        list(task.calibration_batches()),  # a few, so that the bar has a total
        desc="Calibrating on training texts",
        unit="batch",
        leave=False,
        delay=PROGRESS_AFTER_SECONDS,
        disable=not trainer.is_global_zero or trainer.progress_bar_callback is None,
    )
    parts = []
    for batch in batches:
        with EvaluationCallback.precision(trainer), torch.no_grad():
            found = logits(trainer.strategy.batch_to_device(batch))
        parts.append(found.log_softmax(-1))
    return torch.cat(parts).nanmean(0)


def _identity(trainer: Trainer, tuner: PromptTuner, stage: Stage, text: str | None) -> str:
    """Names all that the results depend on: model, template, words, rows and texts to calibrate."""
    batches = trainer.num_val_batches if stage == "val" else trainer.num_test_batches
    parts: list[tuple[object, ...]] = [
        (tuner.lm.fingerprint, trainer.precision, tuner.template.text, tuner.verbalizer),
        (tuner.lm.embedding_table.dtype, tuner.device.type, __version__),
        (stage, batches, trainer.world_size, text),
    ]
    if (task := task_of(trainer)) is not None:
        report = task.report
        split = SPLIT_OF[stage]
        rows = [task.rows(name).fingerprint for name in ("train", split)]
        # The limit leaves room for the prompt: where it cuts nothing, prompts of all lengths share.
        limit = report.max_tokens if task.cuts(split) else None
        parts.append((task.slug, report.majority_label, limit, task.seed))
        parts.append((task.truncate, task.val_batch_size, tuner.lm.prefix_ids, rows))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _path(trainer: Trainer, identity: str) -> Path | None:
    """Where the runs of a folder keep these; None where they have no folder in common."""
    folder = None if trainer.logger is None else trainer.logger.save_dir
    return None if folder is None else Path(folder, KEPT, f"{identity}.json")


def _kept(trainer: Trainer, identity: str) -> dict[str, dict[str, float]] | None:
    """What another run of the same folder has measured, the same on every process."""
    found = None
    if trainer.is_global_zero and (path := _path(trainer, identity)) is not None:
        with contextlib.suppress(OSError, ValueError):  # none, or no such file
            found = json.loads(path.read_text(encoding="utf-8"))
    return cast(dict[str, dict[str, float]] | None, trainer.strategy.broadcast(found))
