"""How a tuner's parameters are trained: any optimizer and schedule, or one sentence against it."""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from lightning_prompts.files.errors import PromptError, RunError
from lightning_prompts.tuners.schedule import TransformersSchedule, WarmupLinear

LIST = "docs/optimizers.md tells what there is"


class Optimized(LightningModule):
    """Makes optimizer and schedule, and steps the schedule.

    A schedule is stepped after every step, so that its numbers count steps. One that goes by a
    metric is stepped after every validation of a fit, before anything is saved of it, so that its
    patience counts validations and a resumed run goes on as if it had not been stopped.
    """

    _make_optimizer: Callable[..., Any]
    _make_scheduler: Callable[..., Any] | None

    def configure_optimizers(self) -> Any:
        """Optimizer over the trainable parameters, and its schedule.

        Raises:
            PromptError: If they do not fit the parameters, each other, or the run.
        """
        steps = self.trainer.estimated_stepping_batches
        optimizer, scheduler = optimizer_and_schedule(
            self._make_optimizer,
            self._make_scheduler,
            self._trainable(),
            int(steps) if math.isfinite(steps) else None,  # only time ends the run
        )
        batches = self.trainer.accumulate_grad_batches
        if batches > 1 and isinstance(optimizer, LBFGS):
            raise PromptError(
                f"--model.optimizer {type(optimizer).__name__} computes a step's loss several "
                f"times, and --trainer.accumulate_grad_batches {batches} gives it the last batch "
                "alone; raise --data.batch_size instead."
            )
        if scheduler is None:
            return optimizer
        # Lightning would step what goes by a metric after the validation has been saved.
        interval = "epoch" if goes_by_metric(scheduler) else "step"
        config = {"scheduler": scheduler, "interval": interval, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule, unless it goes by a metric, after a step.

        Raises:
            RunError: If it has no further step.
        """
        if not goes_by_metric(scheduler):
            self._step(scheduler)

    def step_by_metric(self) -> None:
        """Step a schedule that goes by a metric, at the end of a validation of a fit.

        Raises:
            PromptError: If its metric is not logged.
        """
        for config in self.trainer.lr_scheduler_configs:
            if not goes_by_metric(config.scheduler):
                continue
            name = getattr(config.scheduler, "monitor", "val/objective")
            value = self.trainer.callback_metrics.get(name)
            if value is None:
                known = (k for k in sorted(self.trainer.callback_metrics) if k[:4] == "val/")
                raise PromptError(
                    f"--model.lr_scheduler.monitor {name} is not logged; there are "
                    f"{', '.join(known)}."
                )
            self._step(config.scheduler, float(value))

    def _step(self, scheduler: Any, *metric: float) -> None:
        try:
            scheduler.step(*metric)
        except Exception as error:  # of any class that a configuration names
            name = type(scheduler).__name__
            raise RunError(
                f"At step {self.global_step} --model.lr_scheduler {name} ended: {_said(error)}"
            ) from error

    def _trainable(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]


def goes_by_metric(scheduler: Any) -> bool:
    """Whether a schedule is stepped with a metric's value."""
    return "metrics" in inspect.signature(type(scheduler).step).parameters


def optimizer_and_schedule(
    make_optimizer: Callable[..., Any],
    make_schedule: Callable[..., Any] | None,
    parameters: Sequence[nn.Parameter],
    steps: int | None,
) -> tuple[Optimizer, Any]:
    """The optimizer and its schedule, once others have taken a step on copies of the parameters.

    So a class that does not take such parameters, such gradients or this device is refused before
    the run begins, whatever it raises and when.

    Args:
        make_optimizer: Makes it from parameters.
        make_schedule: Makes it from the optimizer; None for a constant rate.
        parameters: To train.
        steps: Of the run; None where it has no length.

    Raises:
        PromptError: If one of them cannot be made, stepped or saved, or the schedule ends before
            the run.
    """
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]

    @torch.enable_grad()
    def loss() -> Any:
        for copy in copies:
            copy.grad = None
        total = torch.stack([(copy - 1).square().sum() for copy in copies]).sum()
        total.backward()
        return total

    with _refused("optimizer", make_optimizer):
        tried: Optimizer = make_optimizer(copies)
        tried.step(loss)
        optimizer: Optimizer = make_optimizer(parameters)
    if make_schedule is None:
        return optimizer, None
    with _refused("lr_scheduler", make_schedule):
        first = make_schedule(tried)
        tried.step(loss)
        first.step(*([0.0] if goes_by_metric(first) else []))
        scheduler = make_schedule(optimizer)
        if isinstance(scheduler, WarmupLinear | TransformersSchedule):
            scheduler.run_for(steps)
    with _refused("lr_scheduler", make_schedule, "cannot be saved in a checkpoint, "):
        scheduler.state_dict()
    if isinstance(scheduler, OneCycleLR) and (steps is None or scheduler.total_steps < steps):
        length = "no end" if steps is None else f"{steps} steps"
        raise PromptError(
            f"--model.lr_scheduler OneCycleLR ends after {scheduler.total_steps} steps but the run "
            f"has {length}; set --model.lr_scheduler.total_steps to --trainer.max_steps."
        )
    return optimizer, scheduler


@contextmanager
def _refused(option: str, make: Callable[..., Any], why: str = "") -> Iterator[None]:
    """Turn whatever a class raises that a configuration names into a refusal of it."""
    try:
        yield
    except Exception as error:
        name = _name(make)
        raise PromptError(f"--model.{option} {name}: {why}{_said(error)}; {LIST}.") from error


def _name(make: Callable[..., Any]) -> str:
    """The class that is made, where the parser has wrapped it too."""
    args = getattr(make, "args", ())
    made = next((arg for arg in args if isinstance(arg, type)), getattr(make, "func", make))
    return getattr(made, "__name__", type(made).__name__)


def _said(error: Exception) -> str:
    """What an error says, as a part of a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
