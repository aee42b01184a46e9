"""What every task is: a LightningDataModule that serves rows in a template, tokenized once."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, ClassVar

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.lightning_internals import adds_sampler
from lightning_prompts.files.option_types import ChecksOptions, Count, Range, Seed
from lightning_prompts.lm.answers import AnswerScore
from lightning_prompts.lm.chat import Conversation
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer, Words
from lightning_prompts.metrics.panel.frames import TaskKind
from lightning_prompts.tasks import loading
from lightning_prompts.tasks.encoded_splits import EncodedSplits
from lightning_prompts.tasks.rows import Rows, TaskReport
from lightning_prompts.tasks.windows import slices

# The splits whose examples each stage of the trainer needs.
STAGE_SPLITS = {
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("predict",),
}
Workers = Annotated[int, Range(0, 1024)]  # processes, each with its own Python


class PromptTask(ChecksOptions, EncodedSplits, ABC):
    """Rows in a template, for training, validation, test and prediction.

    A subclass says where rows come from (`slug`, `read`). Every device takes its own rows, so the
    trainer must not add a sampler of its own (`--trainer.use_distributed_sampler false`).

    Args:
        lm: The frozen language model; gives tokenizer and positions.
        template: Where the columns and `{prompt}` sit; the model answers after its end. Or a
            conversation, `{chat: {system: "{prompt}", user: "{text}"}}`, which the tokenizer's
            chat template writes down; the model answers as the assistant.
        verbalizer: Label to answer, or to a list of answers, each a word or a text.
        seed: Order of the training rows, and which of them a subset (`shots`, `train_rows`) has.
        truncate: Column that is cut from its end where an example is too long; by default the
            longest.
        max_tokens: Most tokens of an example beside the prompt; by default, and at most, the
            model's positions less the prompt.
        batch_size: Training rows a step on each device.
        val_batch_size: Rows of an evaluation batch on each device.
        num_workers: Processes that build batches; the rows are tokenized before, so 0 is fast.
        answer_score: What an answer scores: the sum of its tokens' log-probabilities, their mean,
            or `pmi`, the sum less what it is without a text.

    Raises:
        PromptError: If template or verbalizer do not fit the model.
    """

    python_only: ClassVar[frozenset[str]] = frozenset()
    """Arguments of the constructor that no configuration can give."""
    kind: TaskKind | None = None
    """Which of the tasks that `task_identification` describes it is; None where it is none."""

    def __init__(
        self,
        lm: FrozenLM,
        template: str | Conversation,
        verbalizer: Words | None,
        seed: Seed = 0,
        truncate: str | None = None,
        max_tokens: Count | None = None,
        batch_size: Count = 32,
        val_batch_size: Count = 64,
        num_workers: Workers = 0,
        answer_score: AnswerScore = "sum",
    ) -> None:
        super().__init__()
        self.lm, self.seed, self.truncate, self.max_tokens = lm, seed, truncate, max_tokens
        self.template = Template(template, lm)
        self.answer_score = answer_score
        if verbalizer is not None:
            self.verbalizer = Verbalizer(verbalizer, lm, answer_score)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.num_workers = num_workers
        if truncate is not None and truncate not in self.template.columns:
            raise PromptError(
                f"--data.truncate {truncate} is no column of the template {template!r}, which has "
                f"{', '.join(self.template.columns)}; name one of these, or null for the longest."
            )
        self.report = TaskReport()
        self._rows: dict[str, Rows] = {}
        self._encoded = {}
        # Tokenized once for each limit, as every validation asks whether it cuts them.
        self._to_calibrate = {}

    # ---- for a subclass

    @property
    @abstractmethod
    def slug(self) -> str:
        """The task's name, in folders and tables."""

    @abstractmethod
    def read(self, split: str) -> Rows:
        """The rows of `train`, `validation`, `test` or `predict`.

        Returns:
            Rows that have the template's columns as text, and their labels.

        Raises:
            PromptError: If there is no such split, or a row is bad.
        """

    @abstractmethod
    def has(self, split: str) -> bool:
        """Whether there is such a split."""

    def label_words(self) -> Words:
        """The answers where no verbalizer was given.

        Raises:
            PromptError: If the task does not know its labels.
        """
        raise PromptError("Give each label an answer with --data.verbalizer.")

    @cached_property
    def verbalizer(self) -> Verbalizer:
        """The answers of each label; where none were given, the labels' own texts."""
        return Verbalizer(self.label_words(), self.lm, self.answer_score)

    def predict_parts(self, size: int) -> Iterator[Rows]:
        """The rows to predict, in parts of about `size` rows, the same at each call.

        Raises:
            PromptError: As `read`, once a part is asked for.
        """
        return slices(self.rows("predict"), size)

    # ---- before the trainer

    def read_ahead(self, trainer: Trainer, stage: str) -> None:
        """Read a stage's rows before other processes are started, which would read bad ones later.

        Args:
            trainer: About to run.
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            PromptError: As `read`, and where the rows cannot be shared by the processes.
        """
        if trainer.world_size == 1:
            return
        self.trainer = trainer
        # Those that share a model's layers share its rows too; who does is not known yet.
        whole = not isinstance(trainer.strategy, ModelParallelStrategy)
        if whole:
            self._check_sampler()
        for split in STAGE_SPLITS[stage]:
            num_rows = len(self.rows(split))
            if whole and split != "train":  # where a row stands in for one that is missing
                loading.require_shares(num_rows, self._ranks()[1])

    # ---- the trainer's hooks

    def setup(self, stage: str) -> None:
        """Read and tokenize what `stage` needs."""
        self._check_sampler()
        module = getattr(self.trainer, "lightning_module", None)
        max_tokens = self.token_limit(getattr(module, "prompt_length", 0))
        if max_tokens != self.report.max_tokens:
            self._encoded.clear()
            self.report.max_tokens = max_tokens
        for split in STAGE_SPLITS[stage]:
            # Rows to predict are read when they are asked for: perhaps in windows.
            if split not in self._encoded and split != "predict":
                self._encoded[split] = self._encode(self.rows(split), split)
        if stage == "fit":
            self._check_classes()
        if stage != "predict":
            labels = Counter(self._reference_rows().labels)
            # Of equally frequent labels the verbalizer's first, whatever the order of the rows.
            majority = max(range(len(self.verbalizer.labels)), key=lambda i: labels[i])
            self.report.majority_label = self.verbalizer.labels[majority]

    def train_dataloader(self) -> DataLoader[Any]:
        """Length-bucketed batches that follow from (seed, epoch) and resume within an epoch."""
        rows = self._encoded["train"]
        rank, num_ranks = self._ranks()
        same = bool(getattr(self.trainer, "overfit_batches", 0))
        order = loading.EpochOrder(len(rows), self.seed, same)
        batches = loading.BucketBatches(order, rows.lengths, self.batch_size, rank, num_ranks)
        limit = getattr(self.trainer, "limit_train_batches", None)  # a number, or a share
        return loading.ResumableLoader(
            rows,
            batch_sampler=batches,
            max_batches=int(limit * len(batches)) if isinstance(limit, float) else limit,
            collate_fn=loading.collate_rows,
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Each validation row once."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        """Each test row once."""
        return self._evaluation_loader("test")

    # ---- steps

    def rows(self, split: str) -> Rows:
        """The rows of a split, which are read once.

        Raises:
            PromptError: As `read`.
        """
        if split in self._rows:
            return self._rows[split]
        rows = self._rows[split] = self.read(split)
        names = self.verbalizer.labels
        counts = Counter(rows.labels)
        self.report.sources[split] = rows.source
        self.report.rows[split] = len(rows)
        self.report.left_out[split] = len(rows.left_out)
        self.report.classes[split] = {name: counts[i] for i, name in enumerate(names)}
        return rows

    def _reference_rows(self) -> Rows:
        """The training rows; without any, the first rows that were read."""
        if self.has("train"):
            return self.rows("train")
        return next(iter(self._rows.values()))

    def token_limit(self, prompt_length: int) -> int:
        """Tokens that an example may have beside a prompt.

        Raises:
            PromptError: If there is no room.
        """
        depth = self.verbalizer.depth
        room = self.lm.max_positions - prompt_length - depth
        if room < 1:
            answers = f" and answers of up to {depth + 1}" if depth else ""
            raise PromptError(
                f"A prompt of {prompt_length} tokens{answers} leaves no room for a text in "
                f"{self.lm.label}, which has {self.lm.max_positions} positions; lower "
                "--model.prompt_length."
            )
        return min(room, self.max_tokens or room)

    def _check_classes(self) -> None:
        counts = self.report.classes["train"]
        if absent := [label for label, count in counts.items() if not count]:
            raise PromptError(
                f"No training row ({self.report.sources['train']}, {self.report.rows['train']} "
                f"rows) has the label {' or '.join(map(repr, absent))} of the verbalizer; remove "
                "it from --data.verbalizer, or train on more rows."
            )

    def _check_sampler(self) -> None:
        """Refuse Lightning's own distributed sampler, which would drop buckets and repeat rows."""
        if self._ranks()[1] > 1 and adds_sampler(self.trainer):
            raise PromptError(
                "The task gives each device its own rows, and trainer.use_distributed_sampler "
                "would divide them again; set --trainer.use_distributed_sampler false."
            )
