"""A part of an evaluation's rows for measures that cost passes of their own."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch, joined_batch, picked

Outputs = Mapping[str, Tensor]


class Part:
    """Takes an even share of each class, in the order that the rows come in.

    Evaluations read the longest rows first, so the part has the classes' shares and lengths of all
    kinds; it is drawn by no chance and the same at each validation. What it takes is handed on in
    batches of the full size: a few rows of each batch would leave a processor waiting.

    Args:
        share: Of the rows to take, in (0, 1).
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._seen: Counter[int] = Counter()
        self._taken: list[tuple[Tensor, Batch]] = []

    def add(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Batch] | None:
        """Take some rows of a batch.

        Args:
            hidden: [B, ...] What was found of the rows, and is wanted of the part.
            batch: B examples.

        Returns:
            Both of the rows taken so far, once they fill a batch as large as this one; they are
            not handed on again.
        """
        if places := self._places(batch["labels"].tolist()):
            self._taken.append((hidden[places], picked(batch, places)))
        waiting = sum(len(taken["rows"]) for _, taken in self._taken)
        return self.rest() if waiting >= len(batch["rows"]) else None

    def rest(self) -> tuple[Tensor, Batch] | None:
        """Both of the rows that have not been handed on; None where there are none."""
        if not self._taken:
            return None
        states, batches = zip(*self._taken, strict=True)
        self._taken = []
        return torch.cat(states), joined_batch(batches)

    def _places(self, labels: Sequence[int]) -> list[int]:
        """Places of every row at which another whole row of its class is due."""
        places = []
        for place, label in enumerate(labels):
            before = self._seen[label]
            self._seen[label] += 1
            # From the middle of the first stretch, so that small classes are met at all.
            if int((before + 1) * self.share + 0.5) > int(before * self.share + 0.5):
                places.append(place)
        return places
