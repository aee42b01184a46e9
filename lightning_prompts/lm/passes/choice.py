"""Whether encoding shared parts once is faster than whole sequences: measured where it is open."""

import logging
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from lightning_prompts.files.option_names import for_reader
from lightning_prompts.lm.batch import Batch

log = logging.getLogger(__name__)

WARM_UP, REPETITIONS = 2, 5

Answers = Callable[[Tensor, Batch, bool], Tensor]


class ReuseChoice:
    """Chooses by itself, once for training and once for evaluation.

    On a CPU, for many prompts at once, and behind texts that are kept, reuse always wins. On a GPU
    one prompt that comes first on a small model is bound by kernel launches, of which reuse makes
    twice as many; so both ways are timed on the first batch that comes. They give the same numbers.
    """

    def __init__(self) -> None:
        self._chosen: dict[bool, bool] = {}

    def __call__(self, answers: Answers, prompts: Tensor, batch: Batch) -> bool:
        """Whether to reuse.

        Args:
            answers: Hidden states of prompts, a batch, and whether to reuse.
            prompts: [K, P, H] or [K, P]
            batch: B examples.
        """
        one = prompts.ndim == 3 and len(prompts) == 1 and prompts.shape[1] > 0
        if prompts.device.type != "cuda" or not one or not batch["shared_before"]:
            return True
        training = torch.is_grad_enabled() and prompts.requires_grad
        if training not in self._chosen:
            reused, whole = (measured(answers, prompts, batch, way) for way in (True, False))
            self._chosen[training] = reused < whole
            log.info(
                for_reader(
                    "%s %s shared parts %s: %.3g ms against %.3g ms (--lm.reuse_prompt decides it)."
                ),
                "Training" if training else "Evaluation",
                "encodes" if reused < whole else "repeats",
                "once" if reused < whole else "in each row",
                *(1000 * min(reused, whole), 1000 * max(reused, whole)),
            )
        return self._chosen[training]


def measured(answers: Answers, prompts: Tensor, batch: Batch, reuse: bool) -> float:
    """Median seconds of a pass, with its backward pass where gradients are wanted."""
    seconds = []
    for _ in range(WARM_UP + REPETITIONS):
        _wait(prompts.device)
        start = time.perf_counter()
        given = prompts.detach().requires_grad_(prompts.requires_grad)
        hidden = answers(given, batch, reuse)
        if hidden.requires_grad:
            hidden.sum().backward()
        _wait(prompts.device)
        seconds.append(time.perf_counter() - start)
    return median(seconds[WARM_UP:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
