"""Faithfulness at each validation: does the prompt behave like its nearest tokens, and its text?"""

import math
from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics import MeanMetric, SumMetric

from lightning_prompts.callbacks.base import EvaluationCallback, ends, task_of
from lightning_prompts.callbacks.part import Part
from lightning_prompts.callbacks.remembered import RememberedPasses
from lightning_prompts.files.option_types import Count
from lightning_prompts.files.stages import SPLIT_OF, Stage, fitting
from lightning_prompts.lm.batch import Batch, on_device, unpadded, whole_batch
from lightning_prompts.lm.class_scores import without_text
from lightning_prompts.metrics import faithfulness
from lightning_prompts.metrics.scrutability import round_trip
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.rows import validation_batches

# What is measured on rows, and may be of some of them alone.
OF_ROWS = frozenset(
    {
        *("hard_loss", "hard_accuracy", "soft_loss", "soft_accuracy"),
        *("loss_differential", "accuracy_differential"),
        *("output_differential", "round_trip_accuracy"),
    }
)
# Full-vocabulary logits are made for as many rows at a time as fit in 64 MiB of float32.
_LOGITS_AT_ONCE = 2**24


class Faithfulness(EvaluationCallback):
    """Logs how far the soft prompt is from its nearest tokens, and those from their own text.

    Makes only passes that nobody made: the prompt in use comes from the step, and tokens that were
    already scored on a batch are remembered. Under a soft prompt that is one pass more a batch
    (its tokens), under PEZ one (its iterate), under a written prompt none; one more where the text,
    tokenized as a whole, gives other tokens.

    Args:
        every_n_validations: In `fit`, measure at every n-th validation and at the last.
        max_batches: Measure only the first batches of each evaluation (of each process).
        rows: In `fit`, about how many of the validation rows to compare the prompts on, before the
            last validation; null is all. They are an even share of each class and of all lengths.
            The last validation and the best prompt are measured on all rows, and so are all
            validations where one of these measures chooses the prompt, ends the run or moves the
            rate. `compared_rows` says how many they were.
        positions: Where `output_differential` compares logits: at the `answer`, mean over the
            examples, or at the `prompt`'s own positions, as the paper does for encoder-decoders.
    """

    def __init__(
        self,
        every_n_validations: Count = 1,
        max_batches: Count | None = None,
        rows: Count | None = 128,
        positions: Literal["answer", "prompt"] = "answer",
    ) -> None:
        super().__init__(every_n_validations, max_batches)
        self.rows, self.positions = rows, positions
        self.partial = False
        """Whether the latest evaluation compared fewer rows than there were."""
        self._part: Part | None = None
        self._passes = RememberedPasses()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget passes of an earlier run: its model or precision may have been another."""
        self._passes.clear()

    def begin(self, trainer: Trainer, tuner: PromptTuner, stage: Stage) -> None:
        """Read the prompts that all batches are measured with."""
        share = self._share(trainer, tuner, stage)
        self.partial, self._part = share < 1, Part(share) if share < 1 else None
        ids = tuner.hard_prompt()
        self._ids: list[int] = ids.tolist()
        self._text = tuner.lm.decode(self._ids)
        self._hard, self._soft = tuner.lm.embed(ids), tuner.soft_prompt()
        self._of_hard, self._of_soft = map(tuner.scored_without_text, (self._hard, self._soft))
        self._of_text = self._of_hard
        self._passes.use(self._ids, keep=not tuner.lm.is_sharded)
        self._performance = faithfulness.PerformanceDifferential().to(tuner.device)
        self._output = faithfulness.OutputDifferential().to(tuner.device)
        # Without its search for NaN, which waits for the device at each batch.
        self._round_trip_accuracy = MeanMetric(nan_strategy="disable").to(tuner.device)
        self._compared = SumMetric(nan_strategy="disable").to(tuner.device)
        self._prompt_seen = False
        if self._of_hard is not None:
            with self.precision(trainer):
                self._of_text = self._text_without_text(tuner)

    def measure(self, tuner: PromptTuner, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Compare the prompts on one batch, or take some of its rows for a later comparison."""
        if not tuner.classifies:  # its text alone can be compared, once, at the end
            return
        if self._part is None:
            self._compare(tuner, outputs["hidden"], batch)
        elif (found := self._part.add(outputs["hidden"], batch)) is not None:
            self._compare(tuner, *found)

    def _compare(self, tuner: PromptTuner, in_use: Tensor, batch: Batch) -> None:
        """Compare the prompts on some rows."""
        soft, hard = self._answers(tuner, in_use, batch)
        hard_logits = tuner.class_logits(hard, self._of_hard)
        soft_logits = tuner.class_logits(soft, self._of_soft)
        self._performance.update(soft_logits, hard_logits, batch["labels"])
        if tuner.verbalizer.tree is not None:
            soft, hard = soft[:, 0], hard[:, 0]
        self._compare_outputs(tuner, soft, hard, hard_logits, batch)

        pasted = tuner.template.paste(self._text, batch["texts"])
        same = pasted == pieces(batch, self._ids)
        if not tuner.lm.agreed(same):
            read = tuner.class_logits(self._read(tuner, pasted, batch), self._of_text)
            hard_logits = hard_logits if same else read
        right = hard_logits.argmax(-1) == batch["labels"]
        if not same:  # what the model cannot read, it does not answer
            right &= torch.tensor([*map(tuner.lm.reads, pasted)], device=right.device)
        self._round_trip_accuracy.update(right.float())
        if not batch["borrowed"]:
            self._compared.update(float(len(right)))

    def values(self, trainer: Trainer, tuner: PromptTuner) -> Mapping[str, Tensor | float]:
        """All metrics; the soft prompt's own where it is not the prompt in use."""
        of_text = {"round_trip": round_trip(self._ids, tuner.lm.tokenize([self._text])[0])}
        if not tuner.classifies:
            return of_text
        if self._part is not None and (rest := self._part.rest()) is not None:
            with self.precision(trainer):
                self._compare(tuner, *rest)
        performance = self._performance.compute()._asdict()
        if tuner.soft_in_use or not tuner.has_soft_prompt:
            del performance["soft_loss"], performance["soft_accuracy"]
        return (
            performance
            | of_text
            | {
                "output_differential": self._output.compute(),
                "distance_differential_cosine": self._distance(tuner, "cosine"),
                "distance_differential_euclidean": self._distance(tuner, "euclidean"),
                "round_trip_accuracy": self._round_trip_accuracy.compute(),
                "compared_rows": self._compared.compute(),
            }
        )

    @torch.no_grad()
    def of_all_rows(self, trainer: Trainer, tuner: PromptTuner) -> dict[str, float]:
        """The measures of the tuner's present prompt on all validation rows; nothing is logged.

        Call it on every process, in `fit`, at its end.

        Returns:
            By the names they are logged under.
        """
        rows, self.rows = self.rows, None
        try:
            self.begin(trainer, tuner, "val")
            for batch in islice(validation_batches(trainer), self.max_batches):
                with self.precision(trainer):
                    hidden = tuner.answer_hidden(tuner.prompt_embeddings(), batch)
                    self.measure(tuner, {"hidden": hidden}, batch)
            found = self.values(trainer, tuner)
        finally:
            self.rows = rows
        return {f"val/{name}": float(value) for name, value in found.items()}

    def _share(self, trainer: Trainer, tuner: PromptTuner, stage: Stage) -> float:
        """Of the rows that this evaluation compares; 1 for all of them."""
        task = task_of(trainer)
        # A divided model is passed by all processes at once, which would take different rows; an
        # average or what a class scores without a text is not the tuner's own after the run.
        own = tuner.averaging is None and tuner.verbalizer.score != "pmi"
        own = own and tuner.classifies and not tuner.lm.is_sharded
        if self.rows is None or not fitting(trainer) or ends(trainer) or task is None or not own:
            return 1.0
        if self._decide(trainer, f"{stage}/"):
            return 1.0
        batches = sum(self.max_batches or n for n in trainer.num_val_batches)
        total = task.scored_rows(SPLIT_OF[stage], int(batches)) if math.isfinite(batches) else 0
        return min(1.0, self.rows / total) if total else 1.0

    def _decide(self, trainer: Trainer, prefix: str) -> bool:
        """Whether one of these measures decides over the run: noise of a part would as well."""
        watchers: list[Any] = [*trainer.callbacks, *trainer.lr_scheduler_configs]  # type: ignore[attr-defined]
        watched = {str(getattr(watcher, "monitor", None)) for watcher in watchers}
        return any(name.removeprefix(prefix) in OF_ROWS for name in watched)

    def _distance(self, tuner: PromptTuner, metric: Literal["cosine", "euclidean"]) -> Tensor:
        return faithfulness.distance_differential(self._soft, tuner.lm.index, metric)

    def _answers(self, tuner: PromptTuner, in_use: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states at the answer, of the soft prompt and of its nearest tokens."""
        if tuner.soft_in_use:
            hard = self._passes("tokens", batch, lambda: tuner.answer_hidden(self._hard, batch))
            return in_use, hard
        if tuner.has_soft_prompt:  # its iterate moves at every step: nothing to remember
            return tuner.answer_hidden(self._soft, batch), in_use
        return in_use, in_use

    def _compare_outputs(
        self, tuner: PromptTuner, soft: Tensor, hard: Tensor, logits: Tensor, batch: Batch
    ) -> None:
        """Update the output differential, a few rows of V logits at a time."""
        if not tuner.has_soft_prompt:  # equal by construction: C logits show it as well as V
            self._output.update(logits, logits)
            return
        if self.positions == "prompt":
            if self._prompt_seen and tuner.template.shared_before:
                return  # what stands before is the same for all rows, and so are these logits
            self._prompt_seen = True
            soft, hard = (
                faithfulness.prompt_hidden(tuner.lm, prompt, batch).flatten(0, 1)
                for prompt in (self._soft, self._hard)
            )
        rows = max(1, _LOGITS_AT_ONCE // tuner.lm.vocab_size)
        for some_soft, some_hard in zip(soft.split(rows), hard.split(rows), strict=True):
            self._output.update(tuner.lm.logits(some_soft), tuner.lm.logits(some_hard))

    def _read(self, tuner: PromptTuner, pasted: list[list[int]], batch: Batch) -> Tensor:
        """Hidden states at the answer after whole rows of token ids."""
        whole = whole_rows(tuner, pasted, batch)
        return self._passes("text", whole, lambda: tuner.answer_hidden(self._hard[:0], whole))

    def _text_without_text(self, tuner: PromptTuner) -> Tensor:
        """[C] What classes score where the prompt's text is pasted and the columns are empty."""
        batch = without_text(tuner.lm, tuner.template, len(self._ids))
        batch = on_device(batch, self._hard.device)
        pasted = tuner.template.paste(self._text, batch["texts"])
        hidden = self._read(tuner, pasted, batch)
        return tuner.verbalizer.scores(tuner.lm, hidden)[0]


def whole_rows(tuner: PromptTuner, pasted: list[list[int]], batch: Batch) -> Batch:
    """Rows with the prompt's text pasted in, as a batch for an empty prompt.

    Args:
        tuner: Its language model reads them; BOS stands for a row that it cannot read.
        pasted: Token ids of B rows.
        batch: That they stand for.
    """
    # A text can take more tokens than the prompt it came from, and then no longer fit. Its
    # beginning goes, as in any program that keeps the latest tokens.
    fixed, most = tuner.template.prefix_ids, tuner.lm.max_positions - tuner.verbalizer.depth
    room = most - len(fixed)
    rows = [row if len(row) <= most else fixed + row[-room:] for row in pasted]
    if not all(map(tuner.lm.reads, rows)):  # such rows count as wrong, whatever is read
        rows = [row if tuner.lm.reads(row) else [tuner.lm.bos_id] for row in rows]
    return whole_batch(rows, like=batch)


def pieces(batch: Batch, prompt: list[int]) -> list[list[int]]:
    """Each row's token ids with the prompt's between its two pieces."""
    before = unpadded(batch["before_ids"], batch["before_lengths"])
    after = unpadded(batch["after_ids"], batch["after_lengths"])
    return [left + prompt + right for left, right in zip(before, after, strict=True)]
