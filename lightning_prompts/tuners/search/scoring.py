"""Scores prompts that are tried, and remembers what may be remembered."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.files.stages import SPLIT_OF
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.rewards.base import Reduce, Reward, Scores
from lightning_prompts.tuners.rewards.scrutability import log_perplexities
from lightning_prompts.tuners.search.ledger import Ids, Ledger, by_length
from lightning_prompts.tuners.search.others import MEASURES, OtherModel

# Columns beside the components of a reward.
REWARD, NATS = "reward", "log_perplexity"


class Scored(NamedTuple):
    """K prompts with both terms of their reward.

    Attributes:
        task: Of the task.
        log_perplexity: [K] Nats per token under the task's language model.
    """

    task: Scores
    log_perplexity: Tensor


class PromptScorer:
    """Scores prompts on training batches and on the validation rows.

    Args:
        lm: The task's language model.
        reward: Of the task.
        ledger: Where everything is written down.
        reduce: Sums over processes.
    """

    def __init__(self, lm: FrozenLM, reward: Reward, ledger: Ledger, reduce: Reduce) -> None:
        self.lm, self.reward, self.ledger, self.reduce = lm, reward, ledger, reduce
        self.others: Sequence[OtherModel] = ()
        """Models that validate prompts as well."""

    @torch.no_grad()
    def train(self, token_ids: Tensor, batch: Batch, seed: int, rows: str | None) -> Scored:
        """Rewards of sampled prompts.

        Args:
            token_ids: [K, P], equal prompts among them.
            batch: This process's examples.
            seed: Of whatever the reward samples.
            rows: Names the examples where all prompts of the run meet the same ones, so that a
                deterministic reward has to be computed once for each prompt.
        """
        if rows is not None:
            self.ledger.keep_to(rows)
        prompts = [tuple(ids) for ids in token_ids.tolist()]
        if self.reward.deterministic:
            scored = self._distinct(prompts, token_ids, batch, seed, rows is not None)
        else:  # equal prompts too are scored each by itself: their rewards are drawn
            task = self.reward(token_ids, batch, seed, self.reduce)
            scored = Scored(task, log_perplexities(self.lm, token_ids))
        # On other rows at each step a reward is the rows' as well as the prompt's: what counts then
        # is the gain over prompts on the same rows, or those that met easy rows would be the best.
        found = scored.task.raw if rows is not None else scored.task.gain
        self.ledger.add(
            prompts,
            found.tolist(),
            scored.log_perplexity.tolist(),
            {name: values.tolist() for name, values in scored.task.components.items()},
        )
        return scored

    @torch.no_grad()
    def validate(
        self, prompts: Sequence[Ids], batches: Iterable[Batch], device: torch.device
    ) -> None:
        """Measure prompts on all validation rows, those of one length together in each pass."""
        own = _Validation(self.lm, self.reward, prompts, self.reduce, device)
        others = [
            _Validation(other.lm, other.reward, other.tokens(prompts), self.reduce, device)
            for other in self.others
        ]
        for batch in batches:
            own.update(batch)
            for other, validation in zip(self.others, others, strict=True):
                validation.update(other.batch(batch, SPLIT_OF["val"]))
        for ids, values in zip(prompts, own.values(), strict=True):
            self.ledger[ids].validated = values
            self.ledger[ids].log_perplexity = values[NATS]
        for other, validation in zip(self.others, others, strict=True):
            for ids, values in zip(prompts, validation.values(), strict=True):
                entry = self.ledger[ids]
                entry.validated |= {other.key(measure): values[measure] for measure in MEASURES}
                entry.log_perplexity += values[NATS]
        for ids in prompts:
            self.ledger[ids].log_perplexity /= 1 + len(others)

    def _distinct(
        self, prompts: Sequence[Ids], token_ids: Tensor, batch: Batch, seed: int, remember: bool
    ) -> Scored:
        """Score equal prompts once a step, and where all batches are the same, once a run."""
        known = self._remembered(prompts) if remember else {}
        if new := [ids for ids in dict.fromkeys(prompts) if ids not in known]:
            distinct = token_ids.new_tensor(new)
            task = self.reward(distinct, batch, seed, self.reduce)
            nats = log_perplexities(self.lm, distinct)
            columns = {REWARD: task.raw, NATS: nats, **task.components}
            rows = zip(*(values.tolist() for values in columns.values()), strict=True)
            for ids, row in zip(new, rows, strict=True):
                known[ids] = dict(zip(columns, row, strict=True))
        found = [known[ids] for ids in prompts]

        # From Python's floats in each case: remembered or just measured, the bits are the same.
        def column(name: str) -> Tensor:
            return torch.tensor([row[name] for row in found], device=token_ids.device)

        raw = column(REWARD)
        parts = {name: column(name) for name in found[0] if name not in (REWARD, NATS)}
        return Scored(Scores.of_same_rows(raw, parts), column(NATS))

    def _remembered(self, prompts: Sequence[Ids]) -> dict[Ids, dict[str, float]]:
        entries = {ids: self.ledger.entries.get(ids) for ids in dict.fromkeys(prompts)}
        return {
            ids: {REWARD: e.mean_reward, NATS: e.log_perplexity, **e.components}
            for ids, e in entries.items()
            if e is not None and e.times
        }


class _Validation:
    """Prompts of one model, measured on all validation rows.

    Args:
        lm: The model.
        reward: Measures on it.
        prompts: Of its tokens.
        reduce: Sums over processes.
        device: Of the model.
    """

    def __init__(
        self,
        lm: FrozenLM,
        reward: Reward,
        prompts: Sequence[Ids],
        reduce: Reduce,
        device: torch.device,
    ) -> None:
        self.lm, self.count = lm, len(prompts)
        self.groups = [
            (
                places,
                torch.tensor([prompts[i] for i in places], device=device),
                reward.measures("val", reduce),
            )
            for places in by_length(prompts)
        ]

    def update(self, batch: Batch) -> None:
        """Take in one batch."""
        for _, token_ids, measures in self.groups:
            measures.update(token_ids, batch)

    def values(self) -> list[dict[str, float]]:
        """Of each prompt, with its nats per token."""
        found: list[dict[str, float]] = [{} for _ in range(self.count)]
        for places, token_ids, measures in self.groups:
            values = {**measures.compute(), NATS: log_perplexities(self.lm, token_ids)}
            for k, place in enumerate(places):
                found[place] = {name: float(value[k]) for name, value in values.items()}
        return found
