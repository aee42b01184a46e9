"""PEZ: hard prompts made easy (Wen et al. 2023, arXiv:2302.03668)."""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_prompts.files.drawing import seed_at
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.option_types import Length, Positive
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import straight_through
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.prompt_init import PromptInit
from lightning_prompts.tuners.soft import SoftPrompt

LANGEVIN_STEPS = "langevin_steps"  # its key in a checkpoint


class PEZ(SoftPrompt):
    """Learns tokens: forward through the nearest tokens, update the continuous iterate.

    Each step projects the iterate, takes the gradient at the projection and applies it to the
    iterate. The prompt in use is its tokens' rows, so it is faithful by construction.

    Args:
        prompt_length: P, or null for the initialiser's own length.
        init: Where the iterate starts; rows of the vocabulary by default.
        keep_continuous: True is the paper's algorithm. False restores the projected prompt before
            each update, as the released language-model script does: projected gradient descent.
        langevin_beta: First and last beta of Langevin noise (FluentPrompt, Shi et al. 2022,
            arXiv:2212.10539), for example [1.0, 0.0001]: after each update sqrt(2 * lr * beta) * z
            is added to the iterate, z standard normal, beta falling geometrically over the run.
            Needs `keep_continuous: false`; null is no noise.
        lm, template, verbalizer, **kwargs: Of `PromptTuner`.

    Raises:
        PromptError: If `langevin_beta` is out of range, or stands with `keep_continuous: true`.
    """

    slug = "pez"
    soft_in_use = False

    def __init__(
        self,
        lm: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        prompt_length: Length | None = None,
        init: PromptInit | None = None,
        keep_continuous: bool = True,
        langevin_beta: tuple[Positive, Positive] | None = None,
        **kwargs: Any,
    ) -> None:
        if langevin_beta is not None:
            if keep_continuous:
                raise PromptError(
                    "--model.langevin_beta adds noise to projected steps, which "
                    "--model.keep_continuous true does not take; set it to false."
                )
            if not (0 < langevin_beta[1] <= langevin_beta[0] < math.inf):
                raise PromptError(
                    f"--model.langevin_beta is {list(langevin_beta)}; give two numbers above 0, "
                    "the first not the smaller, for example [1.0, 0.0001]."
                )
        super().__init__(lm, template, verbalizer, prompt_length, init, **kwargs)
        self.keep_continuous, self.langevin_beta = keep_continuous, langevin_beta
        self._langevin_steps: int | None = None  # the length that the run began with
        self._step_ids: Tensor | None = None  # of the iterate while a step stands at it

    def hard_prompt(self) -> Tensor:
        """[P] Token ids nearest to the iterate; within a training step, those it began with."""
        return super().hard_prompt() if self._step_ids is None else self._step_ids

    def prompt_embeddings(self) -> Tensor:
        """[P, H] Rows of the nearest tokens, with a straight-through gradient to the iterate."""
        return straight_through(
            self.prompt, self.lm.embed(self.hard_prompt()).to(self.prompt.dtype)
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One batch at the projected prompt; returns the loss in nats."""
        self._step_ids = self.hard_prompt()  # both losses read it: one projection is enough
        try:
            if not self.keep_continuous:
                with torch.no_grad():
                    self.prompt.copy_(self.lm.embed(self._step_ids))
            return super().training_step(batch, batch_idx)
        finally:
            self._step_ids = None

    # ---- Langevin noise

    def on_train_start(self) -> None:
        """Learn over how many steps the noise falls; a resumed run goes on with its first length.

        Raises:
            PromptError: If there is noise and the run has no length, or the optimizer no rate.
        """
        super().on_train_start()
        if self.langevin_beta is not None and self._langevin_steps is None:
            steps = self.trainer.estimated_stepping_batches
            if not math.isfinite(steps):
                raise PromptError(
                    "--model.langevin_beta falls over the run, which has no length; set "
                    "--trainer.max_steps."
                )
            self._langevin_steps = int(steps)
        if self.langevin_beta is not None and self.trainer.optimizers[0].defaults["lr"] is None:
            raise PromptError(
                "--model.langevin_beta measures its noise by the optimizer's rate, which this one "
                "finds by itself; set --model.optimizer.lr."
            )

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Update, then add noise: before anything can be saved or measured without it."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.langevin_beta is not None:
            assert self._langevin_steps is not None, "training has not begun"
            beta = langevin_beta(self.global_step, self._langevin_steps, *self.langevin_beta)
            generator = torch.Generator().manual_seed(seed_at(self.seed, self.global_step))
            noise = torch.randn(self.prompt.shape, generator=generator).to(self.prompt)
            scale = math.sqrt(2 * float(optimizer.param_groups[0]["lr"]) * beta)
            with torch.no_grad():
                self.prompt.add_(noise, alpha=scale)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the length over which the noise falls."""
        super().on_save_checkpoint(checkpoint)
        if self._langevin_steps is not None:
            checkpoint[LANGEVIN_STEPS] = self._langevin_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self._langevin_steps = checkpoint.get(LANGEVIN_STEPS)


def langevin_beta(step: int, steps: int, first: float, last: float) -> float:
    """Beta of a step from 0 on: geometric from `first` to `last` at the last of `steps`, then flat.

    >>> [langevin_beta(step, 5, 1.0, 1e-4) for step in (0, 2, 4, 9)]
    [1.0, 0.01, 0.0001, 0.0001]
    """
    share = min(1.0, step / max(1, steps - 1))
    return float(first * (last / first) ** share)
