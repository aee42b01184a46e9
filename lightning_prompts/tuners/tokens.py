"""What tuners share whose prompt is tokens and nothing else."""

from torch import Tensor

from lightning_prompts.tuners.base import PromptTuner


class TokenTuner(PromptTuner):
    """Holds tokens, which are all three views of the prompt.

    A subclass keeps them: `keep_ids("token_ids", ids, persistent=True)`.
    """

    differentiates = False
    soft_in_use = False
    has_soft_prompt = False
    token_ids: Tensor

    def soft_prompt(self) -> Tensor:
        """[P, H] The tokens' rows."""
        return self.lm.embed(self.token_ids)

    def hard_prompt(self) -> Tensor:
        """[P] The tokens."""
        return self.token_ids

    def prompt_embeddings(self) -> Tensor:
        """[P, H] The tokens' rows."""
        return self.soft_prompt()
