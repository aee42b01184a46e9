"""Every distinct prompt that was tried, with its rewards: what was seen, and what was best."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_prompts.metrics.agreement import MATCH_KL
from lightning_prompts.tuners.rewards.base import standardise

Ids = tuple[int, ...]

NO_TOKEN = -1  # pads shorter prompts in a checkpoint
# `doubt` where each step has other rows: a prompt's first gain counts half.
DOUBT = 1.0


@dataclass
class Entry:
    """What is known of one prompt.

    Attributes:
        log_perplexity: Nats per token under the task's language model; where other models score as
            well, the mean over all of them.
        times: How often it was written.
        reward: Sum of its raw task rewards over those times; where steps have different rows, of
            what they were above the mean of their step.
        window_times: The same since the last validation.
        window_reward: The same since the last validation.
        components: What its latest reward was made of, by name.
        validated: Its measures on the validation rows, empty where it was not validated; those of
            other models under the names that `also` gives them.
    """

    log_perplexity: float = 0.0
    times: int = 0
    reward: float = 0.0
    window_times: int = 0
    window_reward: float = 0.0
    components: dict[str, float] = field(default_factory=dict)
    validated: dict[str, float] = field(default_factory=dict)

    @property
    def mean_reward(self) -> float:
        """Mean raw task reward, or gain."""
        return self.reward / max(1, self.times)

    def mean(self, window: bool, doubt: float) -> float:
        """The same since the last validation or ever, with `doubt` more times of a reward of 0."""
        if window:
            return self.window_reward / (self.window_times + doubt)
        return self.reward / (self.times + doubt)

    def objective(self, alpha: float) -> float:
        """(1 - alpha) * loss + alpha * log-perplexity, in nats; no loss but KL where that counts.

        Where other models have scored it as well, the mean of that over the models.
        """
        loss = MATCH_KL if MATCH_KL in self.validated else "loss"
        return (1 - alpha) * self._mean_of(loss) + alpha * self._mean_of("log_perplexity")

    def _mean_of(self, measure: str) -> float:
        others = [v for k, v in self.validated.items() if k.startswith(also(measure, ""))]
        return (self.validated[measure] + sum(others)) / (1 + len(others))


def also(measure: str, model: str) -> str:
    """Name of another model's measure, beside the tuned model's own.

    >>> also("loss", "gpt2")
    'also_loss/gpt2'
    """
    return f"also_{measure}/{model}"


class Ledger:
    """Prompts by their token ids, in the order in which they were first seen.

    Args:
        standardised: Whether the two terms of a reward are standardised before they are mixed, as a
            policy's are; else they are nats, and mixed as they are.
        doubt: Times that a prompt counts as having had a reward of 0 before its first: the mean of
            few times is drawn to 0 by it, so that one lucky batch does not win over many good ones.
            It counts only where rewards are of different examples.
        penalty: Nats that a prompt's tokens add to its objective.
    """

    def __init__(
        self,
        standardised: bool = True,
        doubt: float = 0.0,
        penalty: Callable[[Ids], float] | None = None,
    ) -> None:
        self.standardised, self.doubt, self.penalty = standardised, doubt, penalty
        self.entries: dict[Ids, Entry] = {}
        self.rows: str | None = None
        """Names the examples that all rewards are of, where they are always the same."""

    def keep_to(self, rows: str) -> None:
        """Forget everything that was measured on other examples."""
        if self.rows not in (None, rows):
            self.entries = {}
        self.rows = rows

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, ids: Ids) -> bool:
        return ids in self.entries

    def __getitem__(self, ids: Ids) -> Entry:
        return self.entries.setdefault(ids, Entry())

    def add(
        self,
        prompts: Sequence[Ids],
        rewards: Sequence[float],
        log_perplexities: Sequence[float],
        components: dict[str, list[float]],
    ) -> None:
        """Count K prompts of one step, with what they scored."""
        for k, ids in enumerate(prompts):
            entry = self[ids]
            entry.log_perplexity = log_perplexities[k]
            entry.times += 1
            entry.reward += rewards[k]
            entry.window_times += 1
            entry.window_reward += rewards[k]
            entry.components = {name: values[k] for name, values in components.items()}

    def best(self, count: int, alpha: float, window: bool = False) -> list[Ids]:
        """The best distinct prompts by both terms of the reward, its mean over their times.

        Args:
            count: How many at most.
            alpha: Weight of readability.
            window: Look only at what was written since the last validation.

        Returns:
            The best first; of equal ones the one that was seen first.
        """
        ids = [k for k, e in self.entries.items() if (e.window_times if window else e.times)]
        if not ids:
            return []
        entries = [self.entries[k] for k in ids]
        doubt = self.doubt if self.rows is None else 0.0
        means = [entry.mean(window, doubt) for entry in entries]
        task = torch.tensor(means, dtype=torch.float64)
        readable = -torch.tensor([e.log_perplexity for e in entries], dtype=torch.float64)
        if self.standardised:
            task, readable = standardise(task), standardise(readable)
        totals = (1 - alpha) * task + alpha * readable
        if self.penalty is not None:
            totals -= torch.tensor([self.penalty(k) for k in ids], dtype=torch.float64)
        order = totals.argsort(descending=True, stable=True)[:count]
        return [ids[i] for i in order.tolist()]

    def objective(self, ids: Ids, alpha: float) -> float:
        """What chooses the best of the prompts that were validated, in nats."""
        found = self.entries[ids].objective(alpha)
        return found if self.penalty is None else found + self.penalty(ids)

    def table(
        self, count: int, alpha: float, decode: Callable[[Sequence[int]], str]
    ) -> list[dict[str, Any]]:
        """All prompts that were validated, and the best `count` others, as rows for a person.

        Those with a validation come first, by its objective: it is what chooses the prompt. Then
        the others, by their training reward: `reward` where all were on the same examples, else
        `gain` over others of their steps.
        """
        validated = [ids for ids, entry in self.entries.items() if entry.validated]
        validated.sort(key=lambda ids: self.objective(ids, alpha))
        others = [ids for ids in self.best(len(self), alpha) if not self.entries[ids].validated]
        rows = [*validated, *others[:count]]
        name = "gain" if self.rows is None else "reward"
        return [self._row(ids, alpha, decode(ids), name) for ids in rows]

    def _row(self, ids: Ids, alpha: float, text: str, name: str) -> dict[str, Any]:
        entry = self.entries[ids]
        row: dict[str, Any] = {"text": text, "ids": list(ids), "times": entry.times}
        if entry.times:
            row |= {name: entry.mean_reward, **entry.components}
        # The tuned model's own, like the other measures of a validation, where there was one.
        nats = entry.validated.get("log_perplexity", entry.log_perplexity)
        row["perplexity"] = math.exp(min(nats, 700.0))
        shown = {k: v for k, v in entry.validated.items() if k != "log_perplexity"}
        if shown:
            shown["objective"] = self.objective(ids, alpha)
        return row | {f"val_{name}": value for name, value in shown.items()}

    def close_window(self) -> None:
        """Begin to count anew for the next validation."""
        for entry in self.entries.values():
            entry.window_times, entry.window_reward = 0, 0.0

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and lists, which load without pickle."""
        entries = list(self.entries.values())
        names = list(dict.fromkeys(name for e in entries for name in e.components))
        width = max(map(len, self.entries), default=0)
        ids = [[*ids, *[NO_TOKEN] * (width - len(ids))] for ids in self.entries]
        return {
            "rows": self.rows,
            "ids": torch.tensor(ids, dtype=torch.int32),
            "numbers": _table([list(_numbers(e)) for e in entries]),
            "component_names": names,
            # NaN where a prompt was validated but never written, e.g. the greedy one.
            "components": _table(
                [[e.components.get(name, torch.nan) for name in names] for e in entries]
            ),
            "validated": [[i, e.validated] for i, e in enumerate(entries) if e.validated],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As saved."""
        self.entries, self.rows = {}, state["rows"]
        names = state["component_names"]
        rows = zip(
            state["ids"].tolist(),
            state["numbers"].tolist(),
            state["components"].tolist(),
            strict=True,
        )
        for ids, (nats, times, reward, window_times, window_reward), values in rows:
            components = {n: v for n, v in zip(names, values, strict=True) if v == v}
            self.entries[tuple(i for i in ids if i != NO_TOKEN)] = Entry(
                nats, int(times), reward, int(window_times), window_reward, components
            )
        known = list(self.entries.values())
        for index, measures in state["validated"]:
            known[index].validated = dict(measures)


def by_length(prompts: Sequence[Ids]) -> list[list[int]]:
    """Places of prompts of equal length, the lengths in their first order."""
    groups: dict[int, list[int]] = {}
    for place, ids in enumerate(prompts):
        groups.setdefault(len(ids), []).append(place)
    return list(groups.values())


def _numbers(entry: Entry) -> Iterator[float]:
    yield from (entry.log_perplexity, entry.times, entry.reward)
    yield from (entry.window_times, entry.window_reward)


def _table(rows: list[list[float]]) -> Tensor:
    """[N, M] float64, also for no rows or no columns."""
    width = len(rows[0]) if rows else 0
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width)
