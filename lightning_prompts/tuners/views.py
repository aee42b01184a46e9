"""The three views of a prompt: continuous, as tokens, and the one that the model reads."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_prompts.files.numbers import wide
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.kept_ids import KeepsIds
from lightning_prompts.lm.nearest import Distance, Nearest, nearest_tokens, straight_through
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.metrics.scrutability import log_perplexity


class PromptViews(KeepsIds, LightningModule, ABC):
    """What a subclass says of its prompt, and what follows from it.

    `soft_prompt()` is continuous, `hard_prompt()` tokens, and `prompt_embeddings()` the one in use.

    Dimensions: P prompt tokens, H hidden size.

    Attributes:
        lm: The frozen language model.
        template: Where text and prompt sit.
        verbalizer: The answers of each label.
        projection: Distance by which nearest tokens are chosen.
        exclude_special: Whether special tokens are kept out of the hard prompt.
        special_ids: [n] The special tokens.
    """

    soft_in_use: ClassVar[bool]
    """Whether the prompt in use is the soft prompt rather than tokens. Every tuner says it: vectors
    that pass for tokens would be compared with themselves, and differ in nothing."""
    has_soft_prompt: ClassVar[bool] = True
    """Whether there is a continuous prompt apart from token rows."""
    shards: ClassVar[bool] = True
    """Whether all processes pass through the language model equally often, so that it can be
    divided over them."""
    lm: FrozenLM
    template: Template
    verbalizer: Verbalizer
    projection: Distance
    exclude_special: bool
    special_ids: Tensor
    averaged_by: str | None = None
    """What the present prompt is an average of, by the callback's name; None if it is none."""

    _scored: tuple[list[int], Tensor] | None = None

    @abstractmethod
    def soft_prompt(self) -> Tensor:
        """[P, H] The continuous prompt; token rows where there is none."""

    @abstractmethod
    def prompt_embeddings(self) -> Tensor:
        """[P, H] The prompt in use: what the forward pass reads."""

    def hard_prompt(self) -> Tensor:
        """[P] Token ids: nearest to the soft prompt by the tuner's projection."""
        return self.nearest(self.projection, self.exclude_special).ids

    @property
    def prompt_length(self) -> int:
        """P."""
        return len(self.soft_prompt())

    @property
    def lengths(self) -> tuple[int, int]:
        """Fewest and most tokens that the hard prompt may have."""
        return (len(self.hard_prompt()),) * 2

    def nearest(self, metric: Distance, exclude_special: bool = False) -> Nearest:
        """Nearest tokens of the soft prompt and their distances."""
        excluded = self.special_ids if exclude_special else None
        return nearest_tokens(self.soft_prompt(), self.lm.index, metric, excluded)

    def log_perplexity(self) -> Tensor:
        """Mean nats per token of the nearest-token prompt, with a gradient to the soft prompt.

        -1/P sum_i log p(u_i | bos, u_<i) with straight-through inputs and hard labels, so the
        gradient flows through the inputs (ours for soft prompts; PEZ's released form for PEZ).
        """
        ids = self.hard_prompt()
        inputs = straight_through(self.soft_prompt(), wide(self.lm.embed(ids)))
        return log_perplexity(self.lm.token_nll(ids[None], inputs[None]))

    @torch.no_grad()
    def hard_log_perplexity(self) -> Tensor:
        """Mean nats per token of `hard_prompt()` under the task LM; remembered until it changes."""
        ids = self.hard_prompt()
        key = ids.tolist()
        if self._scored is None or self._scored[0] != key:
            self._scored = key, log_perplexity(self.lm.token_nll(ids[None]))
        return self._scored[1]
