"""Successive halving: many prompts on a few rows, those that survive on more of them.

After Jamieson and Talwalkar 2016 (arXiv:1502.07943), on the rows of one batch. The readability of a
prompt is exact from the start, so the rows only have to tell its loss.

Dimensions: K prompts, P prompt tokens, B examples, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.files.drawing import evenly
from lightning_prompts.files.numbers import in_double
from lightning_prompts.lm.batch import Batch, take
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.rewards.base import Reduce
from lightning_prompts.tuners.rewards.classification import ClassificationGap
from lightning_prompts.tuners.rewards.scrutability import log_perplexities
from lightning_prompts.tuners.search.ledger import Ids, by_length
from lightning_prompts.tuners.search.others import OtherModel

# Logits of as many prompts at a time as fit in 64 MiB of float32: 256 prompts of 10 tokens would
# take half a GB, and their softmax as much again.
LOGITS_AT_ONCE = 2**24


class Finalist(NamedTuple):
    """A prompt that was scored on all rows of the batch; its numbers are means over the models.

    Attributes:
        ids: Its tokens.
        objective: (1 - w) * loss + w * log_perplexity, and a penalty if there is one, in nats.
        loss: Mean over the rows, in nats.
        log_perplexity: Nats per token under the language model.
    """

    ids: Ids
    objective: float
    loss: float
    log_perplexity: float


class Race:
    """Scores prompts in rounds, each on more rows than the last one.

    Args:
        reward: Scores classes, with the language model that it was given.
        weight: w of the objective.
        keep: Share of the candidates that survives a round.
        reduce: Sums over processes.
        others: Models that score as well, on the training rows.
        penalty: Nats that a prompt's tokens add to its objective.
    """

    def __init__(
        self,
        reward: ClassificationGap,
        weight: float,
        keep: float,
        reduce: Reduce,
        others: Sequence[OtherModel] = (),
        penalty: Callable[[Ids], float] | None = None,
    ) -> None:
        self.reward, self.weight, self.others = reward, weight, others
        self.keep, self.reduce, self.penalty = keep, reduce, penalty
        self.row_tokens = self.prompt_tokens = 0
        """Tokens of the (prompt, row) pairs on this process, and of the prompts by themselves."""

    @torch.no_grad()
    def __call__(
        self,
        beam: Sequence[Ids],
        candidates: Sequence[Ids],
        batch: Batch,
        rounds: Sequence[Sequence[int]],
    ) -> list[Finalist]:
        """Let the candidates run against the beam.

        Args:
            beam: Prompts that take part in all rounds, so that they are compared on equal rows.
            candidates: Prompts that have to survive each round; none of them in the beam.
            batch: This process's rows.
            rounds: For each round, the places in the batch of this process's new rows; see `deal`.

        Returns:
            Those that were scored on all rows, the best first; of equal ones the beam's.
        """
        batches = [batch, *(other.batch(batch, "train") for other in self.others)]
        for reward, of_model in zip(self._rewards, batches, strict=True):
            reward.lm.read_texts(of_model)
        running = [*beam, *candidates]
        device = batch["labels"].device
        sums = torch.zeros(len(running), dtype=in_double(torch.zeros(0), device).dtype).to(device)
        # The model's autocast is near enough to thin them out; those of the last are exact.
        nats = self._nats(running, device, rough=True) if self.weight else torch.zeros_like(sums)
        count = 0.0
        for number, places in enumerate(rounds):
            found = self._losses(running, batches, places)
            own = found.new_tensor([float(len(places))])
            # The rows are counted with the losses: one exchange a round.
            total = self.reduce(torch.cat([found, own]))
            sums, count = sums + total[:-1], count + float(total[-1])
            if number + 1 < len(rounds):
                left = self._survivors(self._objective(running, sums / count, nats), len(beam))
                running = [running[i] for i in left]
                sums, nats = sums[left], nats[left]
        losses = sums / count
        nats = self._nats(running, device)
        objective = self._objective(running, losses, nats)
        columns = (values.tolist() for values in (objective, losses, nats))
        rows = [Finalist(*row) for row in zip(running, *columns, strict=True)]
        order = objective.nan_to_num(nan=math.inf).argsort(stable=True)
        return [rows[i] for i in order.tolist()]

    def _objective(self, prompts: Sequence[Ids], losses: Tensor, nats: Tensor) -> Tensor:
        found = (1 - self.weight) * losses + self.weight * nats if self.weight else losses
        if self.penalty is None:
            return found
        return found + found.new_tensor([self.penalty(ids) for ids in prompts])

    def _survivors(self, objective: Tensor, num_beam: int) -> list[int]:
        """Places of the beam and of the best candidates, in their order."""
        others = objective[num_beam:].nan_to_num(nan=math.inf)
        # No fewer than the beam holds, or the last round could not replace all of it. From a single
        # start the beam grows over the first steps.
        count = max(num_beam, math.ceil(self.keep * len(others)))
        best = others.argsort(stable=True)[:count] + num_beam
        return [*range(num_beam), *sorted(best.tolist())]

    @property
    def _rewards(self) -> list[ClassificationGap]:
        return [self.reward, *(other.reward for other in self.others)]

    def _read(self, prompts: Sequence[Ids]) -> list[Sequence[Ids]]:
        """The prompts as each model reads them."""
        return [prompts, *(other.tokens(prompts) for other in self.others)]

    def _losses(
        self, prompts: Sequence[Ids], batches: Sequence[Batch], places: Sequence[int]
    ) -> Tensor:
        """[K] Sums over these rows of the models' mean, in nats."""
        each = zip(self._rewards, self._read(prompts), batches, strict=True)
        found = [self._losses_of(reward, read, rows, places) for reward, read, rows in each]
        return torch.stack(found).mean(0) if self.others else found[0]

    def _losses_of(
        self,
        reward: ClassificationGap,
        prompts: Sequence[Ids],
        batch: Batch,
        places: Sequence[int],
    ) -> Tensor:
        """[K] The same of one model; float64, so that the order hardly matters."""
        labels = batch["labels"]
        sums = in_double(torch.zeros(len(prompts), device=labels.device))
        if not places:
            return sums
        rows = take(batch, places)
        for group in by_length(prompts):
            # In dictionary order those that begin alike are read together.
            group.sort(key=prompts.__getitem__)
            ids = torch.tensor([prompts[i] for i in group], device=labels.device)
            logits = reward.class_logits(ids, rows)  # (k, B, C)
            sums[group] = in_double(reward.row_losses(logits, rows)).sum(1)
            self.row_tokens += reward.num_tokens(ids, rows)
        return sums

    def _nats(self, prompts: Sequence[Ids], device: torch.device, rough: bool = False) -> Tensor:
        """[K] Nats per token, the models' mean; float64."""
        each = zip(self._rewards, self._read(prompts), strict=True)
        found = [self._nats_of(reward.lm, read, device, rough) for reward, read in each]
        return torch.stack(found).mean(0) if self.others else found[0]

    def _nats_of(
        self, lm: FrozenLM, prompts: Sequence[Ids], device: torch.device, rough: bool
    ) -> Tensor:
        found = in_double(torch.zeros(len(prompts), device=device))
        for group in by_length(prompts):
            ids = torch.tensor([prompts[i] for i in group], device=device)
            most = max(1, LOGITS_AT_ONCE // (ids.shape[1] * lm.vocab_size))
            parts = [log_perplexities(lm, part, rough) for part in ids.split(most)]
            found[group] = torch.cat(parts).to(found.dtype)
            self.prompt_tokens += ids.numel()
        return found


def deal(
    rows: Tensor, labels: Tensor, own: range, sizes: Sequence[int], generator: torch.Generator
) -> list[list[int]]:
    """Which rows each round adds: the same ones however the batch is divided over processes.

    Batches hold rows of like length, sorted by it, so that a few rows from the front would be the
    shortest: the order is drawn. Each round has the classes in the batch's own shares, as nearly as
    it can, or a prompt that leans to one class would win wherever chance has drawn more of it.

    Args:
        rows: [B] Numbers of the rows of all processes, in the order of the processes.
        labels: [B] Their classes.
        own: This process's places among them.
        sizes: Rows that the rounds before the last have read by their ends; the last reads all.
        generator: Of the order, on the host.

    Returns:
        For each round, places in this process's own batch; rounds without a new row are left out.
    """
    by_number = rows.cpu().argsort(stable=True)
    order = by_number[torch.randperm(len(rows), generator=generator)].tolist()
    order = evenly(order, labels.tolist())
    ends = [*(size for size in sizes if size < len(order)), len(order)]
    parts = (order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True))
    return [[place - own.start for place in part if place in own] for part in parts]


def all_rows(
    batch: Batch, rank: int, processes: int, reduce: Reduce
) -> tuple[Tensor, Tensor, range]:
    """Numbers and labels of all processes' rows, and this process's places among them."""
    rows = torch.stack([batch["rows"], batch["labels"]])
    if processes == 1:
        return *rows, range(rows.shape[1])
    sizes = torch.zeros(processes, dtype=torch.long, device=rows.device)
    own_rows = 0 if batch["borrowed"] else rows.shape[1]
    sizes[rank] = own_rows
    ends = reduce(sizes).cumsum(0).tolist()
    own = range(ends[rank] - own_rows, ends[rank])
    everyones = rows.new_zeros(2, ends[-1])
    everyones[:, own.start : own.stop] = rows[:, :own_rows]
    return *reduce(everyones), own
