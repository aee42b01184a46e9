"""Ends a run at the first loss, reward or gradient that is no number, before one is saved."""

import math
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_prompts.callbacks.base import gathered
from lightning_prompts.files.errors import RunError
from lightning_prompts.files.lightning_internals import within_step
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.batches import require_batch

LOSS, GRADIENT, WEIGHTS = "the loss", "the gradient", "the trained weights"
ROWS_SHOWN = 64
BATCHES_KEPT = 4096  # for runs that log nothing
NONE = math.inf  # the step of what has not happened


class FiniteNumbers(Callback):
    """Looks at every step's loss, its parts and its gradient.

    On a CPU a bad step ends the run before the optimizer takes it. On a GPU that would wait for the
    device at every step, so there the first bad step is only noted, on the device, and asked for
    where the step's values are logged anyway, and before anything is validated or saved. Several
    processes ask at the same moments, and tell each other.
    """

    def __init__(self) -> None:
        self._first: dict[str, Tensor] = {}
        """Of each quantity that was looked at, the first step at which it was no number."""
        self._rows: deque[tuple[int, Tensor]] = deque(maxlen=BATCHES_KEPT)
        """[step, numbers of the batch's rows] since the last time that all was well."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the rows."""
        require_batch(batch)  # callbacks come before the tuner
        self._rows.append((trainer.global_step + 1, batch["rows"]))

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Look at the loss and what it is made of."""
        assert isinstance(pl_module, PromptTuner)
        for name, values in pl_module.loss_parts.items():
            self._look(trainer, name, [values])
        self._look(trainer, LOSS, [loss])

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the gradient, before it is clipped."""
        # A loss scale is too high now and then: its steps are left out, and it is lowered.
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            # The optimizer's: to go through all weights of a large model takes half a millisecond.
            trained = (p for group in optimizer.param_groups for p in group["params"])
            self._look(trainer, GRADIENT, [p.grad for p in trained if p.grad is not None])
        if self.asks_at_once(trainer):
            self._ask(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Ask where the step's values are read anyway."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # At a step's end: what has been asked for forgets its rows.
        if every and trainer.global_step % every == 0 and not within_step(trainer):
            self._ask(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask before a validation is spent on it."""
        self._ask(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save what is no number: the checkpoint that is there stays the last good one.

        Raises:
            RunError: If anything was none.
        """
        self._look(trainer, WEIGHTS, [p for p in pl_module.parameters() if p.requires_grad])
        self._ask(trainer)

    def asks_at_once(self, trainer: Trainer) -> bool:
        """Whether asking costs nothing."""
        return trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"

    def _look(self, trainer: Trainer, name: str, tensors: list[Tensor]) -> None:
        """Note on the device, without waiting for it, whether all values are numbers."""
        if not tensors:
            return
        finite = torch.stack([t.detach().isfinite().all() for t in tensors]).all()
        step = trainer.global_step if name is WEIGHTS else trainer.global_step + 1
        now = torch.where(finite, NONE, float(step))
        earlier = self._first.get(name)
        self._first[name] = now if earlier is None else torch.minimum(earlier, now)

    def _ask(self, trainer: Trainer) -> None:
        """End the run if anything was no number since the last time.

        Raises:
            RunError: If so.
        """
        names = list(self._first)
        first = torch.stack(list(self._first.values())).tolist() if names else []
        bad = [(name, int(step)) for name, step in zip(names, first, strict=True) if step < NONE]
        if not trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
            self._rows.clear()
            return
        step = min((step for _, step in bad), default=0)
        rows = [row for when, batch in self._rows if when == step for row in batch.tolist()]
        own = ([name for name, when in bad if when == step], step, rows)
        found = [each for each in gathered(trainer, own) if each[0]]
        step = min(each[1] for each in found)
        what = list(dict.fromkeys(n for names, at, _ in found if at == step for n in names))
        of = sorted(row for _, at, rows in found if at == step for row in rows)
        look = "look at these rows, " if of else ""
        raise RunError(
            f"Step {step} gave numbers that are not finite: {_all(what)}{_of(of)}; lower "
            f"--model.optimizer.lr, {look}or compute in --trainer.precision 32-true"
        )


def _all(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _of(rows: list[int]) -> str:
    """Which rows the step was of."""
    if not rows:
        return ""
    shown = ", ".join(map(str, rows[:ROWS_SHOWN]))
    more = ", …" if len(rows) > ROWS_SHOWN else ""
    return f", on the training rows {shown}{more} (from 0)"
