"""Learning-rate schedule whose length is part of its state."""

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupLinear(LRScheduler):
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
        warmup_steps: int = 20,
        total_steps: int | None = None,
        final_fraction: float = 0.1,
    ) -> None:
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.final_fraction = final_fraction
        super().__init__(optimizer)

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
