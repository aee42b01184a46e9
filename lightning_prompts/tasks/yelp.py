"""Yelp: is a review, or a sentence of one, positive? And its rewriting into the other sentiment.

Zhang et al. 2015 (reviews); Shen et al. 2017 and Li et al. 2018 (sentences and rewrites).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch.utils.data import DataLoader

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Example
from lightning_prompts.lm.chat import Conversation
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.generation.sampling import TransferBatch
from lightning_prompts.lm.verbalizer import Words
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tasks.loading import EncodedRows, collate_rows
from lightning_prompts.tasks.rows import Rows

WORDS: Words = {"0": " terrible", "1": " great"}
STYLES: Words = {"0": " negative", "1": " positive"}
REFERENCES = "references"


class Yelp(TextClassification):
    """Yelp polarity from the Hub (whole reviews), or Yelp sentences from files.

    The Hub has no validation rows; they are cut from its training rows.
    """

    kind = "sentiment"

    def __init__(
        self,
        lm: FrozenLM,
        template: str | Conversation = "{prompt} {text} It was",
        verbalizer: Words = WORDS,
        path: str | None = "fancyzhx/yelp_polarity",
        name: str | None = "yelp",
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, path=path, name=name, **kwargs)


class YelpTransfer(TextClassification):
    """Sentences of one sentiment, to be rewritten into the other.

    Serves the rows of the source style, labelled with the style that they should get; batches have
    `sources`, the texts, and `references`, rewrites by people where the data has a column of that
    name (a list of texts, or one text).

    Args:
        direction: From which style to which.
        template: The model writes the rewrite after its end, up to the next quote.
        verbalizer: Label of the negative, then of the positive style, to a word for it.
        path: Folder, file, or Hub id (OWNER/NAME).
        name: The task's name in folders and tables.
        lm, **kwargs: Of `TextClassification`.

    Raises:
        PromptError: If there are not two styles, or no row has the source style.
    """

    kind = "rewriting"
    extra_columns = (REFERENCES,)

    def __init__(
        self,
        lm: FrozenLM,
        direction: Literal["negative_to_positive", "positive_to_negative"] = "negative_to_positive",
        template: str | Conversation = '{prompt} "{text}" "',
        verbalizer: Words = STYLES,
        path: str | None = None,
        name: str | None = "yelp_transfer",
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, path=path, name=name, **kwargs)
        self.direction = direction
        if "text" not in self.template.columns:
            raise PromptError(
                f"Template {template!r} does not have the sentence to rewrite; put {{text}} in it."
            )
        if len(self.verbalizer.labels) != 2:
            raise PromptError(
                f"--data.verbalizer has {len(self.verbalizer.labels)} labels; give two, first the "
                "negative style's, then the positive one's."
            )
        self.source = 0 if direction == "negative_to_positive" else 1
        self.target = 1 - self.source

    def read(self, split: str) -> Rows:
        """The rows of the source style, labelled with the target.

        Raises:
            PromptError: If there are none, or a row is bad: the message names it.
        """
        rows = super().read(split)
        return replace(rows, labels=[self.target] * len(rows))

    def predict_parts(self, size: int) -> Iterator[Rows]:
        """Of all rows at once, of which only some have the source style."""
        return PromptTask.predict_parts(self, size)

    def train_dataloader(self) -> DataLoader[Any]:
        """As every task's, of `TransferBatch`."""
        return _of_transfer(super().train_dataloader())

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        return _of_transfer(super()._evaluation_loader(split))

    def _labelled(self, raw: Rows, to_predict: bool = False) -> Rows:
        rows = super()._labelled(raw, to_predict)
        for row, number in zip(rows.rows, rows.numbers, strict=True):
            row[REFERENCES] = _references(raw.rows[number].get(REFERENCES))
        # What has no label may have been given for prediction, or else is refused by `read`.
        kept = [i for i, label in enumerate(rows.labels) if label != self.target]
        if not kept:
            label = self.verbalizer.labels[self.source]
            raise PromptError(
                f"{rows.source} has no row with the label {label!r}, whose style is to be changed; "
                "check --data.direction and --data.verbalizer."
            )
        return rows.take(kept)

    def _encode(self, rows: Rows, split: str) -> EncodedRows:
        encoded = super()._encode(rows, split)
        return TransferRows(encoded, rows.rows)

    def _check_classes(self) -> None:
        """One label is all there is: `_labelled` has seen to it that it has rows."""


class TransferRows(EncodedRows):
    """The examples of one split, each with its text and the rewrites by people.

    Args:
        encoded: The examples.
        rows: Their columns.
    """

    def __init__(self, encoded: EncodedRows, rows: Sequence[dict[str, Any]]) -> None:
        super().__init__(encoded.examples, encoded.labels, encoded.numbers)
        self.rows = rows

    def __getitem__(self, index: int) -> Any:
        row = self.rows[max(index, ~index)]  # `~index` names a borrowed row
        return super().__getitem__(index), str(row["text"]), row[REFERENCES]


TransferItem = tuple[tuple[Example, int, int], str, list[str]]


def collate_transfer(items: Sequence[TransferItem]) -> TransferBatch:
    """Items of `TransferRows` as a batch."""
    examples, sources, references = zip(*items, strict=True)
    return TransferBatch(
        **collate_rows(examples), sources=list(sources), references=list(references)
    )


def _of_transfer(loader: DataLoader[Any]) -> DataLoader[Any]:
    loader.collate_fn = collate_transfer
    return loader


def _references(value: object) -> list[str]:
    """Rewrites by people: a list of texts, one text, or nothing."""
    texts = value if isinstance(value, list | tuple) else [value]
    return [str(text) for text in texts if text is not None and str(text).strip()]
