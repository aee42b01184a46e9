"""Prompts that people would write for each of the described tasks, and texts about none of them."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from lightning_prompts.metrics.panel.frames import KINDS, TaskKind

FILE = Path(__file__).with_suffix(".yaml")


class TaskTexts(NamedTuple):
    """Prompts that people would write for a task, and the words that it is answered with."""

    answers: list[str]
    texts: list[str]


@cache
def shipped_texts() -> tuple[dict[TaskKind, TaskTexts], list[str]]:
    """The texts of each task, six of them, and those about nothing of them."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {kind: TaskTexts(**content["tasks"][kind]) for kind in KINDS}, content["nothing"]
