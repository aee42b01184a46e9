"""Guided search: readable hard prompts, found by edits that gradient and language model propose."""

import logging
import math
import time
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prompts.files.drawing import seed_at
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import wide
from lightning_prompts.files.option_types import (
    Count,
    CountOrZero,
    Length,
    ModelName,
    ShareOfSome,
)
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import nearest_tokens
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.aims import AimedSearch
from lightning_prompts.tuners.base import refuse_no_gradients
from lightning_prompts.tuners.prompt_init import FromVocabulary, PromptInit
from lightning_prompts.tuners.rows import task_rows
from lightning_prompts.tuners.search.allowed import Allowed, FilterSettings
from lightning_prompts.tuners.search.borders import Borders
from lightning_prompts.tuners.search.candidates import Choice, EditSettings, Proposer
from lightning_prompts.tuners.search.ledger import DOUBT, Ids, Ledger
from lightning_prompts.tuners.search.pace import estimate, seconds_left
from lightning_prompts.tuners.search.race import Finalist, Race, all_rows, deal
from lightning_prompts.tuners.search.scoring import PromptScorer

log = logging.getLogger(__name__)

SEARCH = "search"  # its key in a checkpoint
LISTED = 100  # prompts in prompts.jsonl beside those that were validated


class GuidedSearch(AimedSearch):
    """Searches tokens directly, with a beam whose candidates are raced on each batch.

    A step takes the gradient at the beam's best prompt, draws edits of the beam, and scores them by
    (1 - w) * loss + w * log_perplexity, w = `perplexity_weight`: all candidates on a few rows of
    the batch, those that survive on more, the last on all. The best of them and of the beam, which
    is scored on the same rows, are the next beam. At each validation of `fit` the beam, and the
    best others since the last validation by their mean objective, meet the incumbent on all
    validation rows; the best ever is the hard prompt, and the best of them are the next beam.
    Optimizer and schedule have no effect.

    Args:
        prompt_length: P of the start, or null for the initialiser's own length.
        min_length: Fewest tokens of a prompt; null is the start's length.
        max_length: Most tokens of a prompt; null is the start's length.
        init: Where the search starts; tokens of the vocabulary by default, and for vectors their
            nearest tokens.
        candidates: Edits a step; where the filters leave fewer, fewer.
        beam: Prompts that are kept from step to step.
        race: Rows that the rounds before the last have read by their ends, over all devices; the
            last reads the whole batch. Without any, all candidates are scored on all rows.
        keep: Share of the candidates that survives a round.
        contenders: Prompts beside the beam that each validation scores.
        edits: How candidates are made.
        filters: Which prompts may be kept.
        also_lm: Another language model (as `--lm.name`), or a list of several: an objective is the
            mean over all models, each by its own tokens of the prompt's text and of the rows.
        lm, template, verbalizer, **kwargs: Of `PromptTuner`; `match`, `keep_near` and `floors` are
            `AimedSearch`'s.

    Raises:
        PromptError: If a number is out of range, or the filters leave nothing to start from.
    """

    slug = "guided"

    def __init__(
        self,
        lm: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        prompt_length: Length | None = None,
        min_length: Count | None = None,
        max_length: Count | None = None,
        init: PromptInit | None = None,
        candidates: Count = 64,
        beam: Count = 4,
        race: list[Count] | None = None,
        keep: ShareOfSome = 0.25,
        contenders: CountOrZero = 4,
        edits: EditSettings | None = None,
        filters: FilterSettings | None = None,
        also_lm: list[ModelName] | ModelName | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, **kwargs)
        self._also(also_lm)
        self.num_candidates, self.beam_size, self.num_contenders = candidates, beam, contenders
        self.race_rows, self.keep = list(race or ()), keep
        self._check_race()
        self.edits = edits or EditSettings()
        self.edits.check()
        if self.edits.proposals < 1:
            refuse_no_gradients(lm, type(self).__name__)
        self.allowed = Allowed(lm, verbalizer, filters or FilterSettings(), self.exclude_special)
        start = self._start(init or FromVocabulary(), prompt_length)
        self.min_length = len(start) if min_length is None else min_length
        self.max_length = len(start) if max_length is None else max_length
        self._check_lengths(len(start))
        self.keep_ids("token_ids", torch.tensor(start), persistent=True)
        self.reward = self._aim()
        # A reward says by how many nats the loss is below the beam's, on the same rows: batches
        # differ more from one another than prompts do.
        self.ledger = Ledger(standardised=False, doubt=DOUBT, penalty=self.near)
        self.scorer = PromptScorer(lm, self.reward, self.ledger, self._sum)
        self.scorer.others = self.others
        self.beam: list[Ids] = [start]
        """The best prompts of the last step, the best first."""
        self._written: dict[Ids, Choice] = {}
        # Lightning's loop and DDP want one parameter and a step; this one stays 0.
        self.idle = nn.Parameter(torch.zeros(()))
        self._began: float | None = None

    @property
    def prompt_length(self) -> int:
        """P at most: the room that a prompt takes, the one that is imitated too."""
        return max(self.max_length, 0 if self.target is None else len(self.target.vectors))

    @property
    def lengths(self) -> tuple[int, int]:
        """Fewest and most tokens that the hard prompt may have."""
        return self.min_length, self.max_length

    # ---- training

    def setup(self, stage: str) -> None:
        """Refuse what would search nothing without a word, and mend the start for these rows."""
        super().setup(stage)
        if stage == "fit" and (batches := self.trainer.accumulate_grad_batches) > 1:
            raise PromptError(
                f"--trainer.accumulate_grad_batches is {batches}, but a search has no gradients to "
                "add up: its batches are steps of their own; raise --data.batch_size instead."
            )
        self.allowed.readers = [other.reads for other in self.others]
        rows = task_rows(self.trainer)
        if stage == "fit" and rows is not None:
            self.allowed.borders = Borders(self.lm, rows.texts("train", "validation"))
            if not (self.allowed.keeps(self.beam[0]) and self.allowed.pastes(self.beam[0])):
                generator = torch.Generator().manual_seed(self.seed)
                self.beam = [self.allowed.mend(self.beam[0], generator)]
                self.token_ids.copy_(torch.tensor(self.beam[0]))
            self._refuse_unread(self.beam[0])

    def on_train_start(self) -> None:
        """Begin to measure how long a step takes."""
        self._began = time.monotonic()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One race; returns the best's objective, which nothing depends on."""
        generator = torch.Generator().manual_seed(seed_at(self.seed, self.global_step))
        everyones = all_rows(batch, self.global_rank, self.trainer.world_size, self._sum)
        num_tokens = self._read_target(batch, everyones[2], len(everyones[0]))
        gradient = self._gradient(batch) if self.edits.proposals < 1 else None
        proposer = Proposer(
            self.lm, self.beam, gradient, self.edits, self.allowed, self.lengths, self._written
        )
        if not proposer.finite:
            return self.idle * math.nan  # nothing can be drawn: the run ends as at any such loss
        candidates = proposer.draw(self.num_candidates, generator)
        parts = self.perplexity_weight, self.keep, self._sum, self.others, self.near
        race = Race(self.reward, *parts)
        rounds = deal(*everyones, self.race_rows, generator)
        finalists = race(self.beam, candidates, batch, rounds)
        # The beam is above the floors, so that there are always some.
        finalists = [finalist for finalist in finalists if self._holds(finalist.ids)]
        usual = [f.loss for f in finalists if f.ids in self.beam]
        self.ledger.add(
            [f.ids for f in finalists],
            [sum(usual) / len(usual) - f.loss for f in finalists],
            [f.log_perplexity for f in finalists],
            {"train_loss": [f.loss for f in finalists]},
        )
        self.beam = [finalist.ids for finalist in finalists[: self.beam_size]]
        num_tokens += race.row_tokens
        if gradient is not None and not batch["borrowed"]:
            num_added = len(gradient) + self.verbalizer.num_read
            num_tokens += num_added * len(batch["rows"]) + batch["num_real_tokens"]
        # Rows are divided over the processes; the rest is done by each of them, and counts once.
        if self.global_rank == 0:
            num_tokens += race.prompt_tokens + proposer.num_tokens
        self._count(num_tokens)
        self._log_step(finalists[0], len(candidates))
        return self.idle * 0 + finalists[0].objective

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """After the first step, say how long the rest will take."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self._began is not None:
            seconds, self._began = time.monotonic() - self._began, None
            left = self.trainer.estimated_stepping_batches - self.trainer.global_step
            # For a probe of two steps, as `check` makes, it is of no use.
            if left > 1 and math.isfinite(left):
                log.info("%s", estimate(seconds, int(left), seconds_left(self.trainer)))

    def _gradient(self, batch: Batch) -> Tensor:
        """[P, H] Of the mean loss over all processes' rows at the beam's best prompt."""
        best = torch.tensor(self.beam[0], device=self.device)
        rows = self.lm.embed(best).detach().requires_grad_()
        without_text = self.scored_without_text(rows)
        logits = self.class_logits(self.answer_hidden(rows, batch), without_text)
        loss = self.reward.row_losses(logits[None], batch).sum()
        # Only its direction counts, so the number of rows is not divided by.
        gradient = wide(torch.autograd.grad(loss, rows)[0])
        return self._sum(torch.zeros_like(gradient) if batch["borrowed"] else gradient)

    def _log_step(self, best: Finalist, num_candidates: int) -> None:
        self.log("train/objective", best.objective, prog_bar=True)
        self.log("train/loss", best.loss)
        self.log("train/log_perplexity", best.log_perplexity)
        self.log("train/candidates", float(num_candidates))

    # ---- validation

    def _contenders(self) -> list[Ids]:
        """The beam, and the best others of the steps since the last validation."""
        count = self.num_contenders + len(self.beam)
        best = self.ledger.best(count, self.perplexity_weight, window=True)
        others = [ids for ids in best if ids not in self.beam]
        wanted = [*self.beam, *others[: self.num_contenders]]
        return [ids for ids in wanted if self.allowed.pastes(ids) and self._holds(ids)]

    def _choose(self) -> list[Ids]:
        # All validation rows say more than the batch that has just made the beam.
        ranked = super()._choose()
        self.beam = ranked[: self.beam_size]
        return ranked

    def listed_prompts(self) -> list[dict[str, Any]]:
        """The prompts that were validated and the best others, the best first."""
        rows = self.ledger.table(LISTED, self.perplexity_weight, self.lm.decode)
        for row in rows:
            for name in ("val_reward", "gain"):
                row.pop(name, None)
        return rows

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add where the search stands."""
        super().on_save_checkpoint(checkpoint)
        beam = [list(ids) for ids in self.beam]
        checkpoint[SEARCH] = {"beam": beam}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.beam = [tuple(ids) for ids in checkpoint[SEARCH]["beam"]]

    # ---- details

    def _start(self, init: PromptInit, prompt_length: int | None) -> Ids:
        """The first incumbent, which the filters let through."""
        rows = init(self.lm, self.verbalizer, prompt_length, self.seed)
        excluded = self.special_ids if self.exclude_special else None
        ids = nearest_tokens(rows, self.lm.index, self.projection, excluded).ids
        return self.allowed.mend(ids.tolist(), torch.Generator().manual_seed(self.seed))

    def _check_race(self) -> None:
        if any(more <= less for less, more in pairwise([0, *self.race_rows])):
            raise PromptError(
                f"--model.race is {self.race_rows}; give numbers of rows that grow, e.g. [8, 16]."
            )

    def _check_lengths(self, start: int) -> None:
        if not 1 <= self.min_length <= start <= self.max_length:
            raise PromptError(
                f"The search starts from {start} tokens, but --model.min_length is "
                f"{self.min_length} and --model.max_length {self.max_length}; set them, from 1 on, "
                "so that the start lies between them."
            )
