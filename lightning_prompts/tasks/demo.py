"""Demo: a few hundred short reviews that come with the package, so that nothing is downloaded."""

from typing import Any

from lightning_prompts.files import reviews
from lightning_prompts.lm.chat import Conversation
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.verbalizer import Words
from lightning_prompts.tasks.classification import TextClassification

WORDS: Words = {"negative": " terrible", "positive": " great"}


class Demo(TextClassification):
    """The package's own reviews, described in their README.md."""

    kind = "sentiment"

    def __init__(
        self,
        lm: FrozenLM,
        template: str | Conversation = "{prompt} {text} It was",
        verbalizer: Words = WORDS,
        path: str | None = None,
        name: str | None = "demo",
        **kwargs: Any,
    ) -> None:
        # Null stands for the package's folder, so that a saved config.yaml works elsewhere.
        path = str(reviews.FOLDER) if path is None else path
        super().__init__(lm, template, verbalizer, path=path, name=name, **kwargs)
