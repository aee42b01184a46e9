"""Rows that a prompt has answered, and how others answer the same: for the costly measures."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prompts.files.drawing import drawn_counts
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.class_scores import class_scores
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer


@dataclass
class AnsweredRows:
    """What token effects and simulatability are measured on.

    Attributes:
        lm: The task's frozen language model.
        template: Of the rows.
        verbalizer: The classes' answers.
        prompt: [P] Token ids of the prompt in this model.
        batches: N labelled rows on the model's device.
        texts: [N] Their texts, as a reader is shown them.
        answers: [N] Class that the model answers with the prompt in use.
        unlabelled: M other rows, whose labels nobody looks at, to recalibrate on.
        unlabelled_texts: [M] Their texts.
        precision: The context of the passes.
    """

    lm: FrozenLM
    template: Template
    verbalizer: Verbalizer
    prompt: Sequence[int]
    batches: Sequence[Batch]
    texts: Sequence[str]
    answers: Tensor
    unlabelled: Sequence[Batch]
    unlabelled_texts: Sequence[str]
    precision: Callable[[], AbstractContextManager[None]] = field(default=nullcontext)

    @property
    def labels(self) -> Tensor:
        """[N] True classes, on the CPU."""
        return torch.cat([batch["labels"] for batch in self.batches]).cpu()

    def draws(self) -> Tensor:
        """[D, N] How often each row is in each bootstrap draw, by its number.

        So that processes that share the rows, which gather them in another order, draw the same.
        """
        numbers = torch.cat([batch["rows"] for batch in self.batches]).cpu()
        return drawn_counts(len(numbers))[:, numbers.argsort().argsort()]

    @torch.no_grad()
    def log_shares(self, prompt: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the classes under something else in the prompt's place.

        Args:
            prompt: Any number of token ids, or [P, H] vectors on the model's device.

        Returns:
            Of the N rows [N, C] and of the unlabelled ones [M, C]; float64, on the CPU.
        """
        if isinstance(prompt, Tensor):
            prompts = prompt[None]
        else:
            device = self.lm.embedding_table.device
            ids = torch.tensor([list(prompt)], dtype=torch.long, device=device)
            prompts = self.lm.embed(ids)
        lm, template, words = self.lm, self.template, self.verbalizer
        return self.scored(lambda batch: class_scores(lm, template, words, prompts, batch)[0])

    @torch.no_grad()
    def scored(self, scores: Callable[[Batch], Tensor]) -> tuple[Tensor, Tensor]:
        """`log_shares` of any way to answer.

        Args:
            scores: A batch of B rows to the classes' scores [B, C].
        """
        with self.precision():
            found = [
                [scores(batch).cpu() for batch in batches]
                for batches in (self.batches, self.unlabelled)
            ]
        labelled, unlabelled = (torch.cat(part).double().log_softmax(-1) for part in found)
        return labelled, unlabelled


def recalibrated(log_shares: Tensor, unlabelled: Tensor) -> Tensor:
    """Scores of classes less what unlabelled rows score, which take for granted no frequent class.

    Of two classes the median of their difference is subtracted, so that half of the unlabelled rows
    are answered with each; of several each class's mean log-probability, as in the baseline
    *no prompt, calibrated*. That supposes that the classes are about equally frequent.

    Args:
        log_shares: [N, C] Log-probabilities.
        unlabelled: [M, C] The same of other rows; one with NaN was not readable, and is left out.

    Returns:
        [N, C] NaN where no other row was readable.
    """
    if unlabelled.shape[1] == 2:
        middle = (unlabelled[:, 1] - unlabelled[:, 0]).nanquantile(0.5)
        return log_shares - torch.stack([torch.zeros_like(middle), middle])
    return log_shares - unlabelled.nanmean(0)
