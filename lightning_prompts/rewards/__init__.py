"""Rewards of hard prompts: how well they do a task, and how readable they are."""

from lightning_prompts.rewards.base import PromptMeasures, Reward, Scores
from lightning_prompts.rewards.classification import ClassificationGap
from lightning_prompts.rewards.style_transfer import StyleTransfer

__all__ = ["ClassificationGap", "PromptMeasures", "Reward", "Scores", "StyleTransfer"]
