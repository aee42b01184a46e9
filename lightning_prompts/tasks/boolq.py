"""BoolQ: does a passage answer a question with yes? (Clark et al. 2019, arXiv:1905.10044)."""

from typing import Any, ClassVar

from lightning_prompts.lm.chat import Conversation
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Words
from lightning_prompts.tasks.classification import TextClassification

WORDS: Words = {"0": " no", "1": " yes"}


class BoolQ(TextClassification):
    """BoolQ from the Hub (boolean column `answer`) or from files (`answer`, or `label` 0 and 1).

    The passage is what is cut where a row is too long, never the question. The Hub has no test
    rows.
    """

    kind = "yes_no"
    other_columns: ClassVar = {"label": ("answer",)}

    def __init__(
        self,
        lm: FrozenLM,
        template: str | Conversation = "{prompt} {passage} Question: {question}? Answer:",
        verbalizer: Words = WORDS,
        path: str | None = "google/boolq",
        name: str | None = "boolq",
        truncate: str | None = "passage",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            lm, template, verbalizer, path=path, name=name, truncate=truncate, **kwargs
        )
