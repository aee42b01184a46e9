"""Scores prompts that are tried, and remembers what may be remembered."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.rewards.base import Reduce, Reward, Scores
from lightning_prompts.tuners.rewards.scrutability import log_perplexities
from lightning_prompts.tuners.search.ledger import Ids, Ledger

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
        by_length: dict[int, list[Ids]] = {}
        for ids in prompts:
            by_length.setdefault(len(ids), []).append(ids)
        groups = [
            (ids, torch.tensor(ids, device=device), self.reward.measures("val", self.reduce))
            for ids in by_length.values()
        ]
        for batch in batches:
            for _, token_ids, measures in groups:
                measures.update(token_ids, batch)
        for group, token_ids, measures in groups:
            values = measures.compute()
            nats = values["log_perplexity"] = log_perplexities(self.lm, token_ids)
            for k, ids in enumerate(group):
                entry = self.ledger[ids]
                entry.log_perplexity = float(nats[k])
                entry.validated = {name: float(value[k]) for name, value in values.items()}

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
