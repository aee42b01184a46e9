"""Where a fit ends, and why; one that is resumed goes neither past that end nor short of it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler, Timer
from torch import Tensor

from lightning_prompts.callbacks.base import callbacks_of
from lightning_prompts.files.amounts import apart, count
from lightning_prompts.files.lightning_internals import seconds_of
from lightning_prompts.tuners.prompt_init import RECORD

OURS = ("lightning", "lightning_prompts")  # whose callbacks are looked at, or never ask
STEPS, EPOCHS = "--trainer.max_steps", "--trainer.max_epochs"


class EarlyEnd(NamedTuple):
    """What ended a fit, or would end it again: a clause, and what to change so that it goes on."""

    cause: str
    fix: str = ""
    """Empty where the same command goes on."""


class EarlyEnds:
    """Watches for the end that a callback asks for; its owner is the last callback to act."""

    def __init__(self) -> None:
        self.end: EarlyEnd | None = None
        """Why the trainer was asked to stop."""
        self.comes = False
        """Whether the fit ends as soon as what is due has been validated."""
        self._measured: Mapping[str, float] = {}
        self._limits: tuple[int, int] | None = None

    def resume(self, trainer: Trainer, checkpoint: dict[str, Any], due: bool) -> None:
        """End a fit at once that goes on from where a callback or its time had ended it.

        A limit of epochs becomes one of steps: Lightning counts a resumed run's epochs otherwise
        than an uninterrupted one's, and would make more steps, or fewer.

        Args:
            trainer: Of the fit.
            checkpoint: That it goes on from, not loaded yet.
            due: Whether a validation comes first, which decides anew.
        """
        keep_options(trainer, checkpoint)
        self._measured = checkpoint.get(RECORD, {}).get("metrics", {})
        self.end = None if due else ended_at(trainer, checkpoint)
        if self.end is not None:
            trainer.should_stop = True
        loop, planned = trainer.fit_loop, planned_steps(trainer, trainer.lightning_module)
        if (loop.max_epochs or -1) > 0 and planned and not _changes_steps(trainer):
            self._limits = loop.epoch_loop.max_steps, loop.max_epochs or -1
            loop.epoch_loop.max_steps, loop.max_epochs = planned, -1

    def finish(self, trainer: Trainer) -> None:
        """Put the limits back."""
        if self._limits is not None:
            trainer.fit_loop.epoch_loop.max_steps, trainer.fit_loop.max_epochs = self._limits
            self._limits = None

    def watch(self, trainer: Trainer) -> None:
        """Learn at once who asks for an end: later, others may ask as well."""
        if trainer.should_stop and self.end is None:
            self.end = asked_by(trainer)

    def put_off(self, trainer: Trainer) -> None:
        """Begin all the same, where Lightning would not, to validate what is due."""
        self.comes, trainer.should_stop = trainer.should_stop, False

    def begin(self, trainer: Trainer) -> None:
        """Let `EarlyStopping` see what was measured last before the fit goes on.

        Where it looks at the end of an epoch, and the checkpoint was written just before, a resumed
        fit begins with that end, and Lightning with no values.
        """
        for callback in callbacks_of(trainer, EarlyStopping):
            name = callback.monitor
            if name in self._measured and name not in trainer.callback_metrics:
                value = torch.tensor(self._measured[name], dtype=torch.float64)
                trainer.callback_metrics[name] = value


def asked_by(trainer: Trainer) -> EarlyEnd:
    """Who has just asked the trainer to stop. Call it after every other callback."""
    for callback in callbacks_of(trainer, EarlyStopping):
        state = {"wait_count": callback.wait_count, "best_score": callback.best_score}
        if found := _exhausted(callback, state, trainer.callback_metrics.get(callback.monitor)):
            return found
    for timer in callbacks_of(trainer, Timer):
        if found := _over(timer, timer.time_elapsed()):
            return found
    own = [type(callback) for callback in callbacks_of(trainer, Callback)]
    given = {kind.__name__ for kind in own if kind.__module__.split(".")[0] not in OURS}
    who = " or ".join(sorted(given)) or "a part of it"
    return EarlyEnd(f"{who} asked the trainer to stop (should_stop)")


def ended_at(trainer: Trainer, checkpoint: Mapping[str, Any]) -> EarlyEnd | None:
    """What ended the run at a checkpoint, by the options of the callbacks that there are now.

    None where a callback that ended it is gone, or was given more patience or time.

    Args:
        trainer: Of the fit that goes on.
        checkpoint: That it goes on from.
    """
    states, record = checkpoint["callbacks"], checkpoint.get(RECORD, {})
    for callback in callbacks_of(trainer, EarlyStopping):
        if state := states.get(callback.state_key):
            value = record.get("metrics", {}).get(callback.monitor)
            if found := _exhausted(callback, state, None if value is None else torch.tensor(value)):
                return found
    for timer in callbacks_of(trainer, Timer):
        elapsed = states.get(timer.state_key, {}).get("time_elapsed", {})
        if found := _over(timer, elapsed.get("train", 0.0)):
            return found
    return None


def keep_options(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Let a patience that was given anew count: Lightning takes the checkpoint's in its place."""
    for callback in callbacks_of(trainer, EarlyStopping):
        if state := checkpoint["callbacks"].get(callback.state_key):
            checkpoint["callbacks"][callback.state_key] = {**state, "patience": callback.patience}


def limit_reached(trainer: Trainer) -> str | None:
    """The option whose limit a fit has reached, None where it has reached none."""
    loop = trainer.fit_loop
    step, most = loop.epoch_loop.global_step, loop.epoch_loop.max_steps
    if 0 <= most <= step:
        return STEPS
    if loop.max_epochs is None or loop.max_epochs < 0:
        return None
    done: Any = loop.epoch_progress.current
    planned = planned_steps(trainer, trainer.lightning_module)
    counted = planned is not None and planned <= step and not _changes_steps(trainer)
    return EPOCHS if counted or done.processed >= loop.max_epochs else None


def planned_steps(trainer: Trainer, module: LightningModule) -> int | None:
    """Steps of a whole fit by its limits, None where there is none."""
    if not getattr(module, "learns", True):
        return 1
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < float("inf") else None


def closing_notes(
    trainer: Trainer, module: LightningModule, end: EarlyEnd | None, start: int, go_on: str
) -> list[str]:
    """What is to be said of a fit that no signal ended, on where and why it ended.

    Args:
        trainer: After the fit.
        module: That was fitted.
        end: Who asked it to stop.
        start: Step that it began from.
        go_on: The command that goes on with it.
    """
    if not getattr(module, "learns", True):
        return []
    step, limit = trainer.global_step, limit_reached(trainer)
    idle = 0 < start == step
    if limit is not None:
        most = trainer.max_steps if limit == STEPS else trainer.max_epochs
        if idle:
            at = f"the checkpoint is at step {step} and {limit} is {most}"
            return [f"Nothing left to train: {at}; raise it to go on."]
        if limit == EPOCHS and trainer.max_steps > step:
            at = f"at step {step} of {trainer.max_steps}, after the {count(most or 0, 'epoch')}"
            return [f"Ended {at} of {limit}; to go on, raise it:\n  {go_on}"]
        return []
    if end is None:
        asked = trainer.should_stop or trainer.fit_loop.max_batches
        end = asked_by(trainer) if asked else EarlyEnd("there are no batches to train on")
    place = at_step(trainer, module)
    fix = f", {end.fix}" if end.fix else ""
    begin = f"Nothing was trained, still {place}" if idle else f"Ended early, {place}"
    return [f"{begin}: {end.cause}; to go on{fix}:\n  {go_on}"]


def at_step(trainer: Trainer, module: LightningModule) -> str:
    """Where a fit is: `at step 3 of 40`."""
    planned = planned_steps(trainer, module)
    of = "" if planned is None or planned < trainer.global_step else f" of {planned}"
    return f"at step {trainer.global_step}{of}"


def _changes_steps(trainer: Trainer) -> bool:
    """Whether the steps of an epoch change from one to the next."""
    return bool(callbacks_of(trainer, GradientAccumulationScheduler))


def _exhausted(
    callback: EarlyStopping, state: Mapping[str, Any], value: Tensor | None
) -> EarlyEnd | None:
    """Why an `EarlyStopping` asks to stop, by its own rules in their own order."""
    name, monitor = type(callback).__name__, callback.monitor
    lower = callback.monitor_op is torch.lt
    if value is not None:
        value = value.cpu().squeeze()
        if callback.check_finite and not torch.isfinite(value):
            return EarlyEnd(f"{name} found {monitor} to be {float(value)}")
        for option, sign in (("stopping_threshold", 1), ("divergence_threshold", -1)):
            threshold = getattr(callback, option)
            if threshold is not None and callback.monitor_op(sign * value, sign * threshold):
                own, bar = apart(float(value), threshold)
                side = "below" if lower == (sign == 1) else "above"
                return EarlyEnd(
                    f"{name} found {monitor}, {own}, {side} its {option} {bar}",
                    f"change {name}'s {option} in the run's config.yaml",
                )
    waited = int(state["wait_count"])
    if waited < max(callback.patience, 1):  # with 0 it is the first that ends it
        return None
    best = float(state["best_score"])
    least = abs(callback.min_delta)
    by = f" by more than {least:g}" if least else ""
    return EarlyEnd(
        f"{name} saw {monitor} get no better than {best:.4g}{by} in {count(waited, 'check')} "
        f"(patience {callback.patience})",
        f"raise {name}'s patience in the run's config.yaml",
    )


def _over(timer: Timer, elapsed: float) -> EarlyEnd | None:
    """That a timer's time is over, where it is."""
    given = seconds_of(timer)
    if given is None or elapsed < given:
        return None
    return EarlyEnd(
        f"its time, {timedelta(seconds=given)}, was over",
        "raise --trainer.max_time, or Timer's duration",
    )
