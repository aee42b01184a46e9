"""Perplexity of the hard prompt at each validation, and a panel: can a person read it?"""

import logging
from collections.abc import Mapping
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_prompts.callbacks.base import EvaluationCallback
from lightning_prompts.callbacks.scrutability_panel import Panel
from lightning_prompts.files.option_types import Count, ModelName
from lightning_prompts.files.stages import Stage
from lightning_prompts.lm.batch import Batch
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
        panel: Names of further measures of the text, read by the scorer, else by the task's own
            model, at each validation and test: `natural_percentile`, `task_identification`,
            `grammar`, `repetition`, `real_words`, `copied_run`; and `token_effects` and
            `simulatability`, which pass over some 256 rows many times; or `all`. By default, in
            tests alone, `natural_percentile`, `grammar` and `copied_run`; an empty list is none.

    Raises:
        PromptError: If a number is below 1, or the panel has no measure of a name.
    """

    def __init__(
        self,
        every_n_validations: Count = 1,
        scorer: ModelName | None = None,
        panel: list[str] | Literal["all"] | None = None,
    ) -> None:
        super().__init__(every_n_validations)
        self.scorer, self.panel = scorer, panel
        self._panel = Panel(panel)
        self._lm: FrozenLM | None = None
        self._scored: tuple[str, Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the scorer: one that is not there is said before any training."""
        if self.scorer is not None and self._lm is None and stage != "predict":
            log.info("Loading the scorer of perplexity, %s.", self.scorer)
            # No submodule of the tuner: it belongs in no checkpoint and no optimizer.
            self._lm = ScorerLM(self.scorer)

    def begin(self, trainer: Trainer, tuner: PromptTuner, stage: Stage) -> None:
        """Choose the panel's measures."""
        self._panel.begin(trainer, tuner, stage)

    def measure(self, tuner: PromptTuner, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Let the panel take some rows."""
        self._panel.measure(outputs, batch)

    def values(self, trainer: Trainer, tuner: PromptTuner) -> Mapping[str, Tensor | float]:
        """Log-perplexity and its exponential, and the panel."""
        if self._lm is None:
            nats = tuner.hard_log_perplexity()
        else:
            nats = self._score(
                self._lm, tuner.lm.decode(tuner.hard_prompt().tolist()), tuner.device
            )
        panel = self._panel.values(trainer, tuner, self._lm)
        return {"log_perplexity": nats, "perplexity": nats.exp(), **panel}

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
