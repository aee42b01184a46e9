"""Rewards of hard prompts: how well they do a task, and how readable they are."""

from lightning_prompts.tuners.rewards.base import PromptMeasures, Reward, Scores
from lightning_prompts.tuners.rewards.classification import ClassificationGap
from lightning_prompts.tuners.rewards.style.reward import StyleTransfer

__all__ = ["ClassificationGap", "PromptMeasures", "Reward", "Scores", "StyleTransfer"]
