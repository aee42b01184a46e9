"""Tuners: one LightningModule a file, each learning (or holding) one prompt."""

from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.bounded import BoundedPrompt
from lightning_prompts.tuners.guided_search import GuidedSearch
from lightning_prompts.tuners.manual import ManualPrompt
from lightning_prompts.tuners.pez import PEZ
from lightning_prompts.tuners.rlprompt import RLPrompt
from lightning_prompts.tuners.soft import SoftPrompt

__all__ = [
    "PEZ",
    "BoundedPrompt",
    "GuidedSearch",
    "ManualPrompt",
    "PromptTuner",
    "RLPrompt",
    "SoftPrompt",
]
