"""Learning-rate schedules beside torch's, for what a configuration could not say with those."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LambdaLR, LRScheduler, SequentialLR

from lightning_prompts.files.option_types import ChecksOptions, Count, CountOrZero, Share

Schedule = Callable[[Optimizer], LRScheduler]
UNTIL_KNOWN = 1 << 30  # steps of a run whose length is not yet known


class WarmupLinear(ChecksOptions, LRScheduler):
    """Linear warm-up, then a linear fall to a fraction of the learning rate, then constant.

    The length is kept in checkpoints: a run resumed with another `max_steps` goes on with the
    schedule that it began with.

    Args:
        optimizer: Whose learning rates to set.
        warmup_steps: Steps from 1/warmup_steps of the rate to the full rate.
        total_steps: Step at which the fall ends; None until the trainer's own length is known.
        final_fraction: Fraction of the rate from `total_steps` on.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: CountOrZero = 20,
        total_steps: Count | None = None,
        final_fraction: Share = 0.1,
    ) -> None:
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.final_fraction = final_fraction
        super().__init__(optimizer)

    def run_for(self, steps: int | None) -> None:
        """Take the run's length, None where it has none, unless another one was given."""
        if self.total_steps is None:
            self.total_steps = steps

    def get_lr(self) -> list[float | Tensor]:
        """Learning rate of each parameter group at the current step."""
        return [rate * self._factor(self.last_epoch) for rate in self.base_lrs]

    def _factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.total_steps is None:
            return 1.0
        fall = max(1, self.total_steps - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / fall)
        return 1.0 - (1.0 - self.final_fraction) * done


class SequentialSchedule(SequentialLR):
    """One schedule after another: torch's `SequentialLR`, made of what a configuration can name.

    Args:
        optimizer: Whose learning rates to set.
        schedulers: Made from the optimizer.
        milestones: Steps at which the second, the third and so on begin, each with its own step 0.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[Schedule], milestones: list[int]
    ) -> None:
        super().__init__(optimizer, [make(optimizer) for make in schedulers], milestones)


class ChainedSchedule(ChainedScheduler):
    """Several schedules at once, their factors multiplied: torch's `ChainedScheduler`.

    Args:
        optimizer: Whose learning rates to set.
        schedulers: Made from the optimizer.
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[Schedule]) -> None:
        super().__init__([make(optimizer) for make in schedulers], optimizer)


class TransformersSchedule(LambdaLR):
    """What transformers' `get_scheduler` makes; its length is part of the state.

    Args:
        optimizer: Whose learning rates to set.
        name: For example `linear`, `cosine`, `polynomial`, `inverse_sqrt`, `constant_with_warmup`.
        num_warmup_steps: Steps from 0 to the full rate.
        num_training_steps: Step at which the fall ends; None is the trainer's own length.
        scheduler_specific_kwargs: Options of this name's schedule alone.

    Raises:
        ValueError: If there is no such schedule, or not by a factor of each step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        name: str,
        num_warmup_steps: int = 0,
        num_training_steps: int | None = None,
        scheduler_specific_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.num_warmup_steps = name, num_warmup_steps
        self.num_training_steps = num_training_steps
        self.specific = dict(scheduler_specific_kwargs or {})
        self.peak: float = optimizer.defaults["lr"] or 1.0
        self.num_groups = len(optimizer.param_groups)
        super().__init__(optimizer, self._factors())

    def run_for(self, steps: int | None) -> None:
        """Take the run's length, None where it has none, unless another one was given."""
        if self.num_training_steps is None:
            self.num_training_steps = steps
            self.lr_lambdas = self._factors()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the length that it began with."""
        super().load_state_dict(state_dict)
        self.lr_lambdas = self._factors()

    def _factors(self) -> list[Callable[[int], float]]:
        """Of each parameter group, from an optimizer that is none: the real one keeps its rate."""
        from transformers import get_scheduler  # takes seconds

        groups = [{"params": [torch.zeros(1)]} for _ in range(self.num_groups)]
        steps = UNTIL_KNOWN if self.num_training_steps is None else self.num_training_steps
        made = get_scheduler(
            self.name,
            SGD(groups, lr=self.peak),
            self.num_warmup_steps,
            steps,
            scheduler_specific_kwargs=dict(self.specific),
        )
        if not isinstance(made, LambdaLR):
            raise ValueError(f"{self.name} goes by a metric: name its class, {type(made).__name__}")
        return list(made.lr_lambdas)
