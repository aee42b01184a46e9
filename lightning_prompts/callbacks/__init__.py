"""Callbacks that measure a prompt at each validation and show what it is."""

from lightning_prompts.callbacks.baselines import Baselines
from lightning_prompts.callbacks.faithfulness import Faithfulness
from lightning_prompts.callbacks.prompt_text import PromptText
from lightning_prompts.callbacks.scrutability import Scrutability

__all__ = ["Baselines", "Faithfulness", "PromptText", "Scrutability"]
