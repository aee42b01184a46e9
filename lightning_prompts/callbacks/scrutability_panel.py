"""The panel of scrutability at evaluations: which measures, on which rows, read by whom."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_prompts.callbacks.base import EvaluationCallback, gathered, task_of
from lightning_prompts.callbacks.part import Part
from lightning_prompts.files.stages import SPLIT_OF, Stage
from lightning_prompts.lm.batch import Batch, on_device
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.answered import AnsweredRows
from lightning_prompts.metrics.panel.measures import (
    COSTLY,
    VALID,
    TaskFacts,
    chosen,
    scrutability_panel,
)
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.rows import Rows
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.rows import task_facts

log = logging.getLogger(__name__)

ROWS = 256  # that the costly measures pass over, about; all where there are fewer


class Panel:
    """Measures the panel in one evaluation after another.

    Args:
        names: Of measures, at every evaluation, or `all`; None is those that proved valid, in tests
            alone.

    Raises:
        PromptError: If there is no measure of a name.
    """

    def __init__(self, names: str | Sequence[str] | None) -> None:
        self.names = None if names is None else chosen(names)
        self._facts: tuple[PromptTask | None, TaskFacts] | None = None
        self._said: set[str] = set()
        self._begun: Sequence[str] = ()
        self._part: Part | None = None
        self._taken: list[tuple[Batch, Tensor]] = []

    def begin(self, trainer: Trainer, tuner: PromptTuner, stage: Stage) -> None:
        """Choose the measures of an evaluation, and what share of its rows they are of."""
        default = VALID if stage == "test" else ()
        self._begun = default if self.names is None else self.names
        self._stage, self._part, self._taken = stage, None, []
        task = task_of(trainer)
        if task is not None and tuner.classifies and set(self._begun) & set(COSTLY):
            batches = trainer.num_val_batches if stage == "val" else trainer.num_test_batches
            count = sum(batches)
            total = task.scored_rows(SPLIT_OF[stage], int(count)) if math.isfinite(count) else 0
            self._part = Part(min(1.0, ROWS / total) if total else 1.0)

    def measure(self, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Take some rows of a batch with what the prompt in use answers."""
        if self._part is not None and not batch["borrowed"]:
            self._take(self._part.add(outputs["logits"].argmax(-1), batch))

    def values(
        self, trainer: Trainer, tuner: PromptTuner, reader: FrozenLM | None
    ) -> dict[str, float]:
        """Values of the measures, the same on every process.

        Args:
            trainer: Of the evaluation that ends.
            tuner: Holds the prompt.
            reader: Reads the prompt's text; by default the task's model its tokens.
        """
        if not self._begun:
            return {}
        facts = self._of_task(trainer, tuner)
        facts.rows = self._rows(trainer, tuner)
        ids = tuner.hard_prompt().tolist()
        prompt = ids if reader is None else tuner.lm.decode(ids)
        reading = tuner.lm if reader is None else reader.to(tuner.device)
        try:
            return scrutability_panel(reading, prompt, self._begun, facts, say=self._say_once)
        finally:
            facts.rows = None  # on the device

    # ---- details

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            log.info(sentence)

    def _take(self, found: tuple[Tensor, Batch] | None) -> None:
        if found is not None:
            answers, batch = found
            self._taken.append((batch, answers))

    def _of_task(self, trainer: Trainer, tuner: PromptTuner) -> TaskFacts:
        """Kind, words and training texts, read once a task."""
        task = task_of(trainer)
        if self._facts is None or self._facts[0] is not task:
            facts = task_facts(task, tuner.verbalizer)
            self._facts = task, facts
        return self._facts[1]

    def _rows(self, trainer: Trainer, tuner: PromptTuner) -> AnsweredRows | None:
        """The rows that were taken by all processes, which all pass over all of them."""
        task = task_of(trainer)
        if self._part is None or task is None:
            return None
        self._take(self._part.rest())
        own = [(on_device(b, torch.device("cpu")), answers.cpu()) for b, answers in self._taken]
        taken = list(chain.from_iterable(gathered(trainer, own)))
        if not task.has("train"):
            self._say_once(
                f"{' and '.join(COSTLY)} recalibrate on training texts (not their labels), and "
                "there are none."
            )
            return None
        batches = [batch for batch, _ in taken]
        unlabelled = list(task.calibration_batches())
        return AnsweredRows(
            *(tuner.lm, tuner.template, tuner.verbalizer, tuner.hard_prompt().tolist()),
            batches=[trainer.strategy.batch_to_device(batch) for batch in batches],
            texts=shown_texts(task, task.rows(SPLIT_OF[self._stage]), batches),
            answers=torch.cat([answers for _, answers in taken]),
            unlabelled=[trainer.strategy.batch_to_device(batch) for batch in unlabelled],
            unlabelled_texts=shown_texts(task, task.rows("train"), unlabelled),
            precision=partial(EvaluationCallback.precision, trainer),
        )


def shown_texts(task: PromptTask, rows: Rows, batches: Sequence[Batch]) -> list[str]:
    """What a reader is shown of each row: its text, or its columns by their names."""
    places = {number: place for place, number in enumerate(rows.numbers)}
    columns = task.template.columns
    found = []
    for number in chain.from_iterable(batch["rows"].tolist() for batch in batches):
        row: Mapping[str, Any] = rows.rows[places[number]]
        named = [f"{column}: {row[column]}" for column in columns]
        found.append(str(row[columns[0]]) if len(columns) == 1 else "\n".join(named))
    return found
