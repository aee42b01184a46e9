"""PEZ: hard prompts made easy (Wen et al. 2023, arXiv:2302.03668)."""

from typing import Any

import torch
from torch import Tensor

from lightning_prompts.language_model import FrozenLM
from lightning_prompts.projection import straight_through
from lightning_prompts.prompt_init import PromptInit
from lightning_prompts.template import Batch, Template
from lightning_prompts.tuners.soft import SoftPrompt
from lightning_prompts.verbalizer import Verbalizer


class PEZ(SoftPrompt):
    """Learns tokens: forward through the nearest tokens, update the continuous iterate.

    Each step projects the iterate, takes the gradient at the projection and applies it to the
    iterate. The prompt in use is its tokens' rows, so it is faithful by construction.

    Args:
        lm: The frozen language model; given by `--lm.*`.
        template: Where text and prompt sit; given by `--data.template`.
        verbalizer: The answer word of each label; given by `--data.verbalizer`.
        prompt_length: P, or null for the initialiser's own length.
        init: Where the iterate starts; rows of the vocabulary by default.
        keep_continuous: True is the paper's algorithm. False restores the projected prompt before
            each update, as the released language-model script does: projected gradient descent.
        **kwargs: Of `PromptTuner`.
    """

    slug = "pez"
    soft_in_use = False

    def __init__(
        self,
        lm: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        prompt_length: int | None = None,
        init: PromptInit | None = None,
        keep_continuous: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, prompt_length, init, **kwargs)
        self.keep_continuous = keep_continuous
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
