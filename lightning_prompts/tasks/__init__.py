"""Tasks: LightningDataModules that serve rows in a template, with the word of each label."""

from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.boolq import BoolQ
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tasks.demo import Demo
from lightning_prompts.tasks.rows import TaskReport
from lightning_prompts.tasks.sst2 import SST2
from lightning_prompts.tasks.yelp import Yelp, YelpTransfer

__all__ = [
    "SST2",
    "BoolQ",
    "Demo",
    "PromptTask",
    "TaskReport",
    "TextClassification",
    "Yelp",
    "YelpTransfer",
]
