"""What tuners share whose prompt is tokens and nothing else."""

from typing import Any

from torch import Tensor

from lightning_prompts.tuners.base import PromptTuner


class TokenTuner(PromptTuner):
    """Holds tokens, which are all three views of the prompt; a subclass registers `token_ids`."""

    soft_in_use = False
    has_soft_prompt = False
    token_ids: Tensor

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Make room first: a search's prompts differ in length."""
        saved = state_dict.get(f"{prefix}token_ids")
        if saved is not None and saved.shape != self.token_ids.shape:
            self.token_ids = self.token_ids.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def soft_prompt(self) -> Tensor:
        """[P, H] The tokens' rows."""
        return self.lm.embed(self.token_ids)

    def hard_prompt(self) -> Tensor:
        """[P] The tokens."""
        return self.token_ids

    def prompt_embeddings(self) -> Tensor:
        """[P, H] The tokens' rows."""
        return self.soft_prompt()
