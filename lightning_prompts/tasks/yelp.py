"""Yelp: is a review, or a sentence of one, positive? (Zhang et al. 2015; Shen et al. 2017)."""

from typing import Any

from lightning_prompts.language_model import FrozenLM
from lightning_prompts.tasks.classification import TextClassification

WORDS = {"0": " terrible", "1": " great"}


class Yelp(TextClassification):
    """Yelp polarity from the Hub (whole reviews), or Yelp sentences from files.

    The Hub has no validation rows; they are cut from its training rows.
    """

    def __init__(
        self,
        lm: FrozenLM,
        template: str = "{prompt} {text} It was",
        verbalizer: dict[str, str] = WORDS,
        path: str | None = "fancyzhx/yelp_polarity",
        name: str | None = "yelp",
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, path=path, name=name, **kwargs)
