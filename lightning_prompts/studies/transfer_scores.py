"""One language model that texts are moved to, and what each of them is worth there."""

import hashlib
import tempfile
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

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
from lightning_prompts.tasks.loading import EncodedRows, batches_of
from lightning_prompts.tasks.rows import Rows
from lightning_prompts.tuners.moved import EmbeddedTokens, moved
from lightning_prompts.tuners.record import LMRecord, PromptRecord

MOVED = "moved vectors"


class Moved(NamedTuple):
    """A prompt that is scored.

    Attributes:
        text: Its own, or of the tokens nearest to its vectors.
        record: Where it was learned; None where a person wrote it.
        vectors: [P, H] What moves in place of the text; of the model that learned them.
        source: That model's tokens.
    """

    text: str
    record: PromptRecord | None = None
    vectors: Tensor | None = None
    source: EmbeddedTokens | None = None

    @property
    def name(self) -> str:
        """For tables."""
        if not self.text:
            return NO_PROMPT
        quoted = f"'{self.text}'"  # where it is shown it is made safe
        named = f"{self.record.tuner} {quoted}" if self.record else quoted
        return named if self.vectors is None else f"{MOVED} of {named}"

    @property
    def same_as(self) -> tuple[str, bytes]:
        """Equal for prompts that are one: texts, or vectors with their texts."""
        return self.text, b"" if self.vectors is None else self.vectors.numpy().tobytes()


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
            self.lm.encode(each.text, f"The text {each.text!r}")
            if each.text and each.vectors is None
            else []
            for each in prompts
        ]
        self.vectors = list(map(self._moved, prompts))
        """By prompt; None for texts."""
        lengths = [
            len(ids) if rows is None else len(rows)
            for ids, rows in zip(self.ids, self.vectors, strict=True)
        ]
        for each in prompts:
            if each.record and each.record.template != self.task.template.given:
                notice(
                    f"{visible(shorten_middle(each.name, 60))} was learned in the template "
                    f"{each.record.template_text!r}, and is scored in {self.task.template.given!r}."
                )
        longest = max(range(len(prompts)), key=lengths.__getitem__)
        if lengths[longest] + self.task.verbalizer.depth >= self.lm.max_positions:
            raise PromptError(
                f"The text {shorten_middle(prompts[longest].name, 80)} has "
                f"{lengths[longest]:,} tokens in {self.lm.label}, which has "
                f"{self.lm.max_positions:,} positions; leave it out."
            )
        self.task.report.max_tokens = self.task.token_limit(lengths[longest])
        rows = self.task.rows("validation")
        self.examples = self.task.encoded_examples(rows)
        self.scored = self._limited(rows)
        some, examples = rows.take(self.scored), [self.examples[i] for i in self.scored]
        self.rows = EncodedRows(examples, some.labels, some.numbers)
        self.labels = torch.tensor(self.rows.labels)
        self.cut = sum(example.cut for example in examples)

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
        each = zip(self.prompts, self.ids, self.vectors, strict=True)
        for number, (prompt, ids, rows) in enumerate(each, start=1):
            what = prompt.text if rows is None else (prompt.text, rows.numpy().tobytes())
            key = hashlib.sha256(repr((setting, what)).encode()).hexdigest()[:16]
            known = key in kept
            if not known:
                kept[key] = self._cell(key, prompt.text, ids, rows)
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
        title = f"{task.slug}, validation, {scored(len(self.rows), len(self.examples))}"
        words = [answers[0] for answers in task.verbalizer.answers]
        counts = self.labels.bincount(minlength=len(words)) / len(self.labels)
        labels, names = list(task.verbalizer.labels), [each.name for each in self.prompts]
        texts = count(min(CALIBRATED_ON, len(task.rows("train"))), "training text")
        given = task.template.given
        return Matrix(title, names, columns, labels, words, counts.tolist(), given, texts)

    @torch.no_grad()
    def _cell(self, key: str, text: str, ids: list[int], vectors: Tensor | None) -> Cell:
        table = self.lm.embedding_table
        tokens = torch.tensor(ids, dtype=torch.long, device=table.device)
        rows = self.lm.embed(tokens) if ids else table[:0]
        prompt = (rows if vectors is None else vectors.to(table))[None]

        def answers(batch: Batch) -> Tensor:
            task = self.task
            return class_scores(self.lm, task.template, task.verbalizer, prompt, batch)[0]

        prior = mean_log_probabilities(self.trainer, self.task, answers).cpu()
        found: dict[int, Tensor] = {}
        for batch in batches_of(self.rows, self.task.val_batch_size):
            with EvaluationCallback.precision(self.trainer):
                scores = answers(self.trainer.strategy.batch_to_device(batch))
            found |= zip(batch["rows"].tolist(), scores.log_softmax(-1).cpu(), strict=True)
        log_shares = torch.stack([found[number] for number in self.rows.numbers])
        nats = self.lm.token_nll(tokens[None])[0].cpu() if ids else None
        written = self.lm.decode(ids)
        return Cell(
            key=key,
            text=text,
            model=self.lm.label,
            raw=scores_of(log_shares, self.labels),
            recalibrated=scores_of(log_shares - prior, self.labels),
            tokens=prompt.shape[1],
            vectors=vectors is not None,
            kept=vectors is not None or written == text,
            round_trip=round_trip(ids, self.lm.tokenize([written])[0]) if ids else 1.0,
            perplexity=None if nats is None else float(log_perplexity(nats).exp()),
            nats_per_character=None if nats is None else float(nats.sum()) / len(text),
        )

    def _learned(self, prompt: Moved, ids: list[int]) -> float | None:
        """Where a prompt was learned on this model: the share of its tokens that its text gives."""
        if prompt.record is None or not self._learned_here(prompt.record):
            return None
        if prompt.vectors is not None:
            return 1.0  # they are themselves there
        return round_trip(prompt.record.ids, ids)

    def _learned_here(self, record: PromptRecord) -> bool:
        return record.lm.fits(LMRecord.of(self.lm))

    def _moved(self, prompt: Moved) -> Tensor | None:
        """[P, H] A prompt's vectors as this model reads them: where it learned them, themselves."""
        if prompt.vectors is None or prompt.record is None or prompt.source is None:
            return None
        if self._learned_here(prompt.record):
            return prompt.vectors
        return moved(prompt.vectors, prompt.source, self._tokens)

    @cached_property
    def _tokens(self) -> EmbeddedTokens:
        return EmbeddedTokens.of(self.lm)

    def _setting(self) -> str:
        """All that the numbers depend on beside the text."""
        task, lm = self.task, self.lm
        # The limit leaves room for the longest text: where it cuts nothing, it changes nothing.
        cut = task.cuts("validation") or any(example.cut for example in self.examples)
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
