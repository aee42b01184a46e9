"""SST-2: is a sentence of a film review positive? (Socher et al. 2013, in GLUE)."""

from typing import Any, ClassVar

from lightning_prompts.lm.chat import Conversation
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Words
from lightning_prompts.tasks.classification import TextClassification

WORDS: Words = {"0": " terrible", "1": " great"}


class SST2(TextClassification):
    """SST-2 from the Hub (column `sentence`) or from files (column `sentence` or `text`).

    The Hub's test rows have no labels: `test` refuses them, `predict` takes them.
    """

    kind = "sentiment"
    other_columns: ClassVar = {"text": ("sentence",)}

    def __init__(
        self,
        lm: FrozenLM,
        template: str | Conversation = "{prompt} {text} It was",
        verbalizer: Words = WORDS,
        path: str | None = "stanfordnlp/sst2",
        name: str | None = "sst2",
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, path=path, name=name, **kwargs)
