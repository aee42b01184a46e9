"""Soft prompt tuning (Lester et al. 2021, arXiv:2104.08691)."""

import logging
from typing import Any

from torch import Tensor, nn

from lightning_prompts.files.option_names import for_reader
from lightning_prompts.files.option_types import Length
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.prompt_init import FromVocabulary, PromptInit
from lightning_prompts.tuners.rows import task_rows

log = logging.getLogger(__name__)

# Standard deviation of the numbers in GPT-2's and SmolLM2's embeddings, for which the step sizes of
# configs/tuner were tuned; where a model's are LARGE times as large a step hardly moves a prompt.
USUAL, LARGE = 0.14, 3.0
SAMPLED = 1024  # rows


class SoftPrompt(PromptTuner):
    """Free prompt embeddings; its hard prompt is only read, never used in training.

    Args:
        prompt_length: P, or null for the initialiser's own length.
        init: Where the prompt starts; rows of the vocabulary by default.
        lm, template, verbalizer, **kwargs: Of `PromptTuner`.
    """

    slug = "soft"
    soft_in_use = True

    def __init__(
        self,
        lm: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        prompt_length: Length | None = None,
        init: PromptInit | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, **kwargs)
        start = (init or FromVocabulary())(lm, verbalizer, prompt_length, self.seed)
        self.prompt = nn.Parameter(start)

    def soft_prompt(self) -> Tensor:
        """[P, H] The parameters."""
        return self.prompt

    def prompt_embeddings(self) -> Tensor:
        """[P, H] The parameters themselves are in use."""
        return self.prompt

    def on_train_start(self) -> None:
        """Compile what training will ask for, where `--lm.compile` is on."""
        super().on_train_start()
        times = float(self.lm.embedding_table[:SAMPLED].float().std()) / USUAL
        if times > LARGE and not self.trainer.ckpt_path:
            log.info(
                for_reader(
                    "The embeddings of %s are %.0f times as large as those that the shipped step "
                    "sizes are for; to move as far give --model.optimizer that many times its lr."
                ),
                *(self.lm.label, times),
            )
        rows = task_rows(self.trainer)
        if self.lm.compiles and rows is not None:
            with self.trainer.precision_plugin.train_step_context():
                prompt, tree = self.prompt_embeddings(), self.verbalizer.tree
                self.lm.warm_up(prompt, rows.training_lengths(), tree)
