"""One language model that texts are moved to, and what each of them is worth there."""

import hashlib
import tempfile
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import BatchSampler

from lightning_prompts.callbacks.base import EvaluationCallback
from lightning_prompts.callbacks.baselines import NO_PROMPT, mean_log_probabilities
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.table import scored
from lightning_prompts.files.amounts import count, share
from lightning_prompts.files.atomic_files import append_line
from lightning_prompts.files.console import notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.escaping import visible
from lightning_prompts.files.text import shorten_middle
from lightning_prompts.files.version import __version__
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.class_scores import class_scores
from lightning_prompts.metrics.scrutability import log_perplexity, round_trip
from lightning_prompts.report.transfer import Cell, Column, Matrix, Scores
from lightning_prompts.studies.check_costs import CALIBRATED_ON, ONE_DEVICE
from lightning_prompts.tasks.loading import EncodedRows, LongestFirst, collate_rows
from lightning_prompts.tasks.rows import Rows
from lightning_prompts.tuners.record import LMRecord, PromptRecord


class Moved(NamedTuple):
    """A text that is scored, and where it was learned; None where a person wrote it."""

    text: str
    record: PromptRecord | None = None

    @property
    def name(self) -> str:
        """For tables."""
        if not self.text:
            return NO_PROMPT
        quoted = f"'{self.text}'"  # where it is shown it is made safe
        return f"{self.record.tuner} {quoted}" if self.record else quoted


def arguments(options: Sequence[str], model: str, prompts: Sequence[Moved]) -> list[str]:
    """Of the `fit` that has everything but the scoring."""
    text = next(each.text for each in prompts if each.text)
    tuner = ["--model=lightning_prompts.ManualPrompt", f"--model.text={text}"]
    return ["fit", *options, *tuner, f"--lm.name={model}", *ONE_DEVICE]


class Scoring:
    """One model, read, with the task's rows as it reads them.

    Args:
        options: Of `fit`.
        name: Of the model.
        prompts: The texts, all of which it must be able to read.
        path: The file that keeps what is known of each.

    Raises:
        PromptError: If it cannot, or there is nothing to score or to recalibrate on.
    """

    def __init__(
        self, options: Sequence[str], name: str, prompts: Sequence[Moved], path: Path
    ) -> None:
        self.name, self.prompts, self.path = name, prompts, path
        with tempfile.TemporaryDirectory() as folder:
            # The parser stays in a context variable of jsonargparse, and with it the model.
            cli = copy_context().run(
                PromptCLI,
                *(arguments(options, name, prompts), False, False),
                folder=Path(folder) / "run",
            )
        self.trainer, self.task = cli.trainer, cli.datamodule
        self.lm = self.task.lm
        if not cli.model.classifies:
            raise PromptError(f"{self.task.slug} has no labels to answer; transfer scores answers.")
        if not self.task.has("train"):
            raise PromptError(
                "Recalibrating reads training texts (not their labels), and there are none; name a "
                "file: --data.train FILE."
            )
        self.lm.to(self.trainer.strategy.root_device)
        self.trainer.precision_plugin.convert_module(self.lm)
        self.ids = [
            self.lm.encode(each.text, f"The text {each.text!r}") if each.text else []
            for each in prompts
        ]
        for each in prompts:
            if each.record and each.record.template != self.task.template.given:
                notice(
                    f"{visible(shorten_middle(each.name, 60))} was learned in the template "
                    f"{each.record.template_text!r}, and is scored in {self.task.template.given!r}."
                )
        longest = max(range(len(prompts)), key=lambda i: len(self.ids[i]))
        if len(self.ids[longest]) + self.task.verbalizer.depth >= self.lm.max_positions:
            raise PromptError(
                f"The text {shorten_middle(prompts[longest].name, 80)} has "
                f"{len(self.ids[longest]):,} tokens in {self.lm.label}, which has "
                f"{self.lm.max_positions:,} positions; leave it out."
            )
        self.task.report.max_tokens = self.task.token_limit(len(self.ids[longest]))
        rows = self.task.rows("validation")
        self.rows = EncodedRows(self.task.encoded_examples(rows), rows.labels, rows.numbers)
        self.scored = self._limited(rows)
        self.labels = torch.tensor([rows.labels[i] for i in self.scored])
        self.cut = sum(self.rows.examples[i].cut for i in self.scored)

    def _limited(self, rows: Rows) -> list[int]:
        """All rows, or as many of the longest as `limit_val_batches` says: the same for all."""
        size, limit = self.task.val_batch_size, self.trainer.limit_val_batches
        most = limit * size if isinstance(limit, int) else int(limit * len(rows))
        if not most:
            raise PromptError("No row is left to score; raise --trainer.limit_val_batches.")
        columns = self.task.template.columns
        lengths = [-sum(len(str(row[column])) for column in columns) for row in rows.rows]
        return sorted(sorted(range(len(rows)), key=lengths.__getitem__)[:most])

    def column(self, kept: dict[str, Cell], taken: Sequence[str]) -> Column:
        """All texts on this model; each is kept as soon as it is known.

        Args:
            kept: Those that are known already, by key; the new ones are added.
            taken: Labels of other models.
        """
        label = self.lm.label
        if label in taken:  # two folders of one name
            label = f"{label} ({self.name})"
        cells, setting = [], self._setting()
        for number, (prompt, ids) in enumerate(zip(self.prompts, self.ids, strict=True), start=1):
            key = hashlib.sha256(repr((setting, prompt.text)).encode()).hexdigest()[:16]
            known = key in kept
            if not known:
                kept[key] = self._cell(key, prompt.text, ids)
                append_line(self.path, asdict(kept[key]))
            cell = kept[key]
            accuracies = share(cell.raw.accuracy), share(cell.recalibrated.accuracy)
            shown = visible(shorten_middle(prompt.name, 40))
            notice(
                f"{label}, {number} of {len(self.prompts)}, {shown}: "
                f"{accuracies[0]}, recalibrated {accuracies[1]}{' (kept)' * known}"
            )
            cells.append(cell)
        learned = [self._learned(*each) for each in zip(self.prompts, self.ids, strict=True)]
        return Column(label, cells, learned, self.cut)

    def matrix(self, columns: list[Column]) -> Matrix:
        """The columns with what they are of."""
        task = self.task
        title = f"{task.slug}, validation, {scored(len(self.scored), len(self.rows))}"
        words = [answers[0] for answers in task.verbalizer.answers]
        counts = self.labels.bincount(minlength=len(words)) / len(self.labels)
        labels, names = list(task.verbalizer.labels), [each.name for each in self.prompts]
        texts = count(min(CALIBRATED_ON, len(task.rows("train"))), "training text")
        given = task.template.given
        return Matrix(title, names, columns, labels, words, counts.tolist(), given, texts)

    @torch.no_grad()
    def _cell(self, key: str, text: str, ids: list[int]) -> Cell:
        device = self.lm.embedding_table.device
        tokens = torch.tensor(ids, dtype=torch.long, device=device)
        prompt = self.lm.embed(tokens)[None] if ids else self.lm.embedding_table[:0][None]

        def answers(batch: Batch) -> Tensor:
            task = self.task
            return class_scores(self.lm, task.template, task.verbalizer, prompt, batch)[0]

        prior = mean_log_probabilities(self.trainer, self.task, answers).cpu()
        found: dict[int, Tensor] = {}
        lengths = [self.rows.lengths[i] for i in self.scored]
        for places in BatchSampler(LongestFirst(lengths), self.task.val_batch_size, False):
            indices = [self.scored[place] for place in places]
            batch = collate_rows([self.rows[i] for i in indices])
            with EvaluationCallback.precision(self.trainer):
                scores = answers(self.trainer.strategy.batch_to_device(batch))
            found |= dict(zip(indices, scores.log_softmax(-1).cpu(), strict=True))
        log_shares = torch.stack([found[i] for i in self.scored])
        nats = self.lm.token_nll(tokens[None])[0].cpu() if ids else None
        written = self.lm.decode(ids)
        return Cell(
            key=key,
            text=text,
            model=self.lm.label,
            raw=scores_of(log_shares, self.labels),
            recalibrated=scores_of(log_shares - prior, self.labels),
            tokens=len(ids),
            kept=written == text,
            round_trip=round_trip(ids, self.lm.tokenize([written])[0]) if ids else 1.0,
            perplexity=None if nats is None else float(log_perplexity(nats).exp()),
            nats_per_character=None if nats is None else float(nats.sum()) / len(text),
        )

    def _learned(self, prompt: Moved, ids: list[int]) -> float | None:
        """Where a prompt was learned on this model: the share of its tokens that its text gives."""
        if prompt.record is None or not prompt.record.lm.fits(LMRecord.of(self.lm)):
            return None
        return round_trip(prompt.record.ids, ids)

    def _setting(self) -> str:
        """All that the numbers depend on beside the text."""
        task, lm = self.task, self.lm
        # The limit leaves room for the longest text: where it cuts nothing, it changes nothing.
        cut = task.cuts("validation") or any(example.cut for example in self.rows.examples)
        limit = task.report.max_tokens if cut else None
        parts = [
            (lm.fingerprint, self.trainer.precision, lm.embedding_table.dtype, __version__),
            (task.template.text, task.verbalizer, lm.prefix_ids, lm.embedding_table.device.type),
            (task.seed, task.truncate, task.val_batch_size, limit, self.scored),
            [task.rows(name).fingerprint for name in ("train", "validation")],
        ]
        return repr(parts)


def scores_of(scores: Tensor, labels: Tensor) -> Scores:
    """What [N, C] scores of classes are worth, for [N] labels."""
    answered = scores.argmax(-1)
    right = answered == labels
    shares = answered.bincount(minlength=scores.shape[1]).double() / len(labels)
    loss = float(F.cross_entropy(scores.double(), labels))
    correct = "".join(str(int(each)) for each in right.tolist())
    return Scores(right.double().mean().item(), loss, shares.tolist(), correct)
