"""The tokenized rows of a task's splits: what an evaluation reads of them, and what is asked."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from tqdm import tqdm

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, Example
from lightning_prompts.lm.template import Template
from lightning_prompts.tasks import loading
from lightning_prompts.tasks.rows import Rows, TaskReport
from lightning_prompts.tasks.windows import Windows

LENGTHS_SHOWN = 64
PROGRESS_AFTER_SECONDS = 2.0
# Of training texts; a data set of long texts by the hundred thousand would take minutes.
MOST_CHARACTERS = 10_000_000


class EncodedSplits(LightningDataModule):
    """Rows by split, each process with its share."""

    batch_size: int
    val_batch_size: int
    num_workers: int
    template: Template
    truncate: str | None
    max_tokens: int | None
    report: TaskReport
    seed: int
    windows: Windows | None = None
    """Rows to predict that are read while they are predicted; None where all are read first."""
    _encoded: dict[str, loading.EncodedRows]
    _to_calibrate: dict[tuple[int, int], loading.EncodedRows]

    @abstractmethod
    def rows(self, split: str) -> Rows:
        """The rows of a split, which are read once."""

    @abstractmethod
    def _reference_rows(self) -> Rows:
        """The training rows; without any, the first rows that were read."""

    def texts(self, *splits: str) -> list[tuple[str, str]]:
        """What each row has before the prompt and behind it, all rows on every process.

        Args:
            splits: Of those that this stage has read.
        """
        return [(e.before, e.after) for split in splits for e in self._encoded[split].examples]

    def scored_rows(self, split: str, batches: int) -> int:
        """Rows of a split that so many batches on each process have; these are the longest."""
        num_rows, num_ranks = len(self._encoded[split]), self._ranks()[1]
        a_batch = loading.even_batch_size(num_rows, self.val_batch_size, num_ranks) * num_ranks
        return min(num_rows, batches * a_batch)

    def cut_rows(self, split: str, num_rows: int) -> int:
        """How many of the longest rows of a split were cut to fit."""
        rows = self._encoded[split]
        longest = loading.LongestFirst(rows.lengths).order[:num_rows]
        return sum(rows.examples[i].cut for i in longest)

    def training_texts(self) -> Iterator[str]:
        """Every column of the training rows, up to so many characters."""
        room, columns = MOST_CHARACTERS, self.template.columns
        for row in self.rows("train").rows:
            if room < 0:
                return
            for column in columns:
                room -= len(str(row[column]))
                yield str(row[column])

    def training_lengths(self) -> list[Batch]:
        """Training batches of all lengths, from the longest rows to the shortest, on the CPU.

        For what is prepared by length; at most `LENGTHS_SHOWN`, evenly over the sorted rows.
        """
        rows = self._encoded["train"]
        order = sorted(range(len(rows)), key=rows.lengths.__getitem__, reverse=True)
        starts = range(0, len(order), self.batch_size)
        starts = starts[:: max(1, -(-len(starts) // LENGTHS_SHOWN))]
        return [
            loading.collate_rows([rows[i] for i in order[start : start + self.batch_size]])
            for start in starts
        ]

    def predict_dataloader(self) -> DataLoader[Any]:
        """Each row to predict once, labelled or not."""
        if self.windows is not None:
            self.allow_zero_length_dataloader_with_multiple_devices = True
            return DataLoader(self.windows, batch_size=None, num_workers=self.num_workers)
        if "predict" not in self._encoded:
            self._encoded["predict"] = self._encode(self.rows("predict"), "predict")
        return self._evaluation_loader("predict")

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        rows = self._encoded[split]
        rank, num_ranks = self._ranks()
        # Keywords and a plain sampler: Lightning rebuilds the loader for `predict` from them.
        return DataLoader(
            dataset=rows,
            sampler=loading.LongestFirst(rows.lengths, rank, num_ranks),
            batch_size=loading.even_batch_size(len(rows), self.val_batch_size, num_ranks),
            collate_fn=loading.collate_rows,
            num_workers=self.num_workers,
        )

    def _ranks(self) -> tuple[int, int]:
        """This process among those that share the rows, and their number."""
        kwargs = getattr(self.trainer, "distributed_sampler_kwargs", None) or {}
        return kwargs.get("rank", 0), kwargs.get("num_replicas", 1)

    def _encode(self, rows: Rows, split: str) -> loading.EncodedRows:
        examples = self._shown(rows, split, self.template, self.report.max_tokens)
        self.report.cut[split] = sum(example.cut for example in examples)
        return loading.EncodedRows(examples, rows.labels, rows.numbers)

    def encoded_by(self, template: Template, split: str, most: int) -> dict[int, Example]:
        """The rows of a split by their numbers, as another model reads them.

        Args:
            template: Made for that model.
            split: Of those that there are.
            most: Tokens of a row that it has room for; `max_tokens` counts for it as well.

        Raises:
            PromptError: If a row cannot be cut to that; the message names it.
        """
        rows, limit = self.rows(split), min(most, self.max_tokens or most)
        examples = self._shown(rows, split, template, limit)
        return dict(zip(rows.numbers, examples, strict=True))

    def _shown(
        self, rows: Rows, split: str, template: Template, limit: int | None
    ) -> list[Example]:
        """Rows in a template, with a bar where it takes long."""
        indices = tqdm(
            range(len(rows)),
            desc=f"Tokenizing {split}",
            unit=" rows",
            leave=False,
            delay=PROGRESS_AFTER_SECONDS,
            mininterval=0.5,
            disable=self._ranks()[0] > 0,
        )
        return [self._encode_row(rows, i, template, limit) for i in indices]

    def encoded_examples(self, rows: Rows) -> list[Example]:
        """Rows in the template, cut to the length that `setup` has found.

        Raises:
            PromptError: If one cannot be cut to it; the message names it.
        """
        limit = self.report.max_tokens
        return [self._encode_row(rows, i, self.template, limit) for i in range(len(rows))]

    def _encode_row(self, rows: Rows, index: int, template: Template, limit: int | None) -> Example:
        try:
            return template.encode(rows.rows[index], limit, self.truncate)
        except PromptError as error:
            raise PromptError(f"{rows.place(index)}: {error}") from error

    # ---- for the baselines

    def calibration_batches(self, n: int = 256) -> Iterator[Batch]:
        """Training texts without their labels, drawn by seed and not by class.

        Args:
            n: Most texts to draw. Where there are no training rows, the texts of the first split
                read stand in for them.

        Returns:
            Batches with label -1, the same on every rank.
        """
        return loading.batches_of(self._drawn(n), self.val_batch_size)

    def cuts(self, split: str) -> bool:
        """Whether the limit of tokens cuts a text of a split, or of those to calibrate on."""
        return self.report.cut.get(split, 0) > 0 or any(row.cut for row in self._drawn().examples)

    def _drawn(self, n: int = 256) -> loading.EncodedRows:
        key = n, self.report.max_tokens
        if key not in self._to_calibrate:
            rows = self._reference_rows()
            generator = torch.Generator().manual_seed(self.seed)
            drawn = rows.take(torch.randperm(len(rows), generator=generator)[:n].tolist())
            labels, examples = [-1] * len(drawn), self.encoded_examples(drawn)
            self._to_calibrate[key] = loading.EncodedRows(examples, labels, drawn.numbers)
        return self._to_calibrate[key]
