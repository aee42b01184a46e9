"""Floors: what a search's prompts must have of the panel of scrutability, to be kept at all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.panel.measures import (
    LOGGED,
    MEASURES,
    OF_MORE,
    OVER_SHUFFLED,
    TaskFacts,
)
from lightning_prompts.metrics.panel.measures import scrutability_panel as panel

OPTION = "--model.floors"


class Floors:
    """Least values of the panel; a prompt is read once, and what was found is remembered.

    Args:
        least: By the values' names.
        lm: Reads the prompts, its own tokens.

    Raises:
        PromptError: If there is no such value, it needs rows, or less of it is better.
    """

    def __init__(self, least: Mapping[str, float], lm: FrozenLM) -> None:
        self.least, self.lm = dict(least), lm
        self._facts = TaskFacts()
        self._known: dict[tuple[int, ...], str] = {}
        costly = {value for values in LOGGED.values() for value in values} | set(LOGGED)
        for name, floor in self.least.items():
            if name in costly:
                raise PromptError(
                    f"{OPTION} names {name}, which passes over the task's rows for each prompt; "
                    f"give some of {', '.join(OF_MORE)}."
                )
            if name not in OF_MORE:
                raise PromptError(
                    f"{OPTION} names {name!r}, of which the panel has no value where more is "
                    f"better; give some of {', '.join(OF_MORE)}."
                )
            if not math.isfinite(floor):
                raise PromptError(f"{OPTION}: {name} is {floor}; give a finite number.")
        self._measures = [m for m in MEASURES if m in {OF_MORE[name] for name in self.least}]

    def hold(self, ids: Sequence[int]) -> bool:
        """Whether a prompt has enough of everything; what cannot be measured is not enough."""
        return not self.lacking(ids)

    @torch.no_grad()
    def lacking(self, ids: Sequence[int]) -> str:
        """What a prompt has too little of, for people; empty where it has enough."""
        if (key := tuple(ids)) not in self._known:
            said: list[str] = []
            found = panel(self.lm, list(ids), self._measures, self._facts, say=said.append)
            lacks = [
                f"{name} {found[name]:.4g} instead of {least:g}"
                for name, least in self.least.items()
                if name in found and not found[name] >= least
            ]
            unmeasured = not self.least.keys() <= found.keys()
            self._known[key] = "; ".join([*said, *lacks]) if lacks or unmeasured else ""
        return self._known[key]

    def begin(self, facts: TaskFacts, start: Sequence[int]) -> None:
        """Take what the measures ask of the task, and refuse a start that is below.

        So what is kept is above from the first step on, and its objective never gets worse.

        Raises:
            PromptError: If it is.
        """
        self._facts = replace(facts, shuffled=OVER_SHUFFLED in self.least)
        self._known = {}
        if lacking := self.lacking(start):
            raise PromptError(
                f"{OPTION}: the start, {self.lm.decode(list(start))!r}, does not hold them "
                f"({lacking.rstrip('.')}); start from a text that does (--model.init FromText), or "
                "lower them."
            )
