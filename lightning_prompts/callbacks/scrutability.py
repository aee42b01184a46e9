"""Perplexity of the hard prompt at each validation: can a person read it?"""

import logging
from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_prompts.callbacks.base import EvaluationCallback
from lightning_prompts.files.option_types import Count, ModelName
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.metrics.scrutability import log_perplexity
from lightning_prompts.tuners.base import PromptTuner

log = logging.getLogger(__name__)


class ScorerLM(FrozenLM):
    """A language model that only scores prompts."""

    option = "--scrutability.scorer"


class Scrutability(EvaluationCallback):
    """Logs `log_perplexity` (nats per token) and `perplexity` of the hard prompt.

    Every rank holds the same prompt and computes the same value.

    Args:
        every_n_validations: In `fit`, measure at every n-th validation and at the last.
        scorer: Name of another language model (as `--lm.name`) to score the prompt, one that it
            was not tuned against: its text is encoded by the scorer's tokenizer and the nats are
            per token of the scorer. By default the task's own model. `objective` keeps to the
            task's model, like the loss that is trained.
    """

    def __init__(self, every_n_validations: Count = 1, scorer: ModelName | None = None) -> None:
        super().__init__(every_n_validations)
        self.scorer = scorer
        self._lm: FrozenLM | None = None
        self._scored: tuple[str, Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the scorer: one that is not there is said before any training."""
        if self.scorer is not None and self._lm is None and stage != "predict":
            log.info("Loading the scorer of perplexity, %s.", self.scorer)
            # No submodule of the tuner: it belongs in no checkpoint and no optimizer.
            self._lm = ScorerLM(self.scorer)

    def values(self, trainer: Trainer, tuner: PromptTuner) -> Mapping[str, Tensor | float]:
        """Log-perplexity and its exponential."""
        if self._lm is None:
            nats = tuner.hard_log_perplexity()
        else:
            nats = self._score(
                self._lm, tuner.lm.decode(tuner.hard_prompt().tolist()), tuner.device
            )
        return {"log_perplexity": nats, "perplexity": nats.exp()}

    def _score(self, scorer: FrozenLM, text: str, device: torch.device) -> Tensor:
        """Nats per token of a text under the scorer; remembered until the text changes."""
        if self._scored is None or self._scored[0] != text:
            scorer.to(device)
            (ids,) = scorer.tokenize([text])
            if scorer.reads(ids):
                nll = scorer.token_nll(torch.tensor([ids], dtype=torch.long, device=device))
                self._scored = text, log_perplexity(nll)
            else:  # what it has no token for has no probability
                self._scored = text, torch.tensor(torch.inf, device=device)
        return self._scored[1]
