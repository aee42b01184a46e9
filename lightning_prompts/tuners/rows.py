"""What a tuner may ask of the data that it is trained on."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from lightning_prompts.lm.batch import Batch, Example
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.panel.frames import TaskKind
from lightning_prompts.metrics.panel.measures import TaskFacts


@runtime_checkable
class TaskRows(Protocol):
    """The rows of a task, as far as a tuner asks for more than batches."""

    def texts(self, *splits: str) -> list[tuple[str, str]]:
        """What each row of these splits has before the prompt and behind it."""

    def training_lengths(self) -> list[Batch]:
        """Training batches of all lengths, on the CPU."""


@runtime_checkable
class EncodesRows(Protocol):
    """Rows of a task that another model can encode as well."""

    def encoded_by(self, template: Template, split: str, most: int) -> dict[int, Example]:
        """The rows of a split by their numbers, in another model's template.

        Args:
            template: Made for that model.
            split: For example `train`.
            most: Tokens that a row may have, at most.
        """


@runtime_checkable
class DescribedTask(Protocol):
    """What the panel of scrutability asks of a task."""

    kind: TaskKind | None

    def has(self, split: str) -> bool:
        """Whether there is such a split."""

    def training_texts(self) -> Iterator[str]:
        """Texts of training rows."""


def task_facts(rows: Any, verbalizer: Verbalizer) -> TaskFacts:
    """What the panel of scrutability asks of a task.

    Args:
        rows: The trainer's data module; plain loaders say nothing of kind and texts.
        verbalizer: Of the task.
    """
    facts = TaskFacts(answers=[answer for some in verbalizer.answers for answer in some])
    if isinstance(rows, DescribedTask):
        facts.kind = rows.kind
        facts.texts = list(rows.training_texts()) if rows.has("train") else []
    return facts


def task_rows(trainer: Any) -> TaskRows | None:
    """The trainer's data module; None for plain loaders, or a data module without these."""
    found = getattr(trainer, "datamodule", None)
    return found if isinstance(found, TaskRows) else None


def validation_batches(trainer: Any) -> Iterator[Batch]:
    """The batches that a validation of this fit has, on the process's device."""
    most = trainer.num_val_batches[0]
    for batch in islice(trainer.val_dataloaders, int(most) if math.isfinite(most) else None):
        yield trainer.strategy.batch_to_device(batch)
