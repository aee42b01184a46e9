"""A prompt that a person wrote: the baseline that every learned prompt has to beat."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.prompt_init import text_ids
from lightning_prompts.tuners.tokens import TokenTuner


class ManualPrompt(TokenTuner):
    """Holds a text's tokens and learns nothing; `fit` validates it once.

    Args:
        text: The prompt; a leading space matters: it is part of the first token.
        lm, template, verbalizer, **kwargs: Of `PromptTuner`.
    """

    slug = "manual"
    learns = False

    def __init__(
        self, lm: FrozenLM, template: Template, verbalizer: Verbalizer, text: str, **kwargs: Any
    ) -> None:
        super().__init__(lm, template, verbalizer, **kwargs)
        self.keep_ids("token_ids", text_ids(text, lm), persistent=True)
        # Lightning's loop and DDP want one parameter and a step; this one stays 0.
        self.idle = nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Nothing to learn: a loss of 0, after which the base class stops."""
        return self.idle * 0
